from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import HDBSCAN, AgglomerativeClustering
from sklearn.neighbors import kneighbors_graph

from pipeline.accuracy.baselines import (
    BASELINES,
    Baseline,
    Passages,
    average_link,
    flat,
    greedy,
    micro_batches,
    nearest_neighbor,
    passages,
    search_thresholds,
)
from pipeline.accuracy.metrics import forbidden_pairs, idf1, pairwise
from schemas.arrays import Floats, Ints
from tests.helpers.crowd import crowd, same

Lift = Callable[[Passages], Passages]
TRIED = {"nearest_neighbor": (0.3,), "average_link": (0.4,), "greedy": (0.4,), "micro_batches": (0.4,)}


@pytest.fixture
def ungated() -> Callable[[Passages], Passages]:
    """The same passages where nothing is impossible."""

    def lift(passages: Passages) -> Passages:
        nothing = lambda a, b: np.full(np.broadcast(a, b).shape, -np.inf)  # noqa: E731
        return Passages(passages.features, passages.camera, passages.start_us, passages.end_us, nothing)

    return lift


def distances(some: Passages) -> Floats:
    unit = some.features / np.linalg.norm(some.features, axis=1, keepdims=True)
    return 1 - unit @ unit.T


def one_by_one(some: Passages, i: int, j: int) -> bool:
    """Whether i and j cannot be one person."""
    gap = max(some.start_us[i], some.start_us[j]) - min(some.end_us[i], some.end_us[j])
    return bool(gap < some.slack(some.camera[i : i + 1], some.camera[j : j + 1])[0])


# ---- agreement with a reference


def naive_nearest(some: Passages, most: float) -> Ints:
    n, distance = len(some), distances(some)
    group = list(range(n))
    for i in range(n):
        possible = [j for j in range(n) if j != i and not one_by_one(some, i, j)]
        if possible and distance[i, best := min(possible, key=lambda j: distance[i, j])] < most:
            group = [group[i] if g == group[best] else g for g in group]
    return np.array(group)


def naive_greedy(some: Passages, most: float) -> Ints:
    unit = some.features / np.linalg.norm(some.features, axis=1, keepdims=True)
    groups: list[list[int]] = []
    for i in sorted(range(len(some)), key=lambda i: (some.end_us[i], i)):
        far = []
        for g, members in enumerate(groups):
            mean = unit[members].sum(axis=0)
            if not any(one_by_one(some, i, j) for j in members):
                far.append((1 - unit[i] @ mean / np.linalg.norm(mean), g))
        if far and min(far)[0] < most:
            groups[min(far)[1]].append(i)
        else:
            groups.append([i])
    result = np.empty(len(some), dtype=np.int64)
    for g, members in enumerate(groups):
        result[members] = g
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cells", [1_000, 32_000_000])
@pytest.mark.parametrize(("ours", "naive"), [(nearest_neighbor, naive_nearest), (greedy, naive_greedy)])
def test_as_a_double_loop(ours, naive, cells: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates that forbid nearly everything too: then the nearest possible one is far down the list."""
    monkeypatch.setattr(passages, "CELLS", cells)
    some = crowd(seed, slack_s=[5.0, 20.0, 400.0, 2_000.0][seed]).passages
    cut = ours(some)
    for most in (0.02, 0.2, 0.35, 0.5, 1.2):
        assert same(cut(most), naive(some, most))


@pytest.mark.parametrize("most", [0.1, 0.3, 0.45])
def test_average_link_is_scikit_learns(most: float, ungated: Lift) -> None:
    some = ungated(crowd(5).passages)
    reference = AgglomerativeClustering(n_clusters=None, distance_threshold=most, metric="cosine", linkage="average")
    assert same(average_link(some)(most), reference.fit_predict(some.features))


@pytest.mark.parametrize("most", [0.1, 0.25, 0.4])
def test_average_link_of_a_graph_is_scikit_learns(most: float, ungated: Lift, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "_NEIGHBORS", 22)
    some = ungated(crowd(6, people=5).passages)
    near = kneighbors_graph(some.features, 22, metric="cosine")
    reference = AgglomerativeClustering(
        n_clusters=None, distance_threshold=most, metric="cosine", linkage="average", connectivity=near.maximum(near.T)
    )
    assert same(average_link(some, dense=0)(most), reference.fit_predict(some.features))


def test_a_batch_is_hdbscans(ungated: Lift) -> None:
    some = ungated(crowd(7).passages)
    reference = HDBSCAN(min_cluster_size=2, metric="precomputed", allow_single_cluster=True, copy=True)
    expected = reference.fit_predict(np.maximum(distances(some), 0) * (1 - np.eye(len(some))))
    alone = expected < 0
    expected[alone] = 1_000 + np.arange(alone.sum())
    assert same(micro_batches(some, batch_us=10**15)(0.3), expected)


def test_two_batches_are_matched_like_a_table() -> None:
    """Six people twice, each batch of single passages: who goes to whom is the assignment of the whole table."""
    rng = np.random.default_rng(3)
    looks = rng.normal(size=(6, 8))
    features = np.concatenate([looks + 0.6 * rng.normal(size=looks.shape) for _ in range(2)])
    batch = np.repeat([0, 1], 6) * 10**9
    some = Passages(features, np.zeros(12, int), batch, batch, lambda a, b: np.ones(np.broadcast(a, b).shape))
    # Of one batch nobody is one person: all at one time, and a gap of 0 is too small.
    most = 0.9
    groups = micro_batches(some)(most)
    gain = np.maximum(most - distances(some)[6:, :6], 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    pairs = {(int(c), int(r) + 6) for r, c in zip(rows, columns, strict=True) if gain[r, c] > 0}
    assert {(i, j) for i in range(6) for j in range(6, 12) if groups[i] == groups[j]} == pairs
    assert len(pairs) >= 4 and len(set(groups[:6].tolist())) == 6


# ---- what holds for all


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("seed", [0, 1])
def test_gates_hold(name: str, seed: int) -> None:
    """With everything alike, only the gates keep anybody apart."""
    some = crowd(seed, people=1, noise=0.05, slack_s=60.0, passages=60).passages
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 900_000_000, len(some))
    some = Passages(some.features, some.camera, start, start + 5_000_000, some.slack)
    groups = BASELINES[name].prepare(some)(*(1.5 for _ in BASELINES[name].grid))
    violations = forbidden_pairs(groups, some.camera, some.start_us, some.end_us, some.slack, 60e6)
    together = np.zeros(len(some), int)
    assert forbidden_pairs(together, some.camera, some.start_us, some.end_us, some.slack, 60e6) > 100
    if name == "nearest_neighbor":  # no link is impossible, but two may meet in a third
        linked = nearest_neighbor(some)(1.5)
        assert same(linked, naive_nearest(some, 1.5))
    else:
        assert violations == 0


@pytest.mark.parametrize("name", BASELINES)
def test_thresholds_respond(name: str) -> None:
    """Nobody is joined below the smallest distance, more and more above, and the truth is found in between."""
    some = crowd(8)
    unit = np.zeros_like(some.truth)
    cut = BASELINES[name].prepare(some.passages)
    second = (0.0,) if len(BASELINES[name].grid) == 2 else ()
    counts = [len(set(cut(most, *second).tolist())) for most in (1e-6, 0.2, 0.35, 1.5)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    assert counts[0] == len(some.truth) or name == "micro_batches"  # HDBSCAN joins by density, not by distance
    assert pairwise(cut(*TRIED[name]), some.truth, unit).f1 > 0.6
    again = cut(*TRIED[name])
    assert (again == cut(*TRIED[name])).all()


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("passages", [0, 1, 2])
def test_hardly_anybody(name: str, passages: int) -> None:
    some = crowd(0, passages=passages, people=1).passages
    groups = BASELINES[name].prepare(some)(*TRIED[name])
    assert groups.shape == (passages,) and groups.dtype == np.int64


def test_the_search_takes_the_strictest_of_the_best() -> None:
    cities = [crowd(seed) for seed in (20, 21)]
    for name, baseline in BASELINES.items():
        small = Baseline(baseline.prepare, ((0.05, 0.2, 0.3, 0.4), (0.0, 0.2))[: len(baseline.grid)])
        for measure in ("pairwise_f1", "idf1"):
            chosen = search_thresholds(small, cities, measure)
            groups = [baseline.prepare(city.passages)(*chosen.thresholds) for city in cities]
            where = np.repeat([0, 1], [len(city.truth) for city in cities])
            truth, crops = (np.concatenate([getattr(city, field) for city in cities]) for field in ("truth", "crops"))
            joined = np.concatenate(groups)
            found = pairwise(joined, truth, where).f1 if measure == "pairwise_f1" else idf1(joined, truth, where, crops)
            assert chosen.value == found > 0.5, name
    nobody_joined = Baseline(lambda some: lambda most: np.arange(len(some)), ((0.1, 0.2),))
    assert search_thresholds(nobody_joined, cities).thresholds == (0.1,)
