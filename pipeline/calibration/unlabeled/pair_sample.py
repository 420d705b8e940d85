"""Pairs of a level's nodes: those that cannot be one person, and those that may be.

A window compares each fresh node with its nearest possible others. Their distances are no fair sample: they were chosen
for being small. So each window's pairs are sampled with known probability instead. Its nearest pairs are all taken, of
the others a random part, each of which stands for as many as were left out. The same on the other side, among the pairs
that the gates forbid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.association.associate import Shortlist
from pipeline.association.geometry import Geometry, time_gaps
from pipeline.association.log_odds import few_crops_share
from pipeline.association.nodes import Nodes, Spans, unit_rows
from pipeline.association.pair_scores import prototype_distances
from pipeline.calibration.unlabeled.rehearsal import Seen
from pipeline.resolve.rows import in_time_order
from pipeline.resolve.window_nodes import Node, as_columns
from reid_core.serving.core import ReIDCore
from schemas.arrays import Bools, Floats, Ints

#: Of each fresh node: this many nearest forbidden partners, and this many random ones of either kind.
_NEAREST, _RANDOM = 8, 16
#: Forbidden pairs are looked for among the nodes of two such spans of time, microseconds.
_AROUND_US = 300_000_000
#: Rows of the distance matrix at a time.
_ROWS = 256


@dataclass(frozen=True)
class PairSample:
    """n sampled pairs of a level. `children` and `cameras`: of all units of the level, ascending."""

    different: Bools  # (n,) whether the two cannot be one person; else they may be
    distance: Floats  # (n,) attended
    left_weight: Floats  # (n,) of the prototypes
    right_weight: Floats  # (n,)
    weight: Floats  # (n,) how many pairs each stands for
    shortlisted: Bools  # (n,) whether the window compared it
    gap_s: Floats  # (n,)
    expected_s: Floats  # (n,) NaN where unknown
    left_child: Ints  # (n,) index into the children
    right_child: Ints  # (n,)
    left_camera: Ints  # (n,) index into the cameras, of the two tracklets nearest in time
    right_camera: Ints  # (n,)
    left: Ints  # (n,) number of the first tracklet of the left node
    right: Ints  # (n,)
    alone: Bools  # (n,) whether both nodes are one tracklet

    def __len__(self) -> int:
        return len(self.distance)

    @property
    def share(self) -> Floats:
        """(n,) `few_crops_share`."""
        return few_crops_share(self.left_weight, self.right_weight)

    def take(self, rows: Bools | Ints) -> "PairSample":
        return PairSample(**{name: column[rows] for name, column in vars(self).items()})


class PairSampler:
    """Collects the pairs of a level's units, all of which lie in `scope`. The same pairs give the same draws."""

    def __init__(
        self,
        core: ReIDCore,
        children: Sequence[str],
        scope: Geometry,
        geometry: Callable[[str], Geometry],
        seen: Mapping[int, Seen],
    ) -> None:
        """children: of all units of the level. scope: geometry of the unit that the calibration is learned for."""
        self._core = core
        self._children = {code: index for index, code in enumerate(children)}
        self._cameras = {code: index for index, code in enumerate(scope.cameras)}
        self._depth = children[0].count("/") + 1
        self._scope, self._geometry, self._seen = scope, geometry, seen
        self._parts: list[PairSample] = []
        #: Nodes that were compared, by the time of the window: what was around at about that time.
        self._around: dict[int, dict[bytes, tuple[Node, bool]]] = {}

    def observer(self, unit: str) -> Callable[[Sequence[Node], Shortlist], None]:
        """The `observe` argument of a rehearsal of the unit."""
        geometry = self._geometry(unit)
        rng = np.random.default_rng(len(self._parts))

        def observe(candidates: Sequence[Node], shortlist: Shortlist) -> None:
            nodes = as_columns(candidates)
            if not nodes.fresh.any():
                return
            now_us = max(node.identity.last_seen_us for node in candidates if node.fresh)
            around = self._around.setdefault(now_us // _AROUND_US, {})
            for node in candidates:
                if node.fresh or node.identity.last_seen_us > now_us - 2 * _AROUND_US:
                    around[node.key] = node, node.fresh
            if len(nodes) > 1:
                for left, right, weight, shortlisted in _comparable(nodes, geometry, shortlist, rng):
                    self._add(
                        candidates, nodes, geometry, left, right, weight, different=False, shortlisted=shortlisted
                    )

        return observe

    def _add(
        self,
        candidates: Sequence[Node],
        nodes: Nodes,
        geometry: Geometry,
        left: Ints,
        right: Ints,
        weight: Floats,
        *,
        different: bool,
        shortlisted: bool,
    ) -> None:
        if not len(left):
            return
        gaps = time_gaps(nodes, geometry, left, right)
        codes = ["/".join(code.split("/")[: self._depth]) for code in geometry.cameras]
        child = np.array([self._children[code] for code in codes], np.int64)
        camera = np.array([self._cameras[code] for code in geometry.cameras], np.int64)
        first = np.array([node.identity.tracklets[0] for node in candidates], np.int64)
        size = np.array([len(node.identity.tracklets) for node in candidates])
        self._parts.append(
            PairSample(
                different=np.full(len(left), different),
                distance=prototype_distances(self._core, nodes, left, right),
                left_weight=nodes.weight[left],
                right_weight=nodes.weight[right],
                weight=weight,
                shortlisted=np.full(len(left), shortlisted),
                gap_s=gaps.gap_us / 1e6,
                expected_s=geometry.expected_s[gaps.left_camera, gaps.right_camera],
                left_child=child[gaps.left_camera],
                right_child=child[gaps.right_camera],
                left_camera=camera[gaps.left_camera],
                right_camera=camera[gaps.right_camera],
                left=first[left],
                right=first[right],
                alone=(size[left] == 1) & (size[right] == 1),
            )
        )

    def pairs(self) -> PairSample | None:
        """All pairs; None if there are none."""
        rng = np.random.default_rng(0)
        for window in sorted(self._around):
            before = {key: (node, False) for key, (node, _) in self._around.get(window - 1, {}).items()}
            both = before | self._around[window]
            candidates = [both[key][0] for key in sorted(both)]
            fresh = np.array([both[key][1] for key in sorted(both)])
            nodes = self._in_scope(candidates, fresh)
            held = [frozenset(node.identity.tracklets) for node in candidates]
            for left, right, weight, shortlisted in _forbidden(nodes, self._scope, rng):
                # Versions of one identity overlap in time with themselves.
                apart = np.array(
                    [held[a].isdisjoint(held[b]) for a, b in zip(left.tolist(), right.tolist(), strict=True)], bool
                )
                left, right, weight = left[apart], right[apart], weight[apart]
                self._add(candidates, nodes, self._scope, left, right, weight, different=True, shortlisted=shortlisted)
        self._around.clear()
        if not self._parts:
            return None
        names = vars(self._parts[0])
        return PairSample(**{name: np.concatenate([getattr(part, name) for part in self._parts]) for name in names})

    def _in_scope(self, candidates: Sequence[Node], fresh: Bools) -> Nodes:
        """The nodes of several units with the camera numbers of the scope."""
        spans = []
        for node in candidates:
            its = [self._seen[number] for number in node.identity.tracklets]
            spans.append(
                in_time_order(np.array([(self._cameras[t.camera], t.first_us, t.last_us) for t in its], np.int64).T)
            )
        columns = np.concatenate(spans, axis=1)
        return Nodes(
            keys=[node.key for node in candidates],
            mean=np.stack([node.prototypes.mean for node in candidates]).astype(np.float64),
            weight=np.array([node.prototypes.weight for node in candidates]),
            spans=Spans(columns[0], columns[1], columns[2], np.cumsum([0, *(one.shape[1] for one in spans)])),
            timed=np.array([node.identity.timed for node in candidates], bool),
            fresh=fresh,
        )


#: left, right, weight, whether they are nearest ones.
_Pairs = tuple[Ints, Ints, Floats, bool]


def _comparable(nodes: Nodes, geometry: Geometry, shortlist: Shortlist, rng: np.random.Generator) -> list[_Pairs]:
    """The pairs that the window compared, and random ones of the others that it might have compared."""
    fresh, n = np.flatnonzero(nodes.fresh), len(nodes)
    known = np.sort(shortlist.left * n + shortlist.right)
    row, other = np.repeat(fresh, _RANDOM), rng.integers(0, n, len(fresh) * _RANDOM)
    left, right = np.minimum(row, other), np.maximum(row, other)
    kept = (left != right) & ~_among(left * n + right, known)
    left, right = left[kept], right[kept]
    gaps = time_gaps(nodes, geometry, left, right)
    possible = ~gaps.impossible & (gaps.gap_us <= geometry.horizon_us)
    left, right = left[possible], right[possible]
    # A pair of two fresh nodes is drawn from either end.
    weight = n / _RANDOM / (1.0 + (nodes.fresh[left] & nodes.fresh[right]))
    return [(shortlist.left, shortlist.right, np.ones(len(shortlist.left)), True), (left, right, weight, False)]


def _forbidden(nodes: Nodes, geometry: Geometry, rng: np.random.Generator) -> list[_Pairs]:
    """The nearest forbidden partners of each fresh node, and random others, among those seen at about its time."""
    spans, n = nodes.spans, len(nodes)
    fresh = np.flatnonzero(nodes.fresh)
    start = np.minimum.reduceat(spans.start_us, spans.first[:-1])
    end = np.maximum.reduceat(spans.end_us, spans.first[:-1])
    reach = geometry.largest_min_gap_us
    directions = unit_rows(nodes.mean)
    nearest: list[Ints] = []
    others: list[tuple[Ints, Floats]] = []
    for begin in range(0, len(fresh), _ROWS):
        rows = fresh[begin : begin + _ROWS]
        near_in_time = (start[None] <= end[rows, None] + reach) & (end[None] >= start[rows, None] - reach)
        near_in_time[np.arange(len(rows)), rows] = False
        near_in_time &= nodes.timed[None] & nodes.timed[rows, None]
        distance = 1 - directions[rows] @ directions.T
        for i, row in enumerate(rows.tolist()):
            partners = np.flatnonzero(near_in_time[i])
            if not len(partners):
                continue
            pair_left, pair_right = np.minimum(row, partners), np.maximum(row, partners)
            impossible = time_gaps(nodes, geometry, pair_left, pair_right).impossible
            partners = partners[impossible]
            order = partners[np.argsort(distance[i, partners], kind="stable")]
            near, rest = order[:_NEAREST], order[_NEAREST:]
            nearest.append(np.minimum(row, near) * n + np.maximum(row, near))
            if len(rest):
                drawn = rest if len(rest) <= _RANDOM else rng.choice(rest, _RANDOM, replace=False)
                both = nodes.fresh[drawn]
                stands_for = np.asarray(len(rest) / len(drawn) / (1.0 + both), np.float64)
                others.append((np.minimum(row, drawn) * n + np.maximum(row, drawn), stands_for))
    if not nearest:
        return []
    number = np.unique(np.concatenate(nearest))
    result: list[_Pairs] = [(*np.divmod(number, n), np.ones(len(number)), True)]
    if others:
        other, weight = (np.concatenate(column) for column in zip(*others, strict=True))
        kept = ~_among(other, number)
        result.append((*np.divmod(other[kept], n), weight[kept], False))
    return result


def _among(values: Ints, ascending: Ints) -> Bools:
    """(n,) Whether each value is among the ascending ones."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    place = np.searchsorted(ascending, values).clip(0, len(ascending) - 1)
    found: Bools = ascending[place] == values
    return found


def as_people(pairs: PairSample, group: Mapping[int, int]) -> tuple[Ints, Ints]:
    """(n,) and (n,) The groups that hold the first tracklets of both sides."""
    return (
        np.array([group.get(number, -number) for number in pairs.left.tolist()], np.int64),
        np.array([group.get(number, -number) for number in pairs.right.tolist()], np.int64),
    )
