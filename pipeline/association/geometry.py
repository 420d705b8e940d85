"""Hard gates: what one person cannot do. Only the impossible is forbidden, with room for wrong clocks.

Two tracklets cannot be one person when, beyond the clocks' uncertainty, they overlap in time at two cameras that see
no common ground, or follow each other faster than anyone gets from one to the other. At one camera, two tracklets that
overlap in time are two people.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.association.nodes import Bools, Floats, Ints, Nodes, Spans
from schemas.city import City
from schemas.levels import Level, is_within, level_of, parent_of
from schemas.settings import AssociationSettings

#: Room at each end of a way: a person is seen this far from where the camera stands, metres.
VIEW_RADIUS_M = 15.0
#: Span pairs looked at in one go; bounds the memory of `closest`.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Geometry:
    cameras: tuple[str, ...]  # codes, ascending
    slack_us: Floats  # (c, c) a gap below this is impossible; -inf where views overlap
    child: Ints  # (c,) which child of the unit each camera lies in
    children: tuple[str, ...]  # codes of the unit's children


def geometry(city: City, unit: str, settings: AssociationSettings) -> Geometry:
    """The gates between all cameras below `unit`."""
    cameras = city.cameras(within=unit)
    codes = tuple(camera.code for camera in cameras)
    index = {code: i for i, code in enumerate(codes)}
    walks = {frozenset((walk.from_, walk.to)): walk.shortest_s for walk in city.walks}
    clocks = np.array([camera.clock_uncertainty_s for camera in cameras])
    slack_s = np.zeros((len(codes), len(codes)))
    for i, a in enumerate(cameras):
        for j, b in enumerate(cameras):
            if i == j:
                continue
            travel_s = _walk_s(a.code, b.code, walks)
            if a.position and b.position:
                metres = float(np.hypot(a.position[0] - b.position[0], a.position[1] - b.position[1]))
                travel_s = max(travel_s, (metres - 2 * VIEW_RADIUS_M) / settings.fastest_walk_m_s)
            slack_s[i, j] = travel_s - clocks[i] - clocks[j]
    for i, a in enumerate(cameras):
        for other in set(a.overlaps) & set(index):
            slack_s[i, index[other]] = slack_s[index[other], i] = -np.inf
    children = tuple(sorted(u.code for u in city.units if parent_of(u.code) == unit))
    if level_of(unit) is Level.CAMERA:  # one camera, no gates: it only names itself
        children = (unit,)
    below = [next(k for k, c in enumerate(children) if is_within(code, c)) for code in codes]
    return Geometry(codes, slack_s * 1e6, np.array(below, dtype=np.int64), children)


def _walk_s(a: str, b: str, walks: dict[frozenset[str], float]) -> float:
    """The shortest known walk between the highest units that part the two; 0 where the city file names none."""
    while (above_a := parent_of(a)) != (above_b := parent_of(b)):
        assert above_a is not None and above_b is not None, "cameras of two districts"
        a, b = above_a, above_b
    return walks.get(frozenset((a, b)), 0.0)


def _expand(spans: Spans, left: Ints, right: Ints) -> tuple[Ints, Ints, Ints]:
    """All span pairs of some node pairs: span indices on both sides, and where each node pair begins."""
    a, b = spans.counts[left], spans.counts[right]
    total = a * b
    begin = np.concatenate([[0], np.cumsum(total)[:-1]]).astype(np.int64)
    offset = np.arange(int(total.sum())) - np.repeat(begin, total)
    width = np.repeat(b, total)
    return (
        np.repeat(spans.first[left], total) + offset // width,
        np.repeat(spans.first[right], total) + offset % width,
        begin,
    )


def gap_us(spans: Spans, a: Ints, b: Ints) -> Ints:
    """Time between two spans, microseconds; negative where they overlap."""
    gap: Ints = np.maximum(spans.start_us[a], spans.start_us[b]) - np.minimum(spans.end_us[a], spans.end_us[b])
    return gap


@dataclass(frozen=True)
class Closest:
    """For each node pair: whether it is impossible, and the two tracklets that are nearest in time."""

    impossible: Bools  # (p,)
    gap_us: Ints  # (p,) between the nearest two; negative: overlap
    left_child: Ints  # (p,) which child of the unit the nearest tracklet of the left node lies in
    right_child: Ints  # (p,)


def closest(nodes: Nodes, world: Geometry, left: Ints, right: Ints) -> Closest:
    """Gates and time gaps of node pairs. Nodes without times have no gate and gap 0."""
    parts = [_closest(nodes, world, left[rows], right[rows]) for rows in _blocks(nodes.spans, left, right)]
    columns: Sequence[Sequence[np.ndarray]] = list(zip(*parts, strict=True)) if parts else [[]] * 4
    impossible, gap, a, b = (np.concatenate(c) if c else np.empty(0, np.int64) for c in columns)
    return Closest(impossible.astype(bool), gap, a, b)


def _blocks(spans: Spans, left: Ints, right: Ints) -> list[slice]:
    size = np.cumsum(spans.counts[left] * spans.counts[right])
    cuts = (
        np.searchsorted(size, np.arange(_BLOCK, int(size[-1]) + _BLOCK, _BLOCK)) + 1 if len(size) else np.empty(0, int)
    )
    edges = np.unique(np.concatenate([[0], cuts, [len(left)]]).clip(0, len(left))).tolist()
    return [slice(a, b) for a, b in pairwise(edges)]


def _closest(nodes: Nodes, world: Geometry, left: Ints, right: Ints) -> tuple[Bools, Ints, Ints, Ints]:
    spans = nodes.spans
    a, b, begin = _expand(spans, left, right)
    gap = gap_us(spans, a, b)
    timed = nodes.timed[left] & nodes.timed[right]
    impossible = np.logical_or.reduceat(gap < world.slack_us[spans.camera[a], spans.camera[b]], begin) & timed
    pair = np.repeat(np.arange(len(left)), np.diff(np.append(begin, len(gap))))
    order = np.lexsort((np.arange(len(gap)), np.abs(gap), pair))  # nearest in time first, within each pair
    best = order[begin]
    return (
        impossible,
        np.where(timed, gap[best], 0),
        world.child[spans.camera[a[best]]],
        world.child[spans.camera[b[best]]],
    )


def contradicts_itself(nodes: Nodes, world: Geometry) -> Bools:
    """(n,) Whether two tracklets of one node cannot be one person."""
    everyone = np.arange(len(nodes))
    result = np.zeros(len(nodes), dtype=bool)
    for rows in _blocks(nodes.spans, everyone, everyone):
        a, b, begin = _expand(nodes.spans, everyone[rows], everyone[rows])
        gap = gap_us(nodes.spans, a, b)
        bad = (gap < world.slack_us[nodes.spans.camera[a], nodes.spans.camera[b]]) & (a != b)
        result[rows] = np.logical_or.reduceat(bad, begin) & nodes.timed[rows]
    return result
