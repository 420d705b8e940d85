from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import HDBSCAN, AgglomerativeClustering
from sklearn.neighbors import kneighbors_graph

from pipeline.accuracy.baselines import (
    BASELINES,
    Cut,
    Passages,
    average_link,
    flat,
    greedy,
    micro_batches,
    nearest_neighbor,
    nearest_neighbor_by_unit,
    nearest_neighbor_distances,
    passages,
    search_threshold,
)
from pipeline.accuracy.labeled import Labeled
from pipeline.accuracy.metrics import idf1, pairwise
from pipeline.accuracy.violations import forbidden_pairs
from schemas.arrays import Floats, Ints
from schemas.levels import UPWARD, Level
from tests.helpers.crowd import crowd, same

#: A threshold for each baseline at which it does well on a crowd.
THRESHOLD = {"nearest_neighbor": 0.3, "average_link": 0.4, "greedy": 0.4, "micro_batches": 0.4}


def ungated(some: Passages) -> Passages:
    """The same passages where no pair is impossible."""

    def no_gap(a: Ints, b: Ints) -> Floats:
        return np.full(np.broadcast(a, b).shape, -np.inf)

    return Passages(some.features, some.camera, some.start_us, some.end_us, no_gap)


def distances(some: Passages) -> Floats:
    unit = some.features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return np.asarray(1 - unit @ unit.T, np.float64)


def is_impossible(some: Passages, i: int, j: int) -> bool:
    gap = max(some.start_us[i], some.start_us[j]) - min(some.end_us[i], some.end_us[j])
    return bool(gap < some.min_gap(some.camera[i : i + 1], some.camera[j : j + 1])[0])


# ---- agreement with a reference


def naive_nearest(some: Passages, threshold: float) -> Ints:
    n, distance = len(some), distances(some)
    group = list(range(n))
    for i in range(n):
        possible = [j for j in range(n) if j != i and not is_impossible(some, i, j)]
        if not possible:
            continue
        nearest = min(possible, key=lambda j: float(distance[i, j]))
        if distance[i, nearest] < threshold:
            group = [group[i] if g == group[nearest] else g for g in group]
    return np.array(group)


def naive_greedy(some: Passages, threshold: float) -> Ints:
    unit = some.features / np.linalg.norm(some.features, axis=1, keepdims=True)
    groups: list[list[int]] = []
    for i in sorted(range(len(some)), key=lambda i: (int(some.end_us[i]), i)):
        possible = []
        for g, members in enumerate(groups):
            mean = unit[members].sum(axis=0)
            if not any(is_impossible(some, i, j) for j in members):
                possible.append((float(1 - unit[i] @ mean / np.linalg.norm(mean)), g))
        if possible and min(possible)[0] < threshold:
            groups[min(possible)[1]].append(i)
        else:
            groups.append([i])
    result = np.empty(len(some), dtype=np.int64)
    for g, members in enumerate(groups):
        result[members] = g
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cells", [1_000, 32_000_000])
@pytest.mark.parametrize(("baseline", "naive"), [(nearest_neighbor, naive_nearest), (greedy, naive_greedy)])
def test_equals_a_double_loop(
    baseline: Callable[[Passages], Cut],
    naive: Callable[[Passages, float], Ints],
    cells: int,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also with gates that forbid nearly everything, where the nearest possible passage is far down the list."""
    monkeypatch.setattr(passages, "CELLS", cells)
    some = crowd(seed, min_gap_s=[5.0, 20.0, 400.0, 2_000.0][seed]).passages
    cut = baseline(some)
    for threshold in (0.02, 0.2, 0.35, 0.5, 1.2):
        assert same(cut(threshold), naive(some, threshold))


def test_the_nearest_neighbor_by_unit_is_of_the_same_unit() -> None:
    features, unit = np.array([[1, 0], [1, 0.01], [0, 1], [1, 0], [0.01, 1]]), np.array([7, 3, 7, 7, 3])
    groups = nearest_neighbor_by_unit(features, unit)(0.1)
    assert groups[0] == groups[3] and len(set(groups.tolist())) == 4


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.45])
def test_average_link_equals_scikit_learn(threshold: float) -> None:
    some = ungated(crowd(5).passages)
    reference = AgglomerativeClustering(
        n_clusters=None, distance_threshold=threshold, metric="cosine", linkage="average"
    )
    assert same(average_link(some)(threshold), reference.fit_predict(some.features))


@pytest.mark.parametrize("threshold", [0.1, 0.25, 0.4])
def test_average_link_of_a_graph_equals_scikit_learn(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "_NEIGHBORS", 22)
    some = ungated(crowd(6, people=5).passages)
    near = kneighbors_graph(some.features, 22, metric="cosine")
    reference = AgglomerativeClustering(
        n_clusters=None,
        distance_threshold=threshold,
        metric="cosine",
        linkage="average",
        connectivity=near.maximum(near.T),
    )
    assert same(average_link(some, dense=0)(threshold), reference.fit_predict(some.features))


def test_one_micro_batch_equals_hdbscan() -> None:
    some = ungated(crowd(7).passages)
    reference = HDBSCAN(min_cluster_size=2, metric="precomputed", allow_single_cluster=True, copy=True)
    expected = reference.fit_predict(np.maximum(distances(some), 0) * (1 - np.eye(len(some))))
    noise = expected < 0
    expected[noise] = 1_000 + np.arange(noise.sum())
    assert same(micro_batches(some, batch_us=10**15)(0.3), expected)


def test_two_micro_batches_are_matched_optimally() -> None:
    """Six people in both batches, all passages apart within a batch: equals the assignment of the full matrix."""
    rng = np.random.default_rng(3)
    means = rng.normal(size=(6, 8))
    features = np.concatenate([means + 0.6 * rng.normal(size=means.shape) for _ in range(2)])
    batch = np.repeat([0, 1], 6) * 10**9
    # All passages of a batch are at one time, and a gap of 0 is below the smallest possible one.
    some = Passages(features, np.zeros(12, int), batch, batch, lambda a, b: np.ones(np.broadcast(a, b).shape))
    threshold = 0.9
    groups = micro_batches(some)(threshold)
    gain = np.maximum(threshold - distances(some)[6:, :6], 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    pairs = {(int(c), int(r) + 6) for r, c in zip(rows, columns, strict=True) if gain[r, c] > 0}
    assert {(i, j) for i in range(6) for j in range(6, 12) if groups[i] == groups[j]} == pairs
    assert len(pairs) >= 4 and len(set(groups[:6].tolist())) == 6


# ---- all baselines


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("seed", [0, 1])
def test_gates_hold(name: str, seed: int) -> None:
    """All features are alike, so that only the gates keep passages apart."""
    some = crowd(seed, people=1, noise=0.05, min_gap_s=60.0, passages=60).passages
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 900_000_000, len(some))
    some = Passages(some.features, some.camera, start, start + 5_000_000, some.min_gap)
    groups = BASELINES[name](some)(1.5)
    violations = forbidden_pairs(groups, some.camera, some.start_us, some.end_us, some.min_gap, 60e6)
    one_group = np.zeros(len(some), int)
    assert forbidden_pairs(one_group, some.camera, some.start_us, some.end_us, some.min_gap, 60e6) > 100
    if name == "nearest_neighbor":  # no link is impossible, but two links may meet in a third passage
        assert same(groups, naive_nearest(some, 1.5))
    else:
        assert violations == 0


@pytest.mark.parametrize("name", BASELINES)
def test_a_higher_threshold_joins_more(name: str) -> None:
    """Nothing is joined below the smallest distance, and the truth is found in between."""
    some = crowd(8)
    unit = np.zeros_like(some.truth)
    cut = BASELINES[name](some.passages)
    counts = [len(set(cut(threshold).tolist())) for threshold in (1e-6, 0.2, 0.35, 1.5)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    assert counts[0] == len(some.truth) or name == "micro_batches"  # HDBSCAN joins by density, not by distance
    groups = cut(THRESHOLD[name])
    assert pairwise(groups, some.truth, unit).f1 > 0.6
    assert (groups == cut(THRESHOLD[name])).all()


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("passages", [0, 1, 2])
def test_few_passages(name: str, passages: int) -> None:
    some = crowd(0, passages=passages, people=1).passages
    groups = BASELINES[name](some)(THRESHOLD[name])
    assert groups.shape == (passages,) and groups.dtype == np.int64


# ---- thresholds


def test_the_search_takes_the_first_of_the_best() -> None:
    cities = [crowd(seed) for seed in (20, 21)]
    for name, baseline in BASELINES.items():
        chosen = search_threshold(baseline, cities, (0.05, 0.2, 0.3, 0.4))
        groups = np.concatenate([baseline(city.passages)(chosen.threshold) for city in cities])
        city_of = np.repeat([0, 1], [len(city.truth) for city in cities])
        truth, crops = (np.concatenate([getattr(city, field) for city in cities]) for field in ("truth", "crops"))
        assert chosen.idf1 == idf1(groups, truth, city_of, crops) > 0.5, name
    nothing_joined = search_threshold(lambda some: lambda threshold: np.arange(len(some)), cities, (0.1, 0.2))
    assert nothing_joined.threshold == 0.1


def test_nearest_neighbor_distances_are_the_best_of_each_level() -> None:
    """Two people with two tracklets each, all in one building."""
    angles = np.arccos(1 - np.array([0.0, 0.02, 0.3, 0.5]))
    n = len(angles)
    labeled = Labeled(
        levels=UPWARD[1:],
        key=[bytes([i]) for i in range(n)],
        cameras=("d1/s1/b1/c1",),
        camera=np.zeros(n, np.int64),
        start_us=np.arange(n),
        end_us=np.arange(n),
        timed=np.ones(n, bool),
        crops=np.ones(n, np.int64),
        people=("anna", "bert"),
        truth=np.array([0, 0, 1, 1]),
        mean=np.stack([np.cos(angles), np.sin(angles)], axis=1),
        horizon_us=dict.fromkeys(UPWARD[1:], 10**12),
        identity={},
        persistent_id={},
    )
    found = nearest_neighbor_distances([labeled])
    within = max(1 - np.cos(angles[1] - angles[0]), 1 - np.cos(angles[3] - angles[2]))
    assert set(found) == {Level.BUILDING, Level.STREET, Level.DISTRICT}
    assert all(within < threshold < 1.2 * within for threshold in found.values())
    groups = nearest_neighbor_by_unit(labeled.mean, labeled.unit(Level.STREET))(found[Level.STREET])
    assert pairwise(groups, labeled.truth, np.zeros(n, np.int64)).f1 == 1
