"""An embedding-level city: tracklets with features, times and truth, from a seed, in bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from schemas.arrays import Floats, Ints, Singles
from schemas.city_file import City
from synthetic.embedding_city.embedding import Tracklets, embed
from synthetic.embedding_city.passages import Passages, all_passages, drop_outs, recorded
from synthetic.embedding_city.people import trips_of
from synthetic.embedding_city.settings import EmbeddingCitySettings
from synthetic.embedding_city.streets import Plan, lay_out
from synthetic.seeds import generator

#: Called with (people done, people in all).
Progress = Callable[[int, int], None]

START = datetime(2026, 1, 5, 6, tzinfo=UTC)
_START_US = (START - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
#: People per batch, times days; bounds memory.
_BLOCK = 256
#: A shorter passage gives one crop only.
_ONE_CROP_S = 1.6
#: Scrambles the tracklet numbers, so that they do not reveal the person; odd, so that they stay distinct.
_SCATTER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class PassageBatch:
    """n crops; those of one tracklet are adjacent, in time order."""

    camera: NDArray[np.int32]  # (n,) index into the city's `camera_codes`
    track: NDArray[np.int64]  # (n,) number of the tracklet, unique in the city
    time_us: NDArray[np.int64]  # (n,) microseconds UTC, by the camera's clock
    person: NDArray[np.int64]  # (n,) the truth
    quality: NDArray[np.float32]  # (n,) above 0.05, at most 1; low where the person is occluded
    features: Singles  # (n, D) raw

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
        """(c,) In the order of `City.cameras`."""
        return self.plan.camera_codes

    @property
    def clock_skew_us(self) -> Ints:
        """(c,) The clock of each camera minus the true time, microseconds."""
        return self.plan.clock_skew_us

    def batches(self, progress: Progress | None = None) -> Iterator[PassageBatch]:
        """All crops, one batch per block of people; the same at each reading.

        A batch holds all crops of its people. Its size depends neither on the number of cameras nor on that of days,
        as long as it holds more than one person.
        """
        down = drop_outs(self.plan, self.settings)
        total = self.settings.population
        size = max(1, _BLOCK // self.settings.whole_days)
        for first in range(0, total, size):
            people = range(first, min(first + size, total))
            passages = all_passages(self.plan, trips_of(self.plan, self.settings, people))
            yield self._batch(people, passages, down)
            if progress is not None:
                progress(people.stop, total)

    def _batch(self, people: range, passages: Passages, down: tuple[Floats, Floats]) -> PassageBatch:
        settings, plan = self.settings, self.plan
        draws = np.empty((len(passages.person), 4))
        edge = np.searchsorted(passages.person, np.arange(people.start, people.stop + 1))
        for i, person in enumerate(people):
            generator(settings.seed, "embedding city", 2, person).random(out=draws[edge[i] : edge[i + 1]])
        kept = recorded(passages, settings, down, draws[:, 0])
        passages, draws = passages.take(kept), draws[kept]
        crops = np.where(passages.end_s - passages.start_s < _ONE_CROP_S, 1, settings.crops_per_tracklet)
        tracklet = np.repeat(np.arange(len(crops)), crops)
        first = np.cumsum(crops) - crops
        step = np.arange(len(tracklet)) - first[tracklet]
        share = np.where(crops[tracklet] > 1, step / np.maximum(crops[tracklet] - 1, 1), 0.5)
        time_s = passages.start_s[tracklet] + share * (passages.end_s - passages.start_s)[tracklet]
        camera = passages.camera[tracklet]
        hidden = np.where(draws[:, 1] < settings.occluded_share, 0.3 + 0.5 * draws[:, 2], 0.0)
        tracklets = Tracklets(people, passages.person, passages.camera, crops, hidden, draws[:, 3])
        features, quality = embed(settings, len(plan.district_lanes), tracklets)
        number = np.arange(len(crops)) - np.searchsorted(
            passages.person, passages.person
        )  # among the person's passages
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
    """The city of these settings; its people are drawn when `batches` is read."""
    return EmbeddingCity(settings, lay_out(settings))
