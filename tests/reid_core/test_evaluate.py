import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from reid_core.data import JUNK
from reid_core.datasets import open_dataset
from reid_core.evaluate import RankingMetrics, RankingScores, evaluate
from reid_core.files import write_card
from reid_core.foreign import foreign_card, foreign_files
from schemas.cards import InputConvention
from schemas.errors import VectorError
from schemas.settings import Settings, settings


def scores(
    distances: NDArray[np.float64], query: list[tuple[int, int]], gallery: list[tuple[int, int]]
) -> RankingScores:
    """`query` and `gallery` as (identity, camera)."""
    g, q = np.array(gallery).reshape(-1, 2), np.array(query).reshape(-1, 2)
    return RankingMetrics(g[:, 0], g[:, 1]).update(distances, q[:, 0], q[:, 1]).compute()


def slow_and_right(
    distances: NDArray[np.float64], query: list[tuple[int, int]], gallery: list[tuple[int, int]]
) -> tuple[float, float, float, int]:
    """Rank-1, mAP, mINP and skipped, walked picture by picture."""
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
    rank_1, mean_ap, mean_inp = (100 * float(np.mean(x)) for x in (firsts, precisions, inverses))
    return rank_1, mean_ap, mean_inp, skipped


pictures = st.tuples(st.integers(-1, 4), st.integers(1, 3))


@given(
    query=st.lists(pictures, min_size=1, max_size=6),
    gallery=st.lists(pictures, min_size=1, max_size=25),
    seed=st.integers(0, 2**31),
    values=st.sampled_from([3, 10**6]),
)
def test_agrees_with_the_slow_reference_and_forgets_order(
    query: list[tuple[int, int]], gallery: list[tuple[int, int]], seed: int, values: int
) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, values, (len(query), len(gallery))) / values  # 3 values: many ties
    found = scores(distances, query, gallery)
    assert (found.rank_1, found.mAP, found.mINP, len(found.skipped)) == pytest.approx(
        slow_and_right(distances, query, gallery)
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
    # Same camera and junk fall out: the ranking is 5, match, distractor, match.
    found = scores(np.array([[0.0, 0.1, 0.2, 0.25, 0.3, 0.4]]), [(1, 1)], gallery)
    assert found.rank_1 == 0 and found.rank_5 == 100
    assert found.mAP == pytest.approx(100 * (1 / 2 + 2 / 4) / 2)
    assert found.mINP == pytest.approx(100 * 2 / 4)


def test_perfect_ranking_is_100() -> None:
    gallery = [(i % 5, 1 + i % 2) for i in range(20)]
    query = [(i, 3) for i in range(5)]
    distances = np.array([[float(g[0] != q[0]) for g in gallery] for q in query])
    found = scores(distances, query, gallery)
    assert (found.rank_1, found.mAP, found.mINP) == (100, 100, 100)


def test_a_feature_that_says_nothing_scores_nothing() -> None:
    assert scores(np.zeros((1, 100)), [(0, 1)], [(i, 2) for i in range(100)]).mAP == pytest.approx(1.0)


def test_skipped_queries_are_named() -> None:
    found = scores(np.zeros((3, 2)), [(4, 1), (1, 1), (JUNK, 1)], [(1, 2), (4, 1)])
    assert found.skipped == (4, JUNK) and found.queries == 1
    assert "2 skipped" in str(found)


def test_same_camera_can_count() -> None:
    metrics = RankingMetrics(np.array([1, 2]), np.array([1, 1]), same_camera=True)
    assert metrics.update(np.array([[0.1, 0.2]]), np.array([1]), np.array([1])).compute().rank_1 == 100


def test_blocks_add_up() -> None:
    rng = np.random.default_rng(0)
    gallery, query, distances = rng.integers(0, 5, (40, 2)), rng.integers(0, 5, (9, 2)), rng.random((9, 40))
    whole = RankingMetrics(gallery[:, 0], gallery[:, 1]).update(distances, query[:, 0], query[:, 1]).compute()
    parts = RankingMetrics(gallery[:, 0], gallery[:, 1])
    for i in range(0, 9, 4):
        parts.update(distances[i : i + 4], query[i : i + 4, 0], query[i : i + 4, 1])
    assert parts.compute() == whole


def test_nan_is_refused() -> None:
    with pytest.raises(VectorError, match="NaN"):
        scores(np.array([[np.nan]]), [(1, 1)], [(1, 2)])


@pytest.mark.slow
def test_a_published_embedder_scores_on_the_real_set_what_others_measured(tmp_path: Path) -> None:
    real, assets = settings().real_set, settings().test_assets
    if real is None or assets is None:
        pytest.skip("URBAN_REID_REAL_SET and URBAN_REID_TEST_ASSETS are not both set")
    name = "person-reidentification-retail-0277"
    source = assets / "models" / name / f"{name}.xml"
    for file in foreign_files(source):
        shutil.copy(file, tmp_path)
    colours = InputConvention(color="bgr", range=255, mean=(0, 0, 0), std=(1, 1, 1))
    quick = Settings(device="cpu")
    card = foreign_card(tmp_path / source.name, "retail", colours, quick)
    write_card(card, tmp_path)
    people = open_dataset(f"market1501:{real}")
    query, gallery = people.load("query", card.input), people.load("gallery", card.input)
    found = evaluate(quick, tmp_path, query, gallery)
    assert found.keys() == {"plain"}
    assert (found["plain"].rank_1, found["plain"].mAP) == pytest.approx((82.9, 81.1), abs=1.0)
    assert found["plain"].queries == 451
