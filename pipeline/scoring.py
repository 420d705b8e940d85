"""Against the truth, where it is known: pairwise precision, recall and F1, IDF1, and the nearest-neighbour rule.

Counted within each unit of a level, and summed. Pairs are pairs of tracklets; IDF1 counts crops (Ristani et al. 2016).
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sqlalchemy import text

from pipeline.association.nodes import Floats, unit_rows
from pipeline.store import Store
from pipeline.store.copy import copy_out
from schemas.levels import UPWARD, Level


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


def pairwise(predicted: Sequence[Hashable], truth: Sequence[Hashable], unit: Sequence[Hashable]) -> Pairwise:
    """Over all pairs of items of one unit: predicted the same, truly the same, and both."""
    both = Counter(zip(unit, predicted, truth, strict=True))
    return Pairwise(
        _pairs(both.values()),
        _pairs(Counter(zip(unit, predicted, strict=True)).values()),
        _pairs(Counter(zip(unit, truth, strict=True)).values()),
    )


def _pairs(sizes: Iterable[int]) -> int:
    return sum(size * (size - 1) // 2 for size in sizes)


def idf1(
    predicted: Sequence[Hashable], truth: Sequence[Hashable], unit: Sequence[Hashable], weight: Sequence[int]
) -> float:
    """2 IDTP / (items + items) under the best one-to-one match of predicted and true identities, a unit at a time."""
    shared: dict[Hashable, Counter[tuple[Hashable, Hashable]]] = defaultdict(Counter)
    for where, p, t, w in zip(unit, predicted, truth, weight, strict=True):
        shared[where][p, t] += w
    matched = 0
    for counts in shared.values():
        rows = {p: i for i, p in enumerate(dict.fromkeys(p for p, _ in counts))}
        columns = {t: i for i, t in enumerate(dict.fromkeys(t for _, t in counts))}
        table = np.zeros((len(rows), len(columns)), dtype=np.int64)
        for (p, t), many in counts.items():
            table[rows[p], columns[t]] = many
        matched += int(table[linear_sum_assignment(table, maximize=True)].sum())
    total = sum(weight)
    return matched / total if total else 1.0


@dataclass(frozen=True)
class Labelled:
    """The district's tracklets with known truth, and whom each level takes them for."""

    key: list[bytes]
    camera: list[str]
    crops: list[int]
    truth: list[str]
    mean: Floats  # (n, D)
    identity: Mapping[Level, list[str | None]]

    def unit(self, level: Level) -> list[str]:
        """The unit of `level` in which each tracklet was seen."""
        segments = {Level.CAMERA: 4, Level.BUILDING: 3, Level.STREET: 2, Level.DISTRICT: 1}[level]
        return ["/".join(code.split("/")[:segments]) for code in self.camera]


_TRACKLETS = (
    "SELECT t.id, t.key, t.unit, t.crops, (SELECT mode() WITHIN GROUP (ORDER BY ct.truth) FROM identity_member m "
    "JOIN crop_truth ct ON ct.crop_id = m.crop_id WHERE m.identity_id = t.id) AS truth, p.v FROM identity_now t "
    "JOIN prototype p ON p.identity_id = t.id AND p.ordinal = 0 AND p.model_id = :model "
    "WHERE t.level = 'camera' AND starts_with(t.unit, :district || '/') ORDER BY t.key"
)

_HOLDERS = text(
    "SELECT n.level, t.key, n.persistent_id FROM identity_now n CROSS JOIN unnest(n.tracklets) AS below(id) "
    "JOIN identity t ON t.id = below.id WHERE n.unit = :district OR starts_with(n.unit, :district || '/')"
)


def labelled_tracklets(store: Store, district: str, model_id: int) -> Labelled:
    """Tracklets of the district whose crops carry a truth (the commonest of theirs)."""
    with store.begin() as connection:
        rows = copy_out(
            connection,
            _TRACKLETS,
            {"model": model_id, "district": district},
            {"id": "int8", "key": "bytea", "unit": "text", "crops": "int4", "truth": "text", "v": "halfvec"},
        )
        held: dict[str, dict[bytes, str]] = defaultdict(dict)
        for row in connection.execute(_HOLDERS, {"district": district}):
            held[row.level][bytes(row.key)] = str(row.persistent_id)
    known = [i for i, truth in enumerate(rows["truth"]) if truth is not None]
    keys = [bytes(rows["key"][i]) for i in known]
    return Labelled(
        keys,
        [str(rows["unit"][i]) for i in known],
        [int(rows["crops"][i]) for i in known],
        [str(rows["truth"][i]) for i in known],
        np.asarray(rows["v"], dtype=np.float64)[known],
        {level: [held[level.value].get(key) for key in keys] for level in UPWARD},
    )


def score(labelled: Labelled, nearest_distances: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Per level above the camera: pairwise_f1, precision, recall and idf1.

    For levels in `nearest_distances` nearest_neighbour_f1 too, the baseline with that threshold (cosine distance). A
    tracklet that a level does not hold counts as alone.
    """
    result: dict[str, dict[str, float]] = {}
    for level in UPWARD[1:]:
        unit = labelled.unit(level)
        predicted = [held or f"alone {i}" for i, held in enumerate(labelled.identity[level])]
        pairs = pairwise(predicted, labelled.truth, unit)
        row = {
            "pairwise_f1": pairs.f1,
            "precision": pairs.precision,
            "recall": pairs.recall,
            "idf1": idf1(predicted, labelled.truth, unit, labelled.crops),
        }
        if level.value in nearest_distances:
            groups = nearest_neighbour(labelled.mean, unit, nearest_distances[level.value])
            row["nearest_neighbour_f1"] = pairwise(groups, labelled.truth, unit).f1
        result[level.value] = row
    return result


def nearest_neighbour(mean: Floats, unit: Sequence[Hashable], most: float) -> list[int]:
    """The baseline: each item is linked to its nearest of the same unit by cosine distance, if nearer than `most`.

    The group of each item, as a number.
    """
    n = len(mean)
    if n < 2:
        return list(range(n))
    codes = np.unique(np.array([str(u) for u in unit]), return_inverse=True)[1]
    directions = unit_rows(mean)
    distance = 1 - directions @ directions.T
    distance[codes[:, None] != codes[None, :]] = np.inf
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(axis=1)
    linked = np.flatnonzero(distance[np.arange(n), nearest] < most)
    graph = coo_matrix((np.ones(len(linked)), (linked, nearest[linked])), shape=(n, n))
    groups: list[int] = connected_components(graph, directed=False)[1].tolist()
    return groups
