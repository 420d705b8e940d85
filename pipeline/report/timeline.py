"""Layout of an identity's timeline: a lane for each camera, time from left to right, pixels. The template draws it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from zoneinfo import ZoneInfo

from pipeline.report.axis import Axis, span_us, time_axis
from pipeline.report.identities import DistrictIdentity, Tracklet
from pipeline.report.thumbnails import Picture, best
from schemas.feeds import Outage
from schemas.times import to_us

WIDTH = 1080.0
LEFT = 176.0  # where time begins; the lanes' names stand before it
_RIGHT = 1052.0  # where time ends; half the label of a last tick extends beyond it
_TOP = 34.0
LANE = 86.0
_LANE_WITHOUT_PICTURES = 64.0
THUMB = 68.0  # height of a picture
_LANES_DRAWN = 24


@dataclass(frozen=True)
class Lane:
    camera: str
    y: float  # top
    bar_y: float  # of its tracklets' bars
    first_of_street: bool
    without_picture: int  # tracklets drawn without a picture, mostly for want of room, in a timeline with pictures


@dataclass(frozen=True)
class DrawnTracklet:
    """A bar as long as the tracklet lasted, with a picture above it where there is room."""

    tracklet: Tracklet
    bar_x: float
    bar_y: float
    bar_width: float
    picture: Picture | None
    x: float  # of the picture
    y: float
    width: float
    wrong: bool  # the ground truth is another person than the identity's main one


@dataclass(frozen=True)
class Blind:
    """A camera's lane from `x` on, while it was blind."""

    outage: Outage
    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Link:
    """A curve from one tracklet to the next."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def middle(self) -> float:
        return (self.x0 + self.x1) / 2


@dataclass(frozen=True)
class Timeline:
    identity: DistrictIdentity
    width: float
    height: float
    lane: float  # height of each lane
    axis: Axis | None  # None: the tracklets have no times
    lanes: list[Lane]
    blind: list[Blind]
    drawn: list[DrawnTracklet]
    links: list[Link]
    cameras_left_out: int


def draw_timeline(
    identity: DistrictIdentity,
    pictures: Mapping[int, Sequence[Picture]],
    zone: ZoneInfo,
    outages: Sequence[Outage] = (),
) -> Timeline:
    """Lays out the lanes by camera code, so that a street's and a building's lanes are adjacent.

    `pictures`: of tracklets, by id. Of more than 24 cameras those with the most tracklets are drawn. Tracklets without
    times are spread evenly and not linked.
    """
    cameras = sorted({t.camera for t in identity.tracklets})
    kept = cameras
    if len(cameras) > _LANES_DRAWN:
        most = sorted(cameras, key=lambda c: (-sum(t.camera == c for t in identity.tracklets), c))
        kept = sorted(most[:_LANES_DRAWN])
    tracklets = [t for t in identity.tracklets if t.camera in kept]
    lane = LANE if any(pictures.get(t.id) for t in tracklets) else _LANE_WITHOUT_PICTURES
    tops = {camera: _TOP + i * lane for i, camera in enumerate(kept)}
    axis = None
    if identity.timed:
        axis = time_axis([span_us(t.first_seen, t.last_seen) for t in tracklets], LEFT, _RIGHT, zone)
        spans = {t.id: (axis.x(to_us(t.first_seen)), axis.x(to_us(t.last_seen))) for t in tracklets}
    else:
        step = (_RIGHT - LEFT) / len(tracklets)
        spans = {t.id: (LEFT + (i + 0.5) * step,) * 2 for i, t in enumerate(tracklets)}
    lanes, drawn = [], []
    before: str | None = None
    for camera, group in groupby(sorted(tracklets, key=lambda t: (t.camera, spans[t.id])), key=lambda t: t.camera):
        here = list(group)
        placed = _place_pictures(here, spans, pictures)
        bar_y = tops[camera] + lane - 9
        lanes.append(
            Lane(
                camera,
                tops[camera],
                bar_y,
                before is None or before.split("/")[1] != camera.split("/")[1],
                len(here) - len(placed) if lane == LANE else 0,
            )
        )
        before = camera
        for tracklet in here:
            start, end = spans[tracklet.id]
            bar = max(end - start, 5.0)
            picture, x = placed.get(tracklet.id, (None, 0.0))
            drawn.append(
                DrawnTracklet(
                    tracklet,
                    (start + end - bar) / 2,
                    bar_y,
                    bar,
                    picture,
                    x,
                    tops[camera] + 5,
                    0.0 if picture is None else picture.width_at(THUMB),
                    tracklet.truth is not None and tracklet.truth != identity.main_truth,
                )
            )
    ends = {d.tracklet.id: (d.bar_x, d.bar_x + d.bar_width, d.bar_y + 2.5) for d in drawn}
    links = [
        Link(ends[a.id][1], ends[a.id][2], ends[b.id][0], ends[b.id][2])
        for a, b in pairwise(tracklets if axis is not None else [])
    ]
    height, left_out = _TOP + len(kept) * lane, len(cameras) - len(kept)
    blind = [] if axis is None else [b for o in outages if o.camera in tops and (b := _blind(o, axis, tops[o.camera]))]
    return Timeline(identity, WIDTH, height, lane, axis, lanes, blind, drawn, links, left_out)


def _blind(outage: Outage, axis: Axis, y: float) -> Blind | None:
    """None where the whole outage lies before or after the time that is drawn."""
    start = axis.x(to_us(outage.down_at))
    end = _RIGHT if outage.up_at is None else axis.end_x(to_us(outage.up_at))
    return Blind(outage, start, y, end - start) if end > start else None


def _place_pictures(
    tracklets: Sequence[Tracklet],
    spans: Mapping[int, tuple[float, float]],
    pictures: Mapping[int, Sequence[Picture]],
) -> dict[int, tuple[Picture, float]]:
    """A lane's pictures above their bars, moved sideways so that none overlap: tracklet's id -> picture, left edge.

    If there is no room for all, every second one is dropped until the rest fit.
    """
    gap = 4.0
    chosen = [(t, best(pictures[t.id])) for t in tracklets if pictures.get(t.id)]
    room = _RIGHT - LEFT
    while sum(picture.width_at(THUMB) + gap for _, picture in chosen) > room:
        chosen = chosen[::2] if len(chosen) > 2 else chosen[:1]
    edges: list[float] = []
    at = LEFT
    for tracklet, picture in chosen:  # from the left: none starts before the previous one ends
        width = picture.width_at(THUMB)
        at = max(at, sum(spans[tracklet.id]) / 2 - width / 2)
        edges.append(at)
        at += width + gap
    limit = _RIGHT
    for i in range(len(edges) - 1, -1, -1):  # and back from the right edge
        width = chosen[i][1].width_at(THUMB)
        edges[i] = min(edges[i], limit - width)
        limit = edges[i] - gap
    return {t.id: (picture, edge) for (t, picture), edge in zip(chosen, edges, strict=True)}
