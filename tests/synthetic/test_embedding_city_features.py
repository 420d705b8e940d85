"""Features of an embedding-level city: as close to the real ones as the model's docstring says."""

from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from reid_core.evaluation.ranking import RankingMetrics, RankingScores
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city
from synthetic.embedding_city.embedding import person_vector
from synthetic.embedding_city.features import DIMS, draw_person, kinds, retail_0277, two_cameras
from synthetic.seeds import generator

SETTINGS = EmbeddingCitySettings(cameras=40, seed=5, occluded_share=0)


def unit(features: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = features / np.linalg.norm(features, axis=1, keepdims=True)
    return scaled


def distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n,) Distances between rows scaled to length 1."""
    gap: np.ndarray = np.linalg.norm(unit(one) - unit(other), axis=1)
    return gap


def scores(seed: int) -> RankingScores:
    sample = two_cameras(seed)
    cosine = unit(sample.query) @ unit(sample.gallery).T
    metrics = RankingMetrics(sample.gallery_person, np.full(len(sample.gallery), 2))
    return metrics.update(1 - cosine, sample.query_person, np.ones(len(sample.query), dtype=np.int64)).compute()


def test_ranks_are_those_of_the_real_set() -> None:
    """Real: 451 queries among 487 crops of 100 people, Rank-1 83.6, mAP 81.0, mINP 72.0 (docs/results.md)."""
    found = [scores(seed) for seed in range(12)]
    assert np.mean([s.queries for s in found]) == pytest.approx(451, abs=10)
    assert np.mean([s.rank1 for s in found]) == pytest.approx(83.6, abs=3)
    assert np.mean([s.mAP for s in found]) == pytest.approx(81.0, abs=3)
    assert np.mean([s.mINP for s in found]) == pytest.approx(72.0, abs=4)


def test_distances_are_those_of_the_real_set() -> None:
    """Quantiles of distances among the real training people, in groups of 100."""
    rows = []
    for seed in range(12):
        sample = two_cameras(seed)
        across = np.sqrt(np.maximum(2 - 2 * unit(sample.query) @ unit(sample.gallery).T, 0))
        within = np.sqrt(np.maximum(2 - 2 * unit(sample.query) @ unit(sample.query).T, 0))
        same = sample.query_person[:, None] == sample.gallery_person
        passage = (sample.query_person[:, None] == sample.query_person) & ~np.eye(len(within), dtype=bool)
        quantiles = [np.quantile(d, (0.05, 0.5, 0.95)) for d in (within[passage], across[same], across[~same])]
        lengths = np.quantile(np.linalg.norm(sample.query, axis=1), (0.05, 0.5, 0.95))
        rows.append(np.stack([*quantiles, lengths]))
    real = [[0.428, 0.591, 0.949], [0.831, 1.012, 1.202], [1.169, 1.289, 1.382], [6.33, 7.08, 7.90]]
    off = np.abs(np.mean(rows, axis=0) - real)
    assert (off[:3, :2] < 0.02).all() and (off[1:3, 2] < 0.03).all() and off[0, 2] < 0.15 and (off[3] < 0.4).all()


def test_crops_are_most_alike_in_one_passage_then_at_one_camera_then_at_others() -> None:
    parts = list(embedding_city(SETTINGS).batches())
    person, camera, track = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("person", "camera", "track")
    )
    features = np.concatenate([p.features for p in parts])
    assert features.dtype == np.float32 and features.shape[1] == DIMS
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, len(person), (2, 2_000_000))
    adjacent = np.arange(len(person) - 1)
    passage = adjacent[track[adjacent] == track[adjacent + 1]][:3000]
    pairs = {"one passage": (passage, passage + 1)}
    same = (person[one] == person[other]) & (track[one] != track[other])
    for name, rows in (
        ("one camera", same & (camera[one] == camera[other])),
        ("other camera", same & (camera[one] != camera[other])),
        ("stranger", person[one] != person[other]),
    ):
        pairs[name] = (one[rows][:3000], other[rows][:3000])
    means = [float(distance(features[a], features[b]).mean()) for a, b in pairs.values()]
    assert len(pairs["one camera"][0]) > 300
    assert means == sorted(means) and np.diff(means).min() > 0.08


def test_look_alikes_and_people_in_uniform_are_more_alike_than_others() -> None:
    usual = replace(SETTINGS, look_alike_share=0.0, uniform_share=0.0)

    def nearest(settings: EmbeddingCitySettings) -> np.ndarray:
        generators = (generator(settings.seed, "embedding city", 3, person) for person in range(120))
        vectors = [person_vector(settings, 1, person, rng) for person, rng in enumerate(generators)]
        people = np.array(vectors) * retail_0277().person
        cosine = unit(people) @ unit(people).T - 3 * np.eye(len(people))
        return np.sort(cosine, axis=1)

    strangers = nearest(usual)[:, -2]
    assert np.median(nearest(replace(usual, look_alike_share=1.0))[:, -2]) > np.median(strangers) + 0.1
    groups = nearest(replace(usual, uniform_share=1.0, people=120))
    assert np.median(groups[:, -4]) > np.median(strangers) + 0.1


def test_occlusion_lowers_quality_and_corrupts_the_feature() -> None:
    clear, hidden = (next(embedding_city(replace(SETTINGS, occluded_share=share)).batches()) for share in (0.0, 1.0))
    assert np.array_equal(clear.track, hidden.track)
    assert hidden.quality.min() > 0.05 and clear.quality.max() <= 1
    assert np.median(hidden.quality) < 0.7 * np.median(clear.quality)
    assert np.median(distance(clear.features, hidden.features)) > 0.4
    some = next(embedding_city(replace(SETTINGS, occluded_share=0.1)).batches())
    touched = (some.features != clear.features).any(axis=1)
    assert touched.mean() == pytest.approx(0.1, abs=0.02)
    assert (some.quality[touched] < clear.quality[touched]).mean() > 0.99


def test_color_bias_is_one_shift_per_camera() -> None:
    without, usual, twice = (
        next(embedding_city(replace(SETTINGS, color_bias=bias)).batches()) for bias in (0.0, 1.0, 2.0)
    )
    shift = usual.features - without.features
    for camera in np.unique(usual.camera)[:5]:
        rows = shift[usual.camera == camera]
        assert np.allclose(rows, rows[0], atol=1e-4)
    assert np.allclose(twice.features - without.features, 2 * shift, atol=1e-4)
    assert np.linalg.norm(shift, axis=1).mean() == pytest.approx(np.sqrt(1.8), rel=0.1)


def test_half_precision_keeps_the_features() -> None:
    """Raw features have lengths of about 7; stored as halfvec, their directions change by less than 1e-3."""
    features = next(embedding_city(SETTINGS).batches()).features
    halved = features.astype(np.float16).astype(np.float32)
    assert distance(features, halved).max() < 1e-3


def test_kinds_of_clothes_keep_the_variance() -> None:
    rng = np.random.default_rng(1)
    people = np.array([draw_person(rng, kinds(int(seed))) for seed in rng.integers(0, 400, 3000)])
    assert people.var() == pytest.approx(1, abs=0.05)


def test_features_depend_on_no_number_of_threads_or_rows() -> None:
    model = retail_0277()
    axes = generator(3, "axes").standard_normal((700, DIMS), np.float32)
    found = model.features(axes)
    with threadpool_limits(limits=1, user_api="blas"):
        assert np.array_equal(model.features(axes), found)
    assert np.array_equal(model.features(axes[:3]), found[:3])
