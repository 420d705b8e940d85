import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from reid_core.datasets.person_pictures import JUNK
from reid_core.evaluation.ranking import METRICS, RankingMetrics, RankingScores, over_seeds, paired_bootstrap
from schemas.errors import InputError, VectorError


def scores(
    distances: NDArray[np.float64], query: list[tuple[int, int]], gallery: list[tuple[int, int]]
) -> RankingScores:
    """`query` and `gallery` as (identity, camera)."""
    g, q = np.array(gallery).reshape(-1, 2), np.array(query).reshape(-1, 2)
    return RankingMetrics(g[:, 0], g[:, 1]).update(distances, q[:, 0], q[:, 1]).compute()


def picture_by_picture(
    distances: NDArray[np.float64], query: list[tuple[int, int]], gallery: list[tuple[int, int]]
) -> tuple[float, float, float, int]:
    """Rank-1, mAP, mINP and the number of skipped queries, computed one picture at a time."""
    firsts, precisions, inverses, skipped = [], [], [], 0
    for row, (identity, camera) in zip(distances, query, strict=True):
        ranked = sorted(range(len(gallery)), key=lambda j: (row[j], gallery[j][0] == identity))
        hits, position, at_hits = 0, 0, []
        for j in ranked:
            if gallery[j][0] == JUNK or gallery[j] == (identity, camera):
                continue
            position += 1
            if gallery[j][0] == identity:
                hits += 1
                at_hits.append((hits, position))
        if not at_hits or identity == JUNK:
            skipped += 1
            continue
        firsts.append(at_hits[0][1] == 1)
        precisions.append(sum(h / p for h, p in at_hits) / hits)
        inverses.append(hits / at_hits[-1][1])
    if not firsts:
        return 0.0, 0.0, 0.0, skipped
    rank1, mean_ap, mean_inp = (100 * float(np.mean(x)) for x in (firsts, precisions, inverses))
    return rank1, mean_ap, mean_inp, skipped


pictures = st.tuples(st.integers(-1, 4), st.integers(1, 3))


@given(
    query=st.lists(pictures, min_size=1, max_size=6),
    gallery=st.lists(pictures, min_size=1, max_size=25),
    seed=st.integers(0, 2**31),
    values=st.sampled_from([3, 10**6]),
)
def test_agrees_with_a_slow_reference_in_any_order(
    query: list[tuple[int, int]], gallery: list[tuple[int, int]], seed: int, values: int
) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, values, (len(query), len(gallery))) / values  # 3 values: many ties
    found = scores(distances, query, gallery)
    assert (found.rank1, found.mAP, found.mINP, len(found.skipped)) == pytest.approx(
        picture_by_picture(distances, query, gallery)
    )
    order = rng.permutation(len(gallery))
    assert scores(distances[:, order], query, [gallery[j] for j in order]) == found
    backward = scores(distances[::-1], query[::-1], gallery)
    assert (backward.mAP, backward.mINP, backward.queries) == pytest.approx((found.mAP, found.mINP, found.queries))


def test_average_precision_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    query = [(int(i), 1) for i in rng.integers(0, 10, 20)]
    gallery = [(int(i), 2) for i in rng.integers(0, 10, 300)]
    distances = rng.random((20, 300))
    truth = np.array([[g[0] == q[0] for g in gallery] for q in query])
    expected = np.mean([average_precision_score(t, -d) for t, d in zip(truth, distances, strict=True)])
    assert scores(distances, query, gallery).mAP == pytest.approx(100 * expected)


def test_by_hand() -> None:
    gallery = [(1, 1), (5, 2), (1, 2), (JUNK, 2), (0, 3), (1, 3)]
    # Same camera and junk are left out: the ranking is 5, match, distractor, match.
    found = scores(np.array([[0.0, 0.1, 0.2, 0.25, 0.3, 0.4]]), [(1, 1)], gallery)
    assert found.rank1 == 0 and found.rank5 == 100
    assert found.mAP == pytest.approx(100 * (1 / 2 + 2 / 4) / 2)
    assert found.mINP == pytest.approx(100 * 2 / 4)


def test_perfect_ranking_is_100() -> None:
    gallery = [(i % 5, 1 + i % 2) for i in range(20)]
    query = [(i, 3) for i in range(5)]
    distances = np.array([[float(g[0] != q[0]) for g in gallery] for q in query])
    found = scores(distances, query, gallery)
    assert (found.rank1, found.mAP, found.mINP) == (100, 100, 100)


def test_a_constant_feature_scores_nothing() -> None:
    assert scores(np.zeros((1, 100)), [(0, 1)], [(i, 2) for i in range(100)]).mAP == pytest.approx(1.0)


def test_skipped_queries_are_listed() -> None:
    found = scores(np.zeros((3, 2)), [(4, 1), (1, 1), (JUNK, 1)], [(1, 2), (4, 1)])
    assert found.skipped == (4, JUNK) and found.queries == 1
    assert "2 skipped" in str(found)


def test_blocks_add_up() -> None:
    rng = np.random.default_rng(0)
    gallery, query, distances = rng.integers(0, 5, (40, 2)), rng.integers(0, 5, (9, 2)), rng.random((9, 40))
    whole = RankingMetrics(gallery[:, 0], gallery[:, 1]).update(distances, query[:, 0], query[:, 1]).compute()
    parts = RankingMetrics(gallery[:, 0], gallery[:, 1])
    for i in range(0, 9, 4):
        parts.update(distances[i : i + 4], query[i : i + 4, 0], query[i : i + 4, 1])
    assert parts.compute() == whole


def test_nan_is_an_error() -> None:
    with pytest.raises(VectorError, match="NaN"):
        scores(np.array([[np.nan]]), [(1, 1)], [(1, 2)])


def some_scores(rng: np.random.Generator, people: int, noise: float) -> RankingScores:
    """Four queries per person, ranked by their label plus `noise`; the queries of person 0 have no match."""
    gallery = [(person, 2) for person in range(1, people) for _ in range(2)]
    query = [(person, 1) for person in range(people) for _ in range(4)]
    same = np.array([[g[0] == q[0] for g in gallery] for q in query])
    return scores(1 - same + noise * rng.normal(size=same.shape), query, gallery)


def test_scores_are_means_over_queries() -> None:
    found = some_scores(np.random.default_rng(0), 20, 0.5)
    assert found.by_query is not None
    assert found.by_query.rows.tolist() == list(range(4, 80)) and found.by_query.identities[0] == 1
    for name, values in found.by_query.percent().items():
        assert getattr(found, name) == pytest.approx(values.mean())


def test_mean_and_deviation_over_seeds() -> None:
    runs = [RankingScores(r, r, r, r, r, 4) for r in (80.0, 82.0, 87.0)]
    found = over_seeds(runs)
    assert found["mAP"] == pytest.approx((83.0, np.sqrt(13.0))) and str(found["mAP"]) == "83.0 ± 3.6"
    assert over_seeds(runs[:1])["rank1"] == (80.0, None)


def test_the_bootstrap_resamples_people() -> None:
    rng = np.random.default_rng(1)
    before, after = some_scores(rng, 60, 0.45), some_scores(rng, 60, 0.35)
    found = paired_bootstrap([before], [after])
    assert found["mAP"].mean == pytest.approx(after.mAP - before.mAP)
    assert found["rank1"].mean == pytest.approx(after.rank1 - before.rank1)
    # The plain way: draw people one by one, and take all queries of each.
    assert before.by_query is not None and after.by_query is not None
    people = np.unique(before.by_query.identities)
    rows = [np.flatnonzero(before.by_query.identities == person) for person in people]
    change = 100 * (after.by_query.precisions - before.by_query.precisions)
    drawn = [change[np.concatenate([rows[i] for i in rng.integers(0, len(people), len(people))])] for _ in range(2000)]
    low, high = np.percentile([one.mean() for one in drawn], [2.5, 97.5])
    assert (found["mAP"].low, found["mAP"].high) == pytest.approx((low, high), abs=0.5)
    assert found["mAP"].low > 0


def test_the_bootstrap_of_equal_models_is_zero() -> None:
    one, two = (some_scores(np.random.default_rng(seed), 10, 0.5) for seed in (0, 1))
    assert set(paired_bootstrap([one, two], [two, one]).values()) == {(0.0, 0.0, 0.0)}
    assert tuple(paired_bootstrap([one], [two])) == METRICS


def test_evaluations_of_other_queries_are_not_compared() -> None:
    one, other = some_scores(np.random.default_rng(0), 10, 0.5), some_scores(np.random.default_rng(0), 11, 0.5)
    with pytest.raises(InputError, match="not of the same queries"):
        paired_bootstrap([one], [other])
    with pytest.raises(InputError, match="scored no query"):
        paired_bootstrap([scores(np.zeros((1, 1)), [(1, 1)], [(2, 1)])], [one])
