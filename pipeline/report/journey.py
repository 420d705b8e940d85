"""Where things go in the picture of a person's way along the cameras. Only geometry; the template makes SVG of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from zoneinfo import ZoneInfo

from pipeline.report.axis import Axis, span_us, time_axis
from pipeline.report.read import Person, Sighting
from pipeline.report.thumbnails import Picture, best
from schemas.times import to_us

JOURNEY_WIDTH = 1080.0
LEFT = 176.0  # where time begins; names stand before it
_RIGHT = 1052.0  # the label of a last tick stands half beyond it
_TOP = 34.0
LANE = 86.0
_BARE = 64.0  # a lane's height where nobody has a picture
THUMB = 68.0
_LANES_DRAWN = 24


@dataclass(frozen=True)
class Lane:
    camera: str
    y: float  # top
    bar_y: float  # of its sightings' bars
    first_of_street: bool
    left_out: int  # sightings without a picture where others have one, mostly for want of room


@dataclass(frozen=True)
class Shown:
    """A sighting in the drawing: a bar as long as it lasted, and a picture above it where there is room."""

    sighting: Sighting
    bar_x: float
    bar_y: float
    bar_width: float
    picture: Picture | None
    x: float  # of the picture
    y: float
    width: float
    odd: bool  # truly someone else than most of this identity's sightings


@dataclass(frozen=True)
class Way:
    """From one sighting to the next, a curve."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def middle(self) -> float:
        return (self.x0 + self.x1) / 2


@dataclass(frozen=True)
class Journey:
    person: Person
    width: float
    height: float
    lane: float  # height of each lane
    axis: Axis | None  # None: its sightings have no times
    lanes: list[Lane]
    shown: list[Shown]
    ways: list[Way]
    cameras_left_out: int


def draw_journey(person: Person, pictures: Mapping[int, Sequence[Picture]], zone: ZoneInfo) -> Journey:
    """A row for each camera, by street and building; time from left to right; a line in the order of time."""
    cameras = sorted({s.camera for s in person.sightings})
    kept = cameras
    if len(cameras) > _LANES_DRAWN:
        most = sorted(cameras, key=lambda c: (-sum(s.camera == c for s in person.sightings), c))
        kept = sorted(most[:_LANES_DRAWN])
    sightings = [s for s in person.sightings if s.camera in kept]
    lane = LANE if any(pictures.get(s.id) for s in sightings) else _BARE
    tops = {camera: _TOP + i * lane for i, camera in enumerate(kept)}
    axis = None
    if person.timed:
        axis = time_axis([span_us(s.first_seen, s.last_seen) for s in sightings], LEFT, _RIGHT, zone)
        spans = {s.id: (axis.x(to_us(s.first_seen)), axis.x(to_us(s.last_seen))) for s in sightings}
    else:
        step = (_RIGHT - LEFT) / len(sightings)
        spans = {s.id: (LEFT + (i + 0.5) * step,) * 2 for i, s in enumerate(sightings)}
    lanes, shown = [], []
    before: str | None = None
    for camera, group in groupby(sorted(sightings, key=lambda s: (s.camera, spans[s.id])), key=lambda s: s.camera):
        theirs = list(group)
        placed = _place(theirs, spans, pictures)
        bar_y = tops[camera] + lane - 9
        lanes.append(
            Lane(
                camera,
                tops[camera],
                bar_y,
                before is None or before.split("/")[1] != camera.split("/")[1],
                len(theirs) - len(placed) if lane == LANE else 0,
            )
        )
        before = camera
        for sighting in theirs:
            start, end = spans[sighting.id]
            bar = max(end - start, 5.0)
            picture, x = placed.get(sighting.id, (None, 0.0))
            shown.append(
                Shown(
                    sighting,
                    (start + end - bar) / 2,
                    bar_y,
                    bar,
                    picture,
                    x,
                    tops[camera] + 5,
                    0.0 if picture is None else picture.width_at(THUMB),
                    sighting.truth is not None and sighting.truth != person.mostly,
                )
            )
    ends = {s.sighting.id: (s.bar_x, s.bar_x + s.bar_width, s.bar_y + 2.5) for s in shown}
    ways = [
        Way(ends[a.id][1], ends[a.id][2], ends[b.id][0], ends[b.id][2])
        for a, b in pairwise(sightings if axis is not None else [])
    ]
    height, left_out = _TOP + len(kept) * lane, len(cameras) - len(kept)
    return Journey(person, JOURNEY_WIDTH, height, lane, axis, lanes, shown, ways, left_out)


def _place(
    sightings: Sequence[Sighting],
    spans: Mapping[int, tuple[float, float]],
    pictures: Mapping[int, Sequence[Picture]],
) -> dict[int, tuple[Picture, float]]:
    """A lane's pictures above their bars, moved aside where they would lie on each other: id -> picture, left edge.

    As many as there is room for, spread evenly.
    """
    gap = 4.0
    chosen = [(s, best(pictures[s.id])) for s in sightings if pictures.get(s.id)]
    room = _RIGHT - LEFT
    while sum(picture.width_at(THUMB) + gap for _, picture in chosen) > room:
        chosen = chosen[::2] if len(chosen) > 2 else chosen[:1]
    edges: list[float] = []
    at = LEFT
    for sighting, picture in chosen:  # from the left: none before the one on its left ends
        width = picture.width_at(THUMB)
        at = max(at, sum(spans[sighting.id]) / 2 - width / 2)
        edges.append(at)
        at += width + gap
    limit = _RIGHT
    for i in range(len(edges) - 1, -1, -1):  # and back from the right edge
        width = chosen[i][1].width_at(THUMB)
        edges[i] = min(edges[i], limit - width)
        limit = edges[i] - gap
    return {s.id: (picture, edge) for (s, picture), edge in zip(chosen, edges, strict=True)}
