"""Hard gates: what one person cannot do. Only the impossible is forbidden, with room for wrong clocks.

Two tracklets cannot be one person when, beyond the clocks' uncertainty, they overlap in time at two cameras that see
no common ground, or follow each other faster than anyone gets from one to the other. At one camera, two tracklets that
overlap in time are two people.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from pipeline.association.nodes import Nodes, Spans
from schemas.arrays import Bools, Floats, Ints
from schemas.city_file import City, Walk
from schemas.levels import Level, level_of, parent_of
from schemas.settings import AssociationSettings

#: Room at each end of a way: a person is seen this far from where the camera stands, meters.
VIEW_RADIUS_M = 15.0
#: A usual pace, by which a way in meters becomes one in seconds.
USUAL_WALK_M_S = 1.3
#: Tracklets gone through at a time; bounds the memory of `closest`.
_BLOCK = 50_000


@dataclass(frozen=True)
class Geometry:
    cameras: tuple[str, ...]  # codes, ascending
    slack_us: Floats  # (c, c) a gap below this is impossible; -inf where views overlap
    way_s: Floats  # (c, c) how long the way takes at a usual pace, seconds; NaN where nothing is known of it
    child: Ints  # (c,) which child of the unit each camera lies in
    children: tuple[str, ...]  # codes of the unit's children
    horizon_us: int  # two sightings further apart are for the level above to compare

    def slack(self, a: Ints, b: Ints) -> Floats:
        """The gap, microseconds, below which passages at two cameras are impossible; broadcasts."""
        found: Floats = self.slack_us[a, b]
        return found

    @cached_property
    def longest_slack_us(self) -> int:
        return max(0, int(self.slack_us.max(initial=0.0)) + 1)


def geometry(city: City, unit: str, settings: AssociationSettings) -> Geometry:
    """The gates and ways between all cameras below `unit`."""
    cameras = city.cameras(within=unit)
    codes = tuple(camera.code for camera in cameras)
    clocks = np.array([camera.clock_uncertainty_s for camera in cameras])
    places = np.array([camera.position or (np.nan, np.nan) for camera in cameras]).reshape(-1, 2)
    meters = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))  # (c, c) NaN without a position
    walk_s = _walks_s(city.walks_within(unit), codes)
    fastest_s = np.nan_to_num((meters - 2 * VIEW_RADIUS_M) / settings.fastest_walk_m_s, nan=0.0)
    slack_s = np.maximum(np.nan_to_num(walk_s), fastest_s) - clocks[:, None] - clocks[None]
    np.fill_diagonal(slack_s, 0.0)
    index = {code: i for i, code in enumerate(codes)}
    for i, camera in enumerate(cameras):
        for other in set(camera.overlaps) & set(index):
            slack_s[i, index[other]] = slack_s[index[other], i] = -np.inf
    # One camera has no gates: it only names itself.
    children = (unit,) if level_of(unit) is Level.CAMERA else tuple(city.children(unit))
    place = {child: k for k, child in enumerate(children)}
    depth = children[0].count("/") + 1 if children else 0
    child = np.array([place["/".join(code.split("/")[:depth])] for code in codes], dtype=np.int64)
    horizon_us = settings.horizon_s(level_of(unit)) * 1_000_000
    return Geometry(codes, slack_s * 1e6, np.fmax(meters / USUAL_WALK_M_S, walk_s), child, children, horizon_us)


def _walks_s(walks: Iterable[Walk], codes: Sequence[str]) -> Floats:
    """(c, c) The shortest known walk between the highest units that part two cameras; NaN where the file names none."""
    below: dict[str, list[int]] = {}
    for i, code in enumerate(codes):
        at: str | None = code
        while at is not None:
            below.setdefault(at, []).append(i)
            at = parent_of(at)
    found = np.full((len(codes), len(codes)), np.nan)
    for walk in walks:
        a, b = below.get(walk.from_), below.get(walk.to)
        if a and b:
            found[np.ix_(a, b)] = walk.shortest_s
            found[np.ix_(b, a)] = walk.shortest_s
    return found


@dataclass(frozen=True)
class Closest:
    """For each node pair: whether it is impossible, and the two tracklets that are nearest in time."""

    impossible: Bools  # (p,)
    gap_us: Ints  # (p,) between the nearest two; negative: overlap
    left_camera: Ints  # (p,) at which camera the nearest tracklet of the left node is
    right_camera: Ints  # (p,)

    def take(self, rows: Ints) -> "Closest":
        return Closest(**{name: column[rows] for name, column in vars(self).items()})

    @staticmethod
    def joined(parts: Sequence["Closest"]) -> "Closest":
        names = vars(parts[0])
        return Closest(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def closest(nodes: Nodes, world: Geometry, left: Ints, right: Ints) -> Closest:
    """Gates and time gaps of node pairs. Nodes without times have no gate and gap 0.

    The nearest two follow each other in time, or begin nearest to each other; of equals the first counts.
    """
    swap = nodes.spans.counts[left] > nodes.spans.counts[right]  # the side with fewer tracklets is gone through
    few, many = np.where(swap, right, left), np.where(swap, left, right)
    parts = [_closest(nodes, world, few[rows], many[rows], itself=False) for rows in _blocks(nodes.spans.counts[few])]
    columns: Sequence[Sequence[np.ndarray]] = list(zip(*parts, strict=True)) if parts else [[]] * 4
    impossible, gap, a, b = (np.concatenate(c) if c else np.empty(0, np.int64) for c in columns)
    return Closest(impossible.astype(bool), gap, np.where(swap, b, a), np.where(swap, a, b))


def contradicts_itself(nodes: Nodes, world: Geometry) -> Bools:
    """(n,) Whether two tracklets of one node cannot be one person."""
    everyone = np.arange(len(nodes))
    result = np.zeros(len(nodes), dtype=bool)
    for rows in _blocks(nodes.spans.counts):
        result[rows] = _closest(nodes, world, everyone[rows], everyone[rows], itself=True)[0]
    return result


def _blocks(counts: Ints) -> list[slice]:
    """Runs of node pairs with about `_BLOCK` tracklets on the side that is gone through."""
    if not len(counts):
        return []
    size = np.cumsum(counts)
    cuts = np.searchsorted(size, np.arange(_BLOCK, int(size[-1]) + _BLOCK, _BLOCK)) + 1
    edges = np.unique(np.concatenate([[0], cuts, [len(counts)]]).clip(0, len(counts))).tolist()
    return [slice(a, b) for a, b in pairwise(edges)]


def _closest(nodes: Nodes, world: Geometry, few: Ints, many: Ints, *, itself: bool) -> tuple[Bools, Ints, Ints, Ints]:
    """Of node pairs: impossible, gap, camera on the side `few`, camera on the side `many`.

    A node's tracklets stand in time order, so for each on the one side only those on the other that begin within reach
    of a gate, and its two neighbors in time, are looked at; how long a node's history is does not matter.
    `itself`: both sides are one node, and a tracklet is not compared with itself.
    """
    spans = nodes.spans
    a, begin = _ranges(spans.first[few], spans.counts[few])  # (l,) tracklets of the one side
    other = np.repeat(many, spans.counts[few])
    first, last = spans.first[other], spans.first[other + 1]
    low = spans.begun_before(other, spans.start_us[a] - _reach_us(spans, world))
    high = spans.begun_before(other, spans.end_us[a] + _reach_us(spans, world) + 1)
    here = spans.begun_before(other, spans.start_us[a] + 1)
    low, high = np.maximum(np.minimum(low, here - 1), first), np.minimum(np.maximum(high, here + 1), last)
    b, inner = _ranges(low, high - low)  # (m,) tracklets of the other
    a = np.repeat(a, high - low)
    begin = inner[begin]
    gap = np.maximum(spans.start_us[a], spans.start_us[b]) - np.minimum(spans.end_us[a], spans.end_us[b])
    bad = gap < world.slack_us[spans.camera[a], spans.camera[b]]
    if itself:
        bad &= a != b
    timed = nodes.timed[few] & nodes.timed[many]
    impossible = np.logical_or.reduceat(bad, begin) & timed
    least = np.minimum.reduceat(gap, begin)
    hits = np.flatnonzero(gap == np.repeat(least, np.diff(np.append(begin, len(gap)))))
    best = hits[np.searchsorted(hits, begin)]
    return impossible, np.where(timed, least, 0), spans.camera[a[best]], spans.camera[b[best]]


def _ranges(first: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """The indices first[i] .. first[i] + counts[i] - 1 one behind the other, and where each run begins."""
    begin = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return np.repeat(first - begin, counts) + np.arange(int(counts.sum())), begin


def _reach_us(spans: Spans, world: Geometry) -> int:
    """No gate speaks about tracklets of which one ends longer than this before the other begins."""
    longest = int((spans.end_us - spans.start_us).max(initial=0))
    return longest + world.longest_slack_us
