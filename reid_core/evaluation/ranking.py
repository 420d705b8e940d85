"""Ranking metrics: rank-k, mAP and mINP, in percent (paper, 'Metrics and protocols'); and what differs by chance.

For each query the gallery is sorted by distance. Junk (identity -1) and the gallery's pictures of the query's own
identity *and* camera do not count, neither for nor against. A query with no match left is skipped and named.
Pictures at equal distance are ranked against the model: wrong ones first. So a feature that says nothing scores
nothing, and no result depends on the order of the gallery.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid_core.datasets.person_pictures import JUNK
from reid_core.evaluation.verification import PairCounts
from schemas.arrays import Bools, Floats, Ints
from schemas.errors import InputError, VectorError

#: Resamplings of people drawn at a time, so that their weights fit the cache.
_DRAWS = 256


@dataclass(frozen=True)
class QueryScores:
    """What each scored query got, in the order of the queries; arrays of one length S."""

    rows: Ints  # (S,), which query, counted from 0 with the skipped ones
    identities: Ints  # (S,)
    first_ranks: Ints  # (S,), rank of the first match, from 1
    precisions: Floats  # (S,), average precision, 0..1
    inverse_penalties: Floats  # (S,), matches / rank of the last match, 0..1

    def percent(self) -> dict[str, Floats]:
        """Each metric's value by query, in percent, by the metric's name; its mean is the score."""
        ranks = {f"rank{k}": 100 * (self.first_ranks <= k).astype(np.float64) for k in (1, 5, 10)}
        return ranks | {"mAP": 100 * self.precisions, "mINP": 100 * self.inverse_penalties}


@dataclass(frozen=True)
class RankingScores:
    """Means over the scored queries, in percent. `skipped` holds the identities of queries with no match, by query.

    `by_query` and `pairs` are what `paired_bootstrap` and `verification` go on with, where they were kept.
    """

    rank1: float
    rank5: float
    rank10: float
    mAP: float
    mINP: float
    queries: int
    skipped: tuple[int, ...] = ()
    by_query: QueryScores | None = field(default=None, compare=False, repr=False)
    pairs: PairCounts | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        text = f"Rank-1 {self.rank1:.1f}  Rank-5 {self.rank5:.1f}  mAP {self.mAP:.1f}  mINP {self.mINP:.1f}"
        return f"{text}  ({self.queries} queries, {len(self.skipped)} skipped)"


@dataclass
class RankingMetrics:
    """Collects blocks of queries, so that no more than one block's distances is ever held."""

    gallery_identities: Ints  # (G,)
    gallery_cameras: Ints  # (G,)
    same_camera: bool = False  # whether matches from the query's own camera count
    _ranks: list[Ints] = field(default_factory=list, init=False)
    _rows: list[int] = field(default_factory=list, init=False)
    _identities: list[int] = field(default_factory=list, init=False)
    _skipped: list[int] = field(default_factory=list, init=False)

    def update(self, distances: NDArray[np.floating], identities: Ints, cameras: Ints) -> "RankingMetrics":
        """Adds q queries: `distances` (q, G) small = alike, `identities` and `cameras` (q,).

        Raises VectorError where a distance is no number: it would sort last without a word.
        """
        assert distances.shape == (len(identities), len(self.gallery_identities))
        if np.isnan(distances).any():
            raise VectorError("a distance between query and gallery is NaN: the model or a picture's feature is broken")
        for row, identity, camera in zip(distances, identities, cameras, strict=True):
            same, counts = self.compared(identity, camera)
            matches = np.sort(row[same & counts])
            if identity == JUNK or not len(matches):
                self._skipped.append(int(identity))
                continue
            wrong = np.sort(row[~same & counts])
            # Rank of the k-th match, from 1: the k matches up to it, and the wrong ones no farther than it.
            self._ranks.append(np.arange(1, len(matches) + 1) + np.searchsorted(wrong, matches, side="right"))
            self._rows.append(len(self._ranks) + len(self._skipped) - 1)
            self._identities.append(int(identity))
        return self

    def compared(self, identity: int, camera: int) -> tuple[Bools, Bools]:
        """Which gallery pictures show the query's person, and which count for or against it; both (G,)."""
        same = self.gallery_identities == identity
        counts = self.gallery_identities != JUNK
        if not self.same_camera:
            counts &= ~(same & (self.gallery_cameras == camera))
        return same, counts

    def compute(self) -> RankingScores:
        """The scores so far; all 0 where no query could be scored."""
        by_query = QueryScores(
            rows=np.array(self._rows, np.int64),
            identities=np.array(self._identities, np.int64),
            first_ranks=np.array([ranks[0] for ranks in self._ranks], np.int64),
            precisions=np.array([np.mean(np.arange(1, len(ranks) + 1) / ranks) for ranks in self._ranks], np.float64),
            inverse_penalties=np.array([len(ranks) / ranks[-1] for ranks in self._ranks], np.float64),
        )
        means = {name: float(values.mean()) if len(values) else 0.0 for name, values in by_query.percent().items()}
        return RankingScores(
            means["rank1"],
            means["rank5"],
            means["rank10"],
            mAP=means["mAP"],
            mINP=means["mINP"],
            queries=len(self._ranks),
            skipped=tuple(self._skipped),
            by_query=by_query,
        )


#: Names of the metrics that `over_seeds` and `paired_bootstrap` compare: fields of RankingScores, in percent.
METRICS = ("rank1", "rank5", "rank10", "mAP", "mINP")


class Spread(NamedTuple):
    """Mean and standard deviation of a sample (over n - 1); no deviation of a single one."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.deviation is None else f"{self.mean:.1f} ± {self.deviation:.1f}"


def over_seeds(scores: Sequence[RankingScores]) -> dict[str, Spread]:
    """Each metric's mean and standard deviation over runs that differ in their seed only."""
    assert scores
    found = {}
    for name in METRICS:
        values = np.array([getattr(one, name) for one in scores])
        found[name] = Spread(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)
    return found


class Difference(NamedTuple):
    """`after` less `before`, in percentage points, and the interval that holds it at the stated confidence."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def paired_bootstrap(
    before: Sequence[RankingScores],
    after: Sequence[RankingScores],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Difference]:
    """How much each metric differs between two models on the same queries, with an interval over people.

    `before` and `after` are the evaluations of each model, one for each seed: a query's value is its mean over the
    seeds. People, not queries, are drawn with replacement, because the queries of one person are alike; the interval
    is that of the resampled differences' percentiles (Efron and Tibshirani 1993, chapter 13). It speaks of other
    people before these cameras, not of other seeds.

    Raises InputError where the evaluations are not of the same queries.
    """
    assert before and after and 0 < confidence < 1 and resamples > 0
    queries = [one.by_query for one in (*before, *after)]
    first = queries[0]
    if first is None or not len(first.rows):
        raise InputError("an evaluation that scored no query cannot be compared")
    for other in queries:
        if other is None or not (
            np.array_equal(first.rows, other.rows) and np.array_equal(first.identities, other.identities)
        ):
            raise InputError("the evaluations are not of the same queries, so they cannot be compared query by query")
    people, person = np.unique(first.identities, return_inverse=True)  # (P,), (S,)
    many = np.bincount(person)  # queries of each person
    totals = {}  # summed difference of each person's queries
    for name in METRICS:
        left, right = (
            np.mean([one.by_query.percent()[name] for one in side if one.by_query], 0) for side in (before, after)
        )
        totals[name] = np.bincount(person, weights=right - left)
    stacked = np.stack([*totals.values(), many], 1)  # (P, 6)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [
            rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=min(_DRAWS, resamples - start))
            @ stacked
            for start in range(0, resamples, _DRAWS)
        ]
    )  # (resamples, 6)
    differences = drawn[:, :-1] / drawn[:, -1:]
    tail = 50 * (1 - confidence)
    lows, highs = np.percentile(differences, [tail, 100 - tail], axis=0)
    return {
        name: Difference(float(total.sum() / many.sum()), float(low), float(high))
        for (name, total), low, high in zip(totals.items(), lows, highs, strict=True)
    }
