"""How well a grouping agrees with the truth, and what it costs to be wrong: on arrays alone.

Everything is counted within units: items of two units are never a pair, and a person in two units counts in each.
Labels are integers whose values mean nothing; (n,) throughout. Where nothing can be wrong, a share is 1 (of right
answers) or 0 (of wrong ones).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise as successive

import numpy as np
from sklearn.metrics import adjusted_rand_score, homogeneity_completeness_v_measure

from pipeline.association.matching import best_matching
from schemas.arrays import Bools, Floats, Ints

#: Microseconds below which a gap between two cameras (p,), (p,) is impossible: -inf where their views overlap.
Slack = Callable[[Ints, Ints], Floats]
#: Where the bins of history size begin, identities that there were before.
HISTORY = (0, 10, 100, 1_000, 10_000, 100_000)
#: Pairs looked at in one go by `forbidden_pairs`; bounds its memory.
_PAIRS = 2_000_000


@dataclass(frozen=True)
class Table:
    """What two groupings of n items share: one cell for each identity and person that meet."""

    predicted: Ints  # (n,) identity of each item, from 0, another one in each unit
    truth: Ints  # (n,) person of each item, likewise
    cell: Ints  # (n,) cell of each item
    identity: Ints  # (k,) of each cell
    person: Ints  # (k,)

    @cached_property
    def items(self) -> Ints:
        """(k,) How many items each cell has."""
        return np.bincount(self.cell, minlength=len(self.identity))


def table(predicted: Ints, truth: Ints, unit: Ints) -> Table:
    identity, person = _joint(unit, predicted), _joint(unit, truth)
    _, first, cell = np.unique(identity * (person.max(initial=0) + 1) + person, return_index=True, return_inverse=True)
    return Table(identity, person, cell, identity[first], person[first])


def _joint(a: Ints, b: Ints) -> Ints:
    """(n,) A number from 0 for each pair of values."""
    first, second = np.unique(a, return_inverse=True)[1], np.unique(b, return_inverse=True)[1]
    joint: Ints = np.unique(first * (second.max(initial=0) + 1) + second, return_inverse=True)[1]
    return joint


# ---- agreement


@dataclass(frozen=True)
class Pairwise:
    true_positives: int
    predicted: int
    actual: int

    def __add__(self, other: "Pairwise") -> "Pairwise":
        return Pairwise(
            self.true_positives + other.true_positives, self.predicted + other.predicted, self.actual + other.actual
        )

    @property
    def precision(self) -> float:
        return self.true_positives / self.predicted if self.predicted else 1.0

    @property
    def recall(self) -> float:
        return self.true_positives / self.actual if self.actual else 1.0

    @property
    def f1(self) -> float:
        return 2 * self.true_positives / (self.predicted + self.actual) if self.predicted + self.actual else 1.0


def pairwise(predicted: Ints, truth: Ints, unit: Ints) -> Pairwise:
    """Over all pairs of items of one unit: predicted the same, truly the same, and both."""
    return _pairwise(table(predicted, truth, unit))


def _pairwise(shared: Table) -> Pairwise:
    return Pairwise(_pairs(shared.items), _pairs(np.bincount(shared.predicted)), _pairs(np.bincount(shared.truth)))


def _pairs(sizes: Ints) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


@dataclass(frozen=True)
class BCubed:
    """Of an item's identity the share that is its person, and of its person the share that is in its identity, mean
    over the items (Bagga and Baldwin 1998, each item of the same weight).
    """

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean."""
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def b_cubed(predicted: Ints, truth: Ints, unit: Ints) -> BCubed:
    return _b_cubed(table(predicted, truth, unit))


def _b_cubed(shared: Table) -> BCubed:
    n = len(shared.cell)
    if not n:
        return BCubed(1.0, 1.0)
    squares = shared.items.astype(np.float64) ** 2
    return BCubed(
        float((squares / np.bincount(shared.predicted)[shared.identity]).sum() / n),
        float((squares / np.bincount(shared.truth)[shared.person]).sum() / n),
    )


def idf1(predicted: Ints, truth: Ints, unit: Ints, weight: Ints) -> float:
    """2 IDTP / (crops + crops) under the best one-to-one match of identities and persons, a unit at a time.

    Each item counts as its `weight` crops (Ristani et al. 2016, with every crop both predicted and true).
    """
    return _idf1(table(predicted, truth, unit), weight)


def _idf1(shared: Table, weight: Ints) -> float:
    total = int(weight.sum())
    if not total:
        return 1.0
    crops = np.bincount(shared.cell, weights=weight, minlength=len(shared.identity))
    some = np.flatnonzero(crops)
    matched = best_matching(shared.identity[some], shared.person[some], crops[some])
    return float(crops[some][matched].sum()) / total


def purity(predicted: Ints, truth: Ints, unit: Ints) -> float:
    """The share of items that are of the commonest person of their identity."""
    return _purity(table(predicted, truth, unit))


def _purity(shared: Table) -> float:
    if not len(shared.cell):
        return 1.0
    most = np.zeros(int(shared.identity.max()) + 1, dtype=np.int64)
    np.maximum.at(most, shared.identity, shared.items)
    return float(most.sum() / len(shared.cell))


def agreement(predicted: Ints, truth: Ints, unit: Ints, weight: Ints) -> dict[str, float]:
    """All of them by name, 1 for perfect; `adjusted_rand` may fall below 0.

    precision, recall, pairwise_f1; b_cubed_precision, b_cubed_recall, b_cubed_f1; idf1; homogeneity, completeness,
    v_measure (Rosenberg and Hirschberg 2007); purity; adjusted_rand (Hubert and Arabie 1985). Over several units the
    last two groups count a person of each unit as a person, and adjusted_rand takes its chance over all pairs.
    """
    shared = table(predicted, truth, unit)
    pairs, cubed = _pairwise(shared), _b_cubed(shared)
    homogeneity, completeness, v_measure = homogeneity_completeness_v_measure(shared.truth, shared.predicted)
    return {
        "precision": pairs.precision,
        "recall": pairs.recall,
        "pairwise_f1": pairs.f1,
        "b_cubed_precision": cubed.precision,
        "b_cubed_recall": cubed.recall,
        "b_cubed_f1": cubed.f1,
        "idf1": _idf1(shared, weight),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "v_measure": float(v_measure),
        "purity": _purity(shared),
        "adjusted_rand": float(adjusted_rand_score(shared.truth, shared.predicted)),
    }


# ---- open set


@dataclass(frozen=True)
class OpenSet:
    """Items in time order, by how many identities there were before; one number a bin of history size."""

    begins: Ints  # (b,) identities at which the bin begins
    new: Ints  # (b,) items of people never seen before
    false_attached: Ints  # (b,) of these, attached to an identity that was there
    seen: Ints  # (b,) items of people seen before
    missed: Ints  # (b,) of these, taken for a new identity
    mistaken: Ints  # (b,) of these, attached to an identity that held nothing of the person

    @property
    def false_attach_rate(self) -> float:
        return _share(self.false_attached, self.new)

    @property
    def miss_rate(self) -> float:
        return _share(self.missed, self.seen)

    @property
    def mistaken_rate(self) -> float:
        return _share(self.mistaken, self.seen)


def _share(part: Ints, whole: Ints) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else 0.0


def open_set(predicted: Ints, truth: Ints, unit: Ints, start_us: Ints, begins: tuple[int, ...] = HISTORY) -> OpenSet:
    """What happens to people never seen before, and to those who come back, as history grows.

    Items are taken by `start_us`, and by index at one time. Who was seen, and which identities there are, counts within
    the item's unit. `begins`: ascending from 0, see `HISTORY`.
    """
    order = np.lexsort((np.arange(len(unit)), start_us, unit))
    shared = table(predicted[order], truth[order], unit[order])
    begins_identity, begins_person = _first(shared.predicted), _first(shared.truth)
    begun: Ints = np.cumsum(begins_identity) - begins_identity  # identities before this item, earlier units' too
    starts = np.append(True, np.diff(unit[order]) != 0)[: len(order)]
    history = begun - np.maximum.accumulate(np.where(starts, begun, 0))
    bins = np.searchsorted(begins, history, side="right") - 1

    def count(which: Bools) -> Ints:
        return np.bincount(bins[which], minlength=len(begins))

    return OpenSet(
        begins=np.array(begins),
        new=count(begins_person),
        false_attached=count(begins_person & ~begins_identity),
        seen=count(~begins_person),
        missed=count(~begins_person & begins_identity),
        mistaken=count(~begins_person & ~begins_identity & _first(shared.cell)),
    )


def _first(labels: Ints) -> Bools:
    """(n,) Whether each label stands here for the first time."""
    result = np.zeros(len(labels), dtype=bool)
    result[np.unique(labels, return_index=True)[1]] = True
    return result


# ---- other counts


def churn(before: Ints, after: Ints) -> float:
    """The share of items whose id is another one in the second assignment. Ids mean the same in both."""
    return float((before != after).mean()) if len(before) else 0.0


def episodes(group: Ints, unit: Ints, start_us: Ints, end_us: Ints, horizon_us: int) -> Ints:
    """(n,) Each group of a unit cut where nothing of it was seen for longer than the horizon; numbers from 0."""
    if not len(group):
        return np.empty(0, np.int64)
    own = np.unique(np.stack([unit, group]), axis=1, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((start_us, own))
    own, start, end = own[order], start_us[order], end_us[order]
    width = int(end.max() - start.min()) + 1
    seen_until = np.maximum.accumulate(own * width + (end - start.min()))[:-1] - own[:-1] * width + start.min()
    begins = np.concatenate([[True], (own[1:] != own[:-1]) | (start[1:] - seen_until > horizon_us)])
    result = np.empty(len(group), np.int64)
    result[order] = np.cumsum(begins) - 1
    return result


def commonest(group: Ints, value: Ints, weight: Ints, groups: int) -> Ints:
    """(groups,) The value with the most weight in each group, the lowest of equals; -1 where a group has none."""
    order = np.lexsort((value, group))
    g, v = group[order], value[order]
    begin = np.flatnonzero(np.append(True, (np.diff(g) != 0) | (np.diff(v) != 0))[: len(g)])
    total = np.add.reduceat(weight[order], begin) if len(begin) else np.empty(0, np.int64)
    last = np.lexsort((-v[begin], total, g[begin]))  # ascending, so the heaviest of each group is written last
    result = np.full(groups, -1, dtype=np.int64)
    result[g[begin][last]] = v[begin][last]
    return result


def forbidden_pairs(
    group: Ints, camera: Ints, start_us: Ints, end_us: Ints, slack: Slack, longest_slack_us: float
) -> int:
    """Pairs of passages in one group that cannot be one person: a gap in time below the slack of their cameras.

    `longest_slack_us` bounds `slack` from above. Only pairs that near in time are looked at, block by block.
    """
    order = np.lexsort((start_us, group))
    g, start, end, at = group[order], start_us[order], end_us[order], camera[order]
    # Later ones of the group that begin before this one is out of reach: its limit's place among the starts.
    limit = end + int(max(longest_slack_us, 0.0)) + 1
    n = len(g)
    merged = np.lexsort((np.repeat([1, 0], n), np.concatenate([start, limit]), np.concatenate([g, g])))
    starts = np.cumsum(merged < n)
    until = np.empty(n, dtype=np.int64)
    until[merged[merged >= n] - n] = starts[merged >= n]
    many = np.maximum(until - np.arange(n) - 1, 0)
    found, total = 0, np.cumsum(many)
    for first, last in _blocks(total):
        row = np.repeat(np.arange(first, last), many[first:last])
        begin = total[first:last] - many[first:last]
        other = row + 1 + np.arange(len(row)) - np.repeat(begin - begin[0], many[first:last])
        gap = start[other] - np.minimum(end[row], end[other])
        found += int((gap < slack(at[row], at[other])).sum())
    return found


def _blocks(total: Ints) -> list[tuple[int, int]]:
    """Ranges of rows with about `_PAIRS` pairs each, from the running total of pairs."""
    if not len(total):
        return []
    cuts = np.searchsorted(total, np.arange(_PAIRS, int(total[-1]) + _PAIRS, _PAIRS), side="right")
    edges = np.unique(np.concatenate([[0], cuts, [len(total)]])).tolist()
    return list(successive(edges))
