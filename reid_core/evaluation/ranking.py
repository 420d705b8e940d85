"""Ranking metrics: rank-k, mAP and mINP, in percent (paper, 'Metrics and protocols'); and confidence intervals.

For each query the gallery is sorted by distance. Junk (identity -1) and gallery pictures of the query's identity from
the query's own camera are left out. A query with no match left is skipped and listed. Among pictures at equal distance
wrong ones rank first: a constant feature scores nothing, and no result depends on the order of the gallery.
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

#: Confidence of the interval of `paired_bootstrap`, and how often it resamples.
CONFIDENCE, RESAMPLES = 0.95, 10_000
#: Resamples drawn at a time, so that their weights fit into the cache.
_DRAWS = 256


@dataclass(frozen=True)
class QueryScores:
    """The scores of each query that was not skipped, in the order of the queries; arrays of one length S."""

    rows: Ints  # (S,), index of the query among all queries, skipped ones included
    identities: Ints  # (S,)
    first_ranks: Ints  # (S,), rank of the first match, from 1
    precisions: Floats  # (S,), average precision, 0..1
    inverse_penalties: Floats  # (S,), matches / rank of the last match, 0..1

    def percent(self) -> dict[str, Floats]:
        """Each metric's values (S,) in percent, by the metric's name; their mean is the score."""
        ranks = {f"rank{k}": 100 * (self.first_ranks <= k).astype(np.float64) for k in (1, 5, 10)}
        return ranks | {"mAP": 100 * self.precisions, "mINP": 100 * self.inverse_penalties}


@dataclass(frozen=True)
class RankingScores:
    """Means over the scored queries, in percent. `skipped` holds the identity of each query without a match.

    `by_query` is what `paired_bootstrap` compares, and `pairs` what `verification` reads; None where not kept.
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
    """Collects ranks from blocks of queries, so that the distances of only one block are held at a time."""

    gallery_identities: Ints  # (G,)
    gallery_cameras: Ints  # (G,)
    _ranks: list[Ints] = field(default_factory=list, init=False)
    _rows: list[int] = field(default_factory=list, init=False)
    _identities: list[int] = field(default_factory=list, init=False)
    _skipped: list[int] = field(default_factory=list, init=False)

    def update(self, distances: NDArray[np.floating], identities: Ints, cameras: Ints) -> "RankingMetrics":
        """Adds q queries: `distances` (q, G), small = alike; `identities` and `cameras` (q,).

        Raises VectorError where a distance is NaN, which would be sorted last.
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
        """Which gallery pictures show the query's person, and which are ranked at all; both (G,)."""
        same = self.gallery_identities == identity
        counts = (self.gallery_identities != JUNK) & ~(same & (self.gallery_cameras == camera))
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
    """Mean and standard deviation (over n - 1) of a sample; no deviation where it has one value."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.deviation is None else f"{self.mean:.1f} ± {self.deviation:.1f}"


def over_seeds(scores: Sequence[RankingScores]) -> dict[str, Spread]:
    """Each metric's mean and standard deviation over runs that differ only in their seed."""
    assert scores
    found = {}
    for name in METRICS:
        values = np.array([getattr(one, name) for one in scores])
        found[name] = Spread(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)
    return found


class Difference(NamedTuple):
    """Mean of `after` - `before` in percentage points, and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def paired_bootstrap(before: Sequence[RankingScores], after: Sequence[RankingScores]) -> dict[str, Difference]:
    """How much each metric differs between two models on the same queries, with a 95 % interval over people.

    `before` and `after` are the evaluations of each model, one per seed: a query's value is its mean over the seeds.
    People, not queries, are drawn with replacement, because the queries of one person are alike; the interval is
    between percentiles of the resampled differences (Efron and Tibshirani 1993, chapter 13). It covers the choice of
    people before these cameras, not the choice of seeds.

    Raises InputError where the evaluations are not of the same queries.
    """
    assert before and after
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
    totals = {}  # (P,) of each metric: the sum of the differences of a person's queries
    for name in METRICS:
        left, right = (
            np.mean([one.by_query.percent()[name] for one in side if one.by_query], 0) for side in (before, after)
        )
        totals[name] = np.bincount(person, weights=right - left)
    stacked = np.stack([*totals.values(), many], 1)  # (P, 6)
    rng = np.random.default_rng(0)
    drawn = np.concatenate(
        [
            rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=min(_DRAWS, RESAMPLES - start))
            @ stacked
            for start in range(0, RESAMPLES, _DRAWS)
        ]
    )  # (RESAMPLES, 6)
    differences = drawn[:, :-1] / drawn[:, -1:]
    tail = 50 * (1 - CONFIDENCE)
    lows, highs = np.percentile(differences, [tail, 100 - tail], axis=0)
    return {
        name: Difference(float(total.sum() / many.sum()), float(low), float(high))
        for (name, total), low, high in zip(totals.items(), lows, highs, strict=True)
    }
