"""A rendered city: its people's passages at its cameras, their pictures, and its files (city file, manifest)."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from schemas.city_file import City
from schemas.crops import ManifestLine
from schemas.errors import UsageError
from synthetic.camera_view import Box, Camera, Difficulty, Picture, Walker, draw_camera, photograph
from synthetic.ground import SEEN_WITHIN_M, Journey, Plan, Spot, draw_journeys, lay_out
from synthetic.pedestrians import Person, draw_people, draw_person
from synthetic.seeds import generator
from synthetic.textures import dress

Progress = Callable[[int, int], None]

START = datetime(2026, 1, 1, 8, tzinfo=UTC)
CITY_DIFFICULTY = Difficulty()
#: Half of the people wear one uniform: the same garments, in colors that differ by what cloth and washing change.
UNIFORMS = Difficulty(look_alike_share=0.5, group=(10_000, 10_000), spread=2.0)
#: Time between two detections of a person.
_EVERY_S = 0.5
#: Gait phase per meter walked: a double step is 1.5 m.
_STRIDE_RAD_M = 4.2
#: Number of people who only pass in front of others and are not detected themselves.
_STRANGERS = 16


@dataclass(frozen=True)
class Sighting:
    """One detection of a person by a camera."""

    time_s: float  # true time from the start
    x: float
    y: float
    heading: float
    phase: float


@dataclass(frozen=True)
class Passage:
    """One passage of one person at one camera; its sightings are one track."""

    camera: str
    track: str  # number of the passage at its camera
    person: int
    sightings: tuple[Sighting, ...]


@dataclass(frozen=True)
class SimulatedCrop:
    """One detection. The time is that of the camera's clock, which may err by its `clock_uncertainty_s`."""

    picture: Picture  # uint8 RGB (h, w, 3)
    camera: str
    time: datetime
    track: str
    box: Box  # x, y, width, height in the frame, pixels
    truth: str


@dataclass(frozen=True)
class SimulatedCity:
    """A rendered city; its pictures are drawn when `crops` is read."""

    seed: int
    city: City
    plan: Plan
    people: tuple[Person, ...]
    passages: tuple[Passage, ...]
    start: datetime
    difficulty: Difficulty

    def crops(self, progress: Progress | None = None) -> Iterator[SimulatedCrop]:
        """All crops by camera time; the same at each reading. progress: called with (crops done, crops in all)."""
        spots = {spot.code: spot for spot in self.plan.spots()}
        views: dict[str, Camera] = {
            code: draw_camera(generator(self.seed, "city", 2, i), spot.at, spot.azimuth, self.difficulty)
            for i, (code, spot) in enumerate(sorted(spots.items()))
        }
        looks = [dress(person) for person in self.people]
        strangers = [dress(draw_person(generator(self.seed, "city", 3, i))) for i in range(_STRANGERS)]
        exposures = np.exp(generator(self.seed, "city", 4).normal(0, self.difficulty.exposure, len(self.passages)))
        order = sorted(
            (self._clock(spots[passage.camera], sighting), number, i)
            for number, passage in enumerate(self.passages)
            for i, sighting in enumerate(passage.sightings)
        )
        for done, (time, number, i) in enumerate(order):
            passage, rng = self.passages[number], generator(self.seed, "city", 5, number, i)
            sighting = passage.sightings[i]
            crop = photograph(
                views[passage.camera],
                Walker(looks[passage.person], sighting.x, sighting.y, sighting.heading, sighting.phase),
                rng,
                self.difficulty,
                exposure=float(exposures[number]),
                stranger=strangers[rng.integers(_STRANGERS)] if rng.random() < self.difficulty.crowding else None,
            )
            if crop is not None:
                yield SimulatedCrop(crop[0], passage.camera, time, passage.track, crop[1], _name(passage.person))
            if progress is not None:
                progress(done + 1, len(order))

    def _clock(self, spot: Spot, sighting: Sighting) -> datetime:
        return self.start + timedelta(microseconds=round((sighting.time_s + spot.clock_error_s) * 1e6))


def simulate_city(
    seed: int,
    cameras: int = 8,
    people: int = 45,
    *,
    start: datetime = START,
    duration_s: float = 1500.0,
    difficulty: Difficulty = CITY_DIFFICULTY,
) -> SimulatedCity:
    """A district of two streets with `cameras` cameras (2 to 64), and `people` who walk through it for `duration_s`.

    Deterministic. Each person walks a continuous path at 1.0 to 1.7 m/s, and is thus never at two cameras at once
    unless these overlap. Raises UsageError for arguments out of range.
    """
    if people < 1 or duration_s < 60 or start.tzinfo is None:
        raise UsageError("a simulated city needs at least one person and 60 seconds, and a start with a time zone")
    plan = lay_out(generator(seed, "city", 0), cameras)
    crowd = draw_people(
        generator(seed, "city", 1, 0),
        people,
        look_alike_share=difficulty.look_alike_share,
        group=difficulty.group,
        spread=difficulty.spread,
    )
    spots = plan.spots()
    found: list[tuple[float, str, int, tuple[Sighting, ...]]] = []
    for person in range(people):
        rng = generator(seed, "city", 1, 1, person)
        for journey in draw_journeys(rng, plan, duration_s):
            for spot in spots:
                for sightings in _watch(rng, spot, journey, duration_s, difficulty.missed):
                    found.append((sightings[0].time_s, spot.code, person, sightings))
    count = dict.fromkeys((spot.code for spot in spots), 0)
    passages = []
    for _, camera, person, sightings in sorted(found, key=lambda item: item[:3]):
        count[camera] += 1
        passages.append(Passage(camera, str(count[camera]), person, sightings))
    return SimulatedCity(seed, plan.city, plan, tuple(crowd), tuple(passages), start, difficulty)


def _watch(
    rng: np.random.Generator, spot: Spot, journey: Journey, duration_s: float, missed: float
) -> Iterator[tuple[Sighting, ...]]:
    """The passages of one journey at one camera, without the detections that are missed."""
    first_s, last_s = journey.times[0] + rng.uniform(0.1, 0.1 + _EVERY_S), min(journey.times[-1] - 0.1, duration_s)
    times = np.arange(first_s, last_s, _EVERY_S)
    times = times + rng.uniform(-0.04, 0.04, len(times))
    position, next_position = journey.at(times), journey.at(times + 0.05)
    seen = np.hypot(position[:, 0] - spot.at[0], position[:, 1] - spot.at[1]) < SEEN_WITHIN_M
    walked_m = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(position, axis=0).T))])
    phase = rng.uniform(0, 2 * math.pi) + _STRIDE_RAD_M * walked_m
    step = next_position - position
    heading = np.arctan2(step[:, 1], step[:, 0])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], seen.astype(int), [0]])))
    for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        kept = [i for i in range(first, end) if rng.random() >= missed]
        if kept:
            yield tuple(
                Sighting(
                    time_s=float(times[i]),
                    x=float(position[i, 0]),
                    y=float(position[i, 1]),
                    heading=float(heading[i]),
                    phase=float(phase[i]),
                )
                for i in kept
            )


def _name(person: int) -> str:
    return f"p{person + 1:03d}"


def write_city(simulated: SimulatedCity, directory: Path, progress: Progress | None = None) -> Path:
    """Writes city.yaml, manifest.jsonl and pictures/ below `directory`; returns the manifest's path.

    The same city gives the same bytes. Raises OSError.
    """
    pictures = directory / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    (directory / "city.yaml").write_text(city_yaml(simulated.city), encoding="utf-8")
    manifest = directory / "manifest.jsonl"
    with manifest.open("w", encoding="utf-8") as lines:
        for number, crop in enumerate(simulated.crops(progress)):
            name = f"{crop.camera.replace('/', '-')}-{crop.track}-{number:06d}.jpg"
            encoded = cv2.imencode(".jpg", crop.picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
            (pictures / name).write_bytes(encoded.tobytes())
            line = ManifestLine(
                path=f"pictures/{name}",
                camera=crop.camera,
                time=crop.time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
                track=crop.track,
                box=crop.box,
                truth=crop.truth,
            )
            lines.write(line.model_dump_json() + "\n")
    return manifest


def city_yaml(city: City) -> str:
    """The city file: YAML, with each unit and walk as JSON on a line."""
    lines = [f"timezone: {city.timezone}", "units:"]
    for unit in city.units:
        lines.append(f"  - {json.dumps(unit.model_dump(mode='json', exclude_defaults=True))}")
    lines.append("walks:" if city.walks else "walks: []")
    for walk in city.walks:
        lines.append(f"  - {json.dumps(walk.model_dump(mode='json', by_alias=True))}")
    return "\n".join(lines) + "\n"
