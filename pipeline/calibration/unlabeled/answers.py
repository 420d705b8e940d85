"""What operators said about identities, as labels of pairs.

A confirmed identity is one person, and so is each pair of its tracklets. One that was denied is not, which says
something about a pair only where there are two tracklets. The newest statement about each version of an identity
counts; one after the mark of a version of the calibration does not, so that it does not matter when that is learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sqlalchemy import text

from pipeline.store import Store
from schemas.arrays import Ints

_SAID = text(
    "WITH said AS (SELECT DISTINCT ON (identity_id) id, identity_id, is_one_person FROM confirmation "
    "  WHERE CAST(:before AS timestamptz) IS NULL OR at < :before ORDER BY identity_id, id DESC) "
    "SELECT said.id, said.is_one_person, array_agg(m.crop_id) AS crops FROM said "
    "JOIN identity i ON i.id = said.identity_id CROSS JOIN unnest(i.tracklets) AS t (id) "
    "JOIN identity_member m ON m.identity_id = t.id GROUP BY said.id, said.is_one_person ORDER BY said.id"
)


@dataclass(frozen=True)
class Answers:
    """Tracklets that operators put together or apart."""

    person: Mapping[int, int] = field(default_factory=dict)  # tracklet -> number of a confirmed person
    apart: frozenset[tuple[int, int]] = frozenset()  # two tracklets of two people, the lower number first
    used: int = 0  # statements that say something about two tracklets
    newest: int | None = None  # id of the newest of them

    def labels(self, left: Ints, right: Ints) -> Ints:
        """(n,) Of pairs of tracklets: 1 one person, 0 two people, -1 nothing was said, or both."""
        ends = list(zip(np.minimum(left, right).tolist(), np.maximum(left, right).tolist(), strict=True))
        together = np.array([self.person.get(a, -1) == self.person.get(b, -2) for a, b in ends], bool)
        apart = np.array([pair in self.apart for pair in ends], bool)
        return np.where(together & ~apart, 1, np.where(apart & ~together, 0, -1))


def read_answers(store: Store, crops: Mapping[int, Sequence[int]], before: datetime | None) -> Answers:
    """The statements before a time, or all of them, as far as they are about these tracklets.

    crops: ids of the crops of each tracklet. A tracklet belongs to an identity that holds all of its crops.
    """
    with store.begin() as connection:
        rows = connection.execute(_SAID, {"before": before}).all()
    tracklet_of = {crop: number for number, its in crops.items() for crop in its}
    links: list[tuple[int, int]] = []
    apart: set[tuple[int, int]] = set()
    used: list[int] = []
    for row in rows:
        held = set(row.crops)
        touched = sorted({tracklet_of[crop] for crop in held if crop in tracklet_of})
        its = [number for number in touched if held.issuperset(crops[number])]
        of_two = len(touched) == 2 and held <= tracklet_of.keys()
        if len(its) < 2 or not (row.is_one_person or of_two):
            continue
        used.append(row.id)
        if row.is_one_person:
            links += [(its[0], other) for other in its[1:]]
        else:
            apart.add((its[0], its[1]))
    return Answers(_people(links), frozenset(apart), len(used), max(used, default=None))


def _people(links: Sequence[tuple[int, int]]) -> dict[int, int]:
    """The person of each tracklet. Identities that share a tracklet are one person."""
    if not links:
        return {}
    numbers, index = np.unique(np.array(links), return_inverse=True)
    left, right = index.reshape(-1, 2).T
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(len(numbers), len(numbers)))
    return dict(zip(numbers.tolist(), connected_components(graph, directed=False)[1].tolist(), strict=True))
