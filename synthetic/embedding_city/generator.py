"""An embedding-level city: tracklets with features, times and truth, from a seed and in bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from schemas.arrays import Floats, Ints, Singles
from schemas.city_file import City
from synthetic.embedding_city.looks import Tracklets, embed
from synthetic.embedding_city.passages import Passages, all_passages, drop_outs, recorded
from synthetic.embedding_city.people import ways_of
from synthetic.embedding_city.settings import EmbeddingCitySettings
from synthetic.embedding_city.streets import Plan, lay_out
from synthetic.seeds import generator

#: Hears how many people's lives are written, and how many there are.
Progress = Callable[[int, int], None]

START = datetime(2026, 1, 5, 6, tzinfo=UTC)
_START_US = (START - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
#: People in a batch, divided by the days; bounds the memory.
_BLOCK = 256
#: A passage shorter than this gives one crop.
_ONE_CROP_S = 1.6
#: Scatters the tracklets' numbers, so that they tell nothing about who it is; odd, so that none comes twice.
_SCATTER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class PassageBatch:
    """n crops, those of one tracklet behind each other, by time."""

    camera: NDArray[np.int32]  # (n,) index into the city's `camera_codes`
    track: NDArray[np.int64]  # (n,) the tracklet's number; unique in the city
    time_us: NDArray[np.int64]  # (n,) microseconds UTC, by the camera's clock
    person: NDArray[np.int64]  # (n,) the truth
    quality: NDArray[np.float32]  # (n,) above 0.05, at most 1; low where someone is occluded
    features: Singles  # (n, D) raw, as the embedder gives them

    def __len__(self) -> int:
        return len(self.camera)


@dataclass(frozen=True)
class EmbeddingCity:
    settings: EmbeddingCitySettings
    plan: Plan

    @property
    def city(self) -> City:
        return self.plan.city

    @property
    def camera_codes(self) -> tuple[str, ...]:
        """(c,) in the order of `City.cameras`."""
        return self.plan.camera_codes

    @property
    def clock_skew_us(self) -> Ints:
        """(c,) each camera's clock less the true time, microseconds; the truth."""
        return self.plan.clock_skew_us

    def batches(self, progress: Progress | None = None) -> Iterator[PassageBatch]:
        """All crops, a block of people at a time; the same on each reading.

        A batch holds the whole lives of its people. Its size depends neither on the number of cameras nor on that of
        the days, as long as no one life is longer.
        """
        down = drop_outs(self.plan, self.settings)
        total = self.settings.population
        size = max(1, _BLOCK // self.settings.whole_days)
        for first in range(0, total, size):
            people = range(first, min(first + size, total))
            passages = all_passages(self.plan, ways_of(self.plan, self.settings, people))
            yield self._seen(people, passages, down)
            if progress is not None:
                progress(people.stop, total)

    def _seen(self, people: range, passages: Passages, down: tuple[Floats, Floats]) -> PassageBatch:
        settings, plan = self.settings, self.plan
        luck = np.empty((len(passages.person), 4))
        edge = np.searchsorted(passages.person, np.arange(people.start, people.stop + 1))
        for i, person in enumerate(people):
            generator(settings.seed, "embedding city", 2, person).random(out=luck[edge[i] : edge[i + 1]])
        kept = recorded(passages, settings, down, luck[:, 0])
        passages, luck = passages.take(kept), luck[kept]
        crops = np.where(passages.end_s - passages.start_s < _ONE_CROP_S, 1, settings.crops_per_tracklet)
        tracklet = np.repeat(np.arange(len(crops)), crops)
        first = np.cumsum(crops) - crops
        step = np.arange(len(tracklet)) - first[tracklet]
        share = np.where(crops[tracklet] > 1, step / np.maximum(crops[tracklet] - 1, 1), 0.5)
        time_s = passages.start_s[tracklet] + share * (passages.end_s - passages.start_s)[tracklet]
        camera = passages.camera[tracklet]
        hidden = np.where(luck[:, 1] < settings.occluded_share, 0.3 + 0.5 * luck[:, 2], 0.0)
        seen = Tracklets(people, passages.person, passages.camera, crops, hidden, luck[:, 3])
        features, quality = embed(settings, len(plan.district_lanes), seen)
        number = np.arange(len(crops)) - np.searchsorted(passages.person, passages.person)  # within each person's life
        track = (passages.person.astype(np.uint64) << np.uint64(24) | number.astype(np.uint64)) * _SCATTER
        return PassageBatch(
            camera=camera.astype(np.int32),
            track=(track & np.uint64(2**63 - 1)).astype(np.int64)[tracklet],
            time_us=_START_US + np.rint(time_s * 1e6).astype(np.int64) + plan.clock_skew_us[camera],
            person=passages.person[tracklet],
            quality=quality,
            features=features,
        )


def embedding_city(settings: EmbeddingCitySettings) -> EmbeddingCity:
    """The city of these settings; its people's lives are drawn when `batches` is read."""
    return EmbeddingCity(settings, lay_out(settings))
