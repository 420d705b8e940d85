"""Geometry of a unit: hard gates, expected walking times, and the time gaps between nodes.

Gates forbid only what is impossible, widened by the cameras' clock uncertainty. Two tracklets cannot be one person when
they overlap in time at two cameras without common view, follow each other faster than anyone walks from one camera to
the other, or overlap in time at one camera.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from pipeline.association.nodes import Nodes, Spans, Timed
from schemas.arrays import Bools, Floats, Ints
from schemas.city_file import City, Walk
from schemas.levels import Level, level_of, parent_of
from schemas.settings import AssociationSettings

#: A camera sees people up to this distance from its position, meters: subtracted at both ends of a walk.
VIEW_RADIUS_M = 15.0
#: Usual walking speed, which turns meters into an expected time.
USUAL_WALK_M_S = 1.3
#: Tracklets processed at a time; bounds the memory of `time_gaps`.
_BLOCK = 50_000


@dataclass(frozen=True)
class Geometry:
    cameras: tuple[str, ...]  # (c,) codes, ascending
    min_gap_us: Floats  # (c, c) a smaller time gap is impossible; -inf where views overlap
    expected_s: Floats  # (c, c) expected walking time at usual speed, seconds; NaN where unknown
    child: Ints  # (c,) index into `children`
    children: tuple[str, ...]  # codes of the unit's children
    horizon_us: int  # larger gaps are left to the level above

    def min_gap(self, a: Ints, b: Ints) -> Floats:
        """Smallest possible time gap between passages at two cameras, microseconds; broadcasts."""
        found: Floats = self.min_gap_us[a, b]
        return found

    @cached_property
    def largest_min_gap_us(self) -> int:
        """No gate forbids a gap of this length or longer."""
        return max(0, int(self.min_gap_us.max(initial=0.0)) + 1)


def unit_geometry(city: City, unit: str, settings: AssociationSettings) -> Geometry:
    """Gates and expected times between all cameras below `unit`."""
    cameras = city.cameras(within=unit)
    codes = tuple(camera.code for camera in cameras)
    clocks = np.array([camera.clock_uncertainty_s for camera in cameras])
    positions = np.array([camera.position or (np.nan, np.nan) for camera in cameras]).reshape(-1, 2)
    meters = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1))  # (c, c) NaN without a position
    walk_s = _walks_s(city.walks_within(unit), codes)
    fastest_s = np.nan_to_num((meters - 2 * VIEW_RADIUS_M) / settings.fastest_walk_m_s, nan=0.0)
    min_gap_s = np.maximum(np.nan_to_num(walk_s), fastest_s) - clocks[:, None] - clocks[None]
    np.fill_diagonal(min_gap_s, 0.0)
    index = {code: i for i, code in enumerate(codes)}
    for i, camera in enumerate(cameras):
        for other in set(camera.overlaps) & set(index):
            min_gap_s[i, index[other]] = min_gap_s[index[other], i] = -np.inf
    # A camera has no children; it stands for its only one.
    children = (unit,) if level_of(unit) is Level.CAMERA else tuple(city.children(unit))
    child_index = {child: k for k, child in enumerate(children)}
    depth = children[0].count("/") + 1 if children else 0
    child = np.array([child_index["/".join(code.split("/")[:depth])] for code in codes], dtype=np.int64)
    return Geometry(
        cameras=codes,
        min_gap_us=min_gap_s * 1e6,
        expected_s=np.fmax(meters / USUAL_WALK_M_S, walk_s),
        child=child,
        children=children,
        horizon_us=settings.horizon_s(level_of(unit)) * 1_000_000,
    )


def _walks_s(walks: Iterable[Walk], codes: Sequence[str]) -> Floats:
    """(c, c) Shortest walking times of the city file, each for all cameras of its two units; NaN where it has none."""
    cameras_below: dict[str, list[int]] = {}
    for i, code in enumerate(codes):
        unit: str | None = code
        while unit is not None:
            cameras_below.setdefault(unit, []).append(i)
            unit = parent_of(unit)
    found = np.full((len(codes), len(codes)), np.nan)
    for walk in walks:
        a, b = cameras_below.get(walk.from_), cameras_below.get(walk.to)
        if a and b:
            found[np.ix_(a, b)] = walk.shortest_s
            found[np.ix_(b, a)] = walk.shortest_s
    return found


@dataclass(frozen=True)
class TimeGaps:
    """For p node pairs: whether each is impossible, and its two tracklets that are nearest in time."""

    impossible: Bools  # (p,)
    gap_us: Ints  # (p,) between the nearest two tracklets; negative: they overlap
    left_camera: Ints  # (p,) camera of the left node's nearest tracklet
    right_camera: Ints  # (p,)

    def take(self, rows: Ints) -> "TimeGaps":
        return TimeGaps(**{name: column[rows] for name, column in vars(self).items()})

    @staticmethod
    def concatenated(parts: Sequence["TimeGaps"]) -> "TimeGaps":
        names = vars(parts[0])
        return TimeGaps(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def time_gaps(nodes: Timed, geometry: Geometry, left: Ints, right: Ints) -> TimeGaps:
    """Gates and time gaps of node pairs. Pairs with an untimed node are never impossible and have gap 0.

    Nearest are the two tracklets with the smallest gap among those that follow each other or start nearest to each
    other; of equal gaps the first counts.
    """
    swap = nodes.spans.counts[left] > nodes.spans.counts[right]  # iterate over the side with fewer tracklets
    fewer, more = np.where(swap, right, left), np.where(swap, left, right)
    parts = [
        _time_gaps(nodes, geometry, fewer[rows], more[rows], itself=False)
        for rows in _blocks(nodes.spans.counts[fewer])
    ]
    columns: Sequence[Sequence[np.ndarray]] = list(zip(*parts, strict=True)) if parts else [[]] * 4
    impossible, gap, a, b = (np.concatenate(c) if c else np.empty(0, np.int64) for c in columns)
    return TimeGaps(impossible.astype(bool), gap, np.where(swap, b, a), np.where(swap, a, b))


def contradicts_itself(nodes: Nodes, geometry: Geometry) -> Bools:
    """(n,) Whether two tracklets of the node cannot be one person."""
    every = np.arange(len(nodes))
    result = np.zeros(len(nodes), dtype=bool)
    for rows in _blocks(nodes.spans.counts):
        result[rows] = _time_gaps(nodes, geometry, every[rows], every[rows], itself=True)[0]
    return result


def _blocks(counts: Ints) -> list[slice]:
    """Consecutive node pairs in blocks of about `_BLOCK` tracklets. counts: (p,) tracklets of each pair's one side."""
    if not len(counts):
        return []
    total = np.cumsum(counts)
    if total[-1] <= _BLOCK:
        return [slice(0, len(counts))]
    cuts = np.searchsorted(total, np.arange(_BLOCK, int(total[-1]) + _BLOCK, _BLOCK)) + 1
    edges = np.unique(np.concatenate([[0], cuts, [len(counts)]]).clip(0, len(counts))).tolist()
    return [slice(a, b) for a, b in pairwise(edges)]


def _time_gaps(
    nodes: Timed, geometry: Geometry, fewer: Ints, more: Ints, *, itself: bool
) -> tuple[Bools, Ints, Ints, Ints]:
    """For p node pairs: impossible, gap, camera of the node `fewer`, camera of the node `more`. All (p,).

    A node's tracklets are sorted by time. Each tracklet of `fewer` is therefore compared only with those tracklets of
    `more` that a gate could forbid, and with its two neighbors in time: the cost does not grow with a node's history.
    itself: both sides are the same node, whose tracklets are not compared with themselves.
    """
    spans = nodes.spans
    reach_us = _reach_us(spans, geometry)
    a, first_row = _ranges(spans.first[fewer], spans.counts[fewer])  # (l,) tracklets of `fewer`
    other = np.repeat(more, spans.counts[fewer])
    first, end = spans.first[other], spans.first[other + 1]
    low = spans.first_from(other, spans.start_us[a] - reach_us)
    high = spans.first_from(other, spans.end_us[a] + reach_us + 1)
    following = spans.first_from(other, spans.start_us[a] + 1)
    low, high = np.maximum(np.minimum(low, following - 1), first), np.minimum(np.maximum(high, following + 1), end)
    b, first_b = _ranges(low, high - low)  # (m,) tracklets of `more`
    a = np.repeat(a, high - low)
    first_row = first_b[first_row]
    gap = np.maximum(spans.start_us[a], spans.start_us[b]) - np.minimum(spans.end_us[a], spans.end_us[b])
    forbidden = gap < geometry.min_gap_us[spans.camera[a], spans.camera[b]]
    if itself:
        forbidden &= a != b
    timed = nodes.timed[fewer] & nodes.timed[more]
    impossible = np.logical_or.reduceat(forbidden, first_row) & timed
    smallest = np.minimum.reduceat(gap, first_row)
    hits = np.flatnonzero(gap == np.repeat(smallest, np.diff(np.append(first_row, len(gap)))))
    nearest = hits[np.searchsorted(hits, first_row)]
    return impossible, np.where(timed, smallest, 0), spans.camera[a[nearest]], spans.camera[b[nearest]]


def _ranges(first: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """The concatenated ranges first[i] .. first[i] + counts[i] - 1, and the position at which each range begins."""
    begin = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return np.repeat(first - begin, counts) + np.arange(int(counts.sum())), begin


def _reach_us(spans: Spans, geometry: Geometry) -> int:
    """No gate forbids a tracklet that starts longer than this before another one's start, or after its end."""
    longest = int((spans.end_us - spans.start_us).max(initial=0))
    return longest + geometry.largest_min_gap_us
