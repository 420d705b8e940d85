"""What operators and reviewers said, as labels of pairs of tracklets.

An identity that was confirmed is one person, and so is each pair of its tracklets. One that was denied is not, which
says something about a pair only where there are two tracklets. The newest statement about each version of an identity
counts. Reviewers' answers are about pairs of tracklets. Whoever is one of two people is not the other one.

What was said after the mark of a version of the calibration does not count, so that it does not matter when that is
learned.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sqlalchemy import text

from pipeline.resolve.constraints import read_opinions, votes
from pipeline.store import Store
from schemas.arrays import Ints

_SAID = text(
    "WITH said AS (SELECT DISTINCT ON (identity_id) id, at, identity_id, is_one_person FROM confirmation "
    "  WHERE CAST(:before AS timestamptz) IS NULL OR at < :before ORDER BY identity_id, id DESC) "
    "SELECT said.at, said.is_one_person, array_agg(m.crop_id) AS crops FROM said "
    "JOIN identity i ON i.id = said.identity_id CROSS JOIN unnest(i.tracklets) AS t (id) "
    "JOIN identity_member m ON m.identity_id = t.id GROUP BY said.id, said.at, said.is_one_person ORDER BY said.id"
)
_CROP_IDS = text("SELECT id, key FROM crop WHERE key = ANY(:keys) AND withdrawn_at IS NULL")
#: Two tracklets.
_Pair = tuple[int, int]


@dataclass(frozen=True)
class Answers:
    """Tracklets that were put together or apart."""

    person: Mapping[int, int] = field(default_factory=dict)  # tracklet -> number of a person
    apart: frozenset[_Pair] = frozenset()  # two people, the lower number first; of contradictions one person twice
    used: int = 0  # answers and statements that say something about two tracklets
    newest: datetime | None = None  # when the newest of them was given

    def labels(self, left: Ints, right: Ints) -> Ints:
        """(n,) Of pairs of tracklets: 1 one person, 0 two people, -1 nothing was said, or both."""
        pairs = zip(left.tolist(), right.tolist(), strict=True)
        return np.array([self._label(self.person.get(a), self.person.get(b)) for a, b in pairs], np.int64)

    def _label(self, one: int | None, other: int | None) -> int:
        if one is None or other is None:
            return -1
        said_apart = (min(one, other), max(one, other)) in self.apart
        if one == other:
            return -1 if said_apart else 1
        return 0 if said_apart else -1


def read_answers(store: Store, unit: str, crops: Mapping[int, Sequence[int]], before: datetime | None) -> Answers:
    """What was said before a time, or at all, as far as it is about these tracklets of the unit.

    crops: ids of the crops of each tracklet. A tracklet belongs to an identity that holds all of its crops.
    """
    with store.begin() as connection:
        statements = connection.execute(_SAID, {"before": before}).all()
        opinions = read_opinions(connection, unit, before)
        keys = sorted({key for one in opinions for key in one.pair})
        crop_of = {bytes(row.key): row.id for row in connection.execute(_CROP_IDS, {"keys": keys})} if keys else {}
    tracklet_of = {crop: number for number, its in crops.items() for crop in its}
    together: list[_Pair] = []
    apart: list[_Pair] = []
    times: list[datetime] = []
    for statement in statements:
        held = set(statement.crops)
        touched = sorted({tracklet_of[crop] for crop in held if crop in tracklet_of})
        its = [number for number in touched if held.issuperset(crops[number])]
        if len(its) > 1 and statement.is_one_person:
            together += [(its[0], other) for other in its[1:]]
        elif len(its) == len(touched) == 2 and held <= tracklet_of.keys():
            apart.append((its[0], its[1]))
        else:
            continue
        times.append(statement.at)
    most = votes(opinions)
    for opinion in opinions:
        one, other = (tracklet_of.get(crop_of.get(key, 0)) for key in opinion.pair)
        if most[opinion.pair] * opinion.vote > 0 and one is not None and other is not None and one != other:
            (together if opinion.vote > 0 else apart).append((one, other))
            times.append(opinion.at)
    person = _people(together, (number for pair in apart for number in pair))
    between = {tuple(sorted((person[one], person[other]))) for one, other in apart}
    return Answers(person, frozenset((low, high) for low, high in between), len(times), max(times, default=None))


def _people(together: Sequence[_Pair], others: Iterable[int]) -> dict[int, int]:
    """The person of each of these tracklets: of those that are linked, directly or through others, one."""
    links = np.array([*together, *((number, number) for number in others)], np.int64).reshape(-1, 2)
    if not len(links):
        return {}
    numbers, index = np.unique(links, return_inverse=True)
    left, right = index.reshape(-1, 2).T
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(len(numbers), len(numbers)))
    return dict(zip(numbers.tolist(), connected_components(graph, directed=False)[1].tolist(), strict=True))
