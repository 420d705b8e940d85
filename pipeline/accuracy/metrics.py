"""Metrics of a grouping against the truth: agreement, open-set errors, churn. Pure functions on arrays.

All counts are within units: items of two units are never a pair, and a person in two units counts in each. Labels are
arbitrary integers, one per item, (n,). Where there is nothing to count, a share of right answers is 1 and a share of
wrong ones 0.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.metrics import adjusted_rand_score, homogeneity_completeness_v_measure

from pipeline.association.matching import best_matching
from schemas.arrays import Bools, Ints

#: Lower edges of the bins of history size: the number of identities that existed before an item.
HISTORY = (0, 10, 100, 1_000, 10_000, 100_000)


@dataclass(frozen=True)
class Contingency:
    """Contingency table of two groupings of n items, sparse: one cell for each identity and person that share items."""

    predicted: Ints  # (n,) identity of each item, numbered from 0 over all units
    truth: Ints  # (n,) person of each item, likewise
    cell: Ints  # (n,) cell of each item
    identity: Ints  # (k,) of each cell
    person: Ints  # (k,) of each cell

    @cached_property
    def items(self) -> Ints:
        """(k,) Number of items in each cell."""
        return np.bincount(self.cell, minlength=len(self.identity))


def contingency(predicted: Ints, truth: Ints, unit: Ints) -> Contingency:
    identity, person = _pair_numbers(unit, predicted), _pair_numbers(unit, truth)
    _, first, cell = np.unique(identity * (person.max(initial=0) + 1) + person, return_index=True, return_inverse=True)
    return Contingency(identity, person, cell, identity[first], person[first])


def _pair_numbers(a: Ints, b: Ints) -> Ints:
    """(n,) A number from 0 for each distinct pair of values."""
    first, second = np.unique(a, return_inverse=True)[1], np.unique(b, return_inverse=True)[1]
    numbers: Ints = np.unique(first * (second.max(initial=0) + 1) + second, return_inverse=True)[1]
    return numbers


# ---- agreement


@dataclass(frozen=True)
class Pairwise:
    """Pairs of items: grouped together rightly, grouped together, and of one person. Adds up over cities."""

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
    """Counts over all pairs of items of one unit."""
    return _pairwise(contingency(predicted, truth, unit))


def _pairwise(table: Contingency) -> Pairwise:
    return Pairwise(_pairs(table.items), _pairs(np.bincount(table.predicted)), _pairs(np.bincount(table.truth)))


def _pairs(sizes: Ints) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


@dataclass(frozen=True)
class BCubed:
    """Means over the items (Bagga and Baldwin 1998, equal weights)."""

    precision: float  # share of the item's identity that shows its person
    recall: float  # share of the item's person that is in its identity

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def _b_cubed(table: Contingency) -> BCubed:
    n = len(table.cell)
    if not n:
        return BCubed(1.0, 1.0)
    squares = table.items.astype(np.float64) ** 2
    return BCubed(
        float((squares / np.bincount(table.predicted)[table.identity]).sum() / n),
        float((squares / np.bincount(table.truth)[table.person]).sum() / n),
    )


def idf1(predicted: Ints, truth: Ints, unit: Ints, weight: Ints) -> float:
    """IDF1 (Ristani et al. 2016): crops in the best one-to-one matching of identities and persons / all crops.

    Matched within each unit. An item counts as `weight` crops, each both predicted and true.
    """
    return _idf1(contingency(predicted, truth, unit), weight)


def _idf1(table: Contingency, weight: Ints) -> float:
    total = int(weight.sum())
    if not total:
        return 1.0
    crops = np.bincount(table.cell, weights=weight, minlength=len(table.identity))
    filled = np.flatnonzero(crops)
    matched = best_matching(table.identity[filled], table.person[filled], crops[filled])
    return float(crops[filled][matched].sum()) / total


def _purity(table: Contingency) -> float:
    """Share of the items that show the commonest person of their identity."""
    if not len(table.cell):
        return 1.0
    largest = np.zeros(int(table.identity.max()) + 1, dtype=np.int64)
    np.maximum.at(largest, table.identity, table.items)
    return float(largest.sum() / len(table.cell))


def agreement(predicted: Ints, truth: Ints, unit: Ints, weight: Ints) -> dict[str, float]:
    """All measures of agreement by name; each is 1 for a perfect grouping, and only `adjusted_rand` can be negative.

    precision, recall, pairwise_f1; b_cubed_precision, b_cubed_recall, b_cubed_f1; idf1; homogeneity, completeness,
    v_measure (Rosenberg and Hirschberg 2007); purity; adjusted_rand (Hubert and Arabie 1985). Over several units,
    v_measure and its parts and adjusted_rand treat a person in two units as two people; the chance agreement of
    adjusted_rand is over the pairs of all units.
    """
    table = contingency(predicted, truth, unit)
    pairs, cubed = _pairwise(table), _b_cubed(table)
    homogeneity, completeness, v_measure = homogeneity_completeness_v_measure(table.truth, table.predicted)
    return {
        "precision": pairs.precision,
        "recall": pairs.recall,
        "pairwise_f1": pairs.f1,
        "b_cubed_precision": cubed.precision,
        "b_cubed_recall": cubed.recall,
        "b_cubed_f1": cubed.f1,
        "idf1": _idf1(table, weight),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "v_measure": float(v_measure),
        "purity": _purity(table),
        "adjusted_rand": float(adjusted_rand_score(table.truth, table.predicted)),
    }


# ---- open set


@dataclass(frozen=True)
class OpenSet:
    """Open-set counts, one per bin of history size (b,)."""

    begins: Ints  # (b,) lower edges of the bins, identities
    new: Ints  # (b,) items of people never seen before
    false_attached: Ints  # (b,) of these, attached to an existing identity
    seen: Ints  # (b,) items of people seen before
    missed: Ints  # (b,) of these, started as a new identity
    mistaken: Ints  # (b,) of these, attached to an existing identity without any item of the person

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
    """What happens to new and to known people as the history of each unit grows.

    Items are taken in order of `start_us`, ties by index. begins: lower edges of the bins, ascending from 0.
    """
    order = np.lexsort((np.arange(len(unit)), start_us, unit))
    table = contingency(predicted[order], truth[order], unit[order])
    new_identity, new_person = _is_first(table.predicted), _is_first(table.truth)
    existing: Ints = np.cumsum(new_identity) - new_identity  # identities before each item, those of earlier units too
    unit_starts = np.append(True, np.diff(unit[order]) != 0)[: len(order)]
    history = existing - np.maximum.accumulate(np.where(unit_starts, existing, 0))
    bins = np.searchsorted(begins, history, side="right") - 1

    def count(which: Bools) -> Ints:
        return np.bincount(bins[which], minlength=len(begins))

    return OpenSet(
        begins=np.array(begins),
        new=count(new_person),
        false_attached=count(new_person & ~new_identity),
        seen=count(~new_person),
        missed=count(~new_person & new_identity),
        mistaken=count(~new_person & ~new_identity & _is_first(table.cell)),
    )


def _is_first(labels: Ints) -> Bools:
    """(n,) Whether the label occurs here for the first time."""
    result = np.zeros(len(labels), dtype=bool)
    result[np.unique(labels, return_index=True)[1]] = True
    return result


# ---- churn


def churn(before: Ints, after: Ints) -> float:
    """Share of the items whose id differs between two assignments."""
    return float((before != after).mean()) if len(before) else 0.0
