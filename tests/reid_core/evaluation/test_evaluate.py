from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from reid_core.datasets import open_dataset
from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.diff_attention import DiffAttention
from reid_core.evaluation import distances, pairs
from reid_core.evaluation.distances import BLOCK_DISTANCES, attended, plain
from reid_core.evaluation.evaluate import evaluate, features_of, load_attention, model_directory, rank_features
from reid_core.evaluation.ranking import RankingMetrics
from reid_core.evaluation.spaces import Labeled, evaluated_spaces
from reid_core.feature_space import Basis, learn_basis, learn_means
from reid_core.files import save_model
from reid_core.models import build_model
from reid_core.serving.local import LocalCore
from schemas.cards import DiffAttentionSettings, InputConvention, ModelConfig
from schemas.errors import InputError, OutOfDeviceMemory
from schemas.settings import Settings
from tests.helpers.assets import asset, real_set

QUICK = Settings(device="cpu", precision="float32", batch_size=8)
SIZE = InputConvention(height=32, width=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small model whose diff attention has gates that differ much."""
    torch.manual_seed(0)
    config = ModelConfig(architecture="resnet10s", input=SIZE, diff_attention=DiffAttentionSettings(reduction=16))
    built = build_model(config)
    assert built.diff_attention is not None
    torch.nn.init.normal_(built.diff_attention.excite.weight, std=0.2)
    folder = tmp_path_factory.mktemp("model")
    save_model(built, folder, name="small")
    yield folder


def people(seed: int, many: int, camera: int) -> PersonPictures:
    """One color per person, with so much noise that only some can be told apart."""
    colors = np.random.default_rng(0).integers(40, 216, (6, 1, 1, 3))
    rng = np.random.default_rng(seed)
    identities = rng.integers(0, 6, many)
    noise = rng.normal(scale=60, size=(many, SIZE.height, SIZE.width, 3))
    pictures = np.clip(colors[identities] + noise, 0, 255).astype(np.uint8)
    return PersonPictures(pictures, identities, np.full(many, camera))


def test_all_kinds_of_distances_are_scored_and_reported(model: Path) -> None:
    query, gallery = people(1, 20, 1), people(2, 40, 2)
    found = evaluate(QUICK, model, query, gallery, rerank=True)
    assert list(found) == ["plain", "attended", "reranked"]
    assert found["plain"] != found["attended"] != found["reranked"]
    assert found["plain"].pairs is not None and found["reranked"].pairs is None
    # The attended distances equal those of the core, which the city uses, query first.
    core = LocalCore.open(QUICK, model)
    left, right = (core.embed(side.pictures).astype(np.float64) for side in (query, gallery))
    rows = np.stack([core.distances(np.repeat(one[None], 40, 0), right) for one in left])
    metrics = RankingMetrics(gallery.identities, gallery.cameras).update(rows, query.identities, query.cameras)
    assert metrics.compute().mAP == pytest.approx(found["attended"].mAP, abs=0.2)


@pytest.mark.parametrize(
    ("top", "rerank", "steps"),
    [
        (None, False, ["embedding", "ranking, plain", "ranking, attended"]),
        (
            3,
            True,
            [
                "embedding",
                "finding neighbors",
                "attended distances to neighbors",
                "attended distances of reciprocal neighbors",
                "ranking, plain",
                "finding the 3 nearest",
                "attended distances to the 3 nearest",
                "ranking, attended",
            ],
        ),
    ],
)
def test_each_step_is_reported(
    top: int | None, rerank: bool, steps: list[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[tuple[str, int, int]] = []
    monkeypatch.setattr(distances, "BLOCK_DISTANCES", 8 * 40)
    monkeypatch.setattr(pairs, "QUERY_ROWS", 8)
    query, gallery = people(1, 20, 1), people(2, 40, 2)
    evaluate(QUICK, model, query, gallery, top=top, rerank=rerank, progress=lambda *report: reports.append(report))
    assert list(dict.fromkeys(step for step, _, _ in reports)) == steps
    for step in steps[1:]:
        done = [report[1] for report in reports if report[0] == step]
        (total,) = {report[2] for report in reports if report[0] == step}
        assert done == sorted(done) and done[-1] == total and len(done) >= total / 8, step


def test_too_little_memory_makes_blocks_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a device that has no room for more than 5 queries beside the gallery."""
    query, gallery = people(1, 20, 1), people(2, 40, 2)
    left, right = torch.randn(20, 8), torch.randn(40, 8)
    expected = rank_features(left, right, None, query, gallery)
    unit, most = distances._unit, 5

    def limited(features: Tensor) -> Tensor:
        if most < len(features) < 40 or not most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return unit(features)

    monkeypatch.setattr(distances, "_unit", limited)
    assert rank_features(left, right, None, query, gallery) == expected
    assert [rows.stop for rows, _ in plain(left, right)] == [5, 10, 15, 20]
    most = 0
    with pytest.raises(OutOfDeviceMemory, match="too small for ranking 40 gallery pictures for 20 queries; free some"):
        rank_features(left, right, None, query, gallery)


def test_attended_distances_for_the_nearest_only(model: Path) -> None:
    query, gallery = people(1, 20, 1), people(2, 40, 2)
    whole = evaluate(QUICK, model, query, gallery)
    assert evaluate(QUICK, model, query, gallery, top=10**6)["attended"] == whole["attended"]
    some = evaluate(QUICK, model, query, gallery, top=3)
    assert some["plain"] == whole["plain"]
    assert some["attended"].rank10 == pytest.approx(whole["plain"].rank10)  # only the three nearest change places
    assert some["attended"].pairs is None  # of two kinds, so that no threshold can be set by them


def test_the_others_keep_their_order_behind_the_nearest() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(7, 16).double(), torch.randn(30, 16).double()
    attention = DiffAttention(16, DiffAttentionSettings(reduction=2)).eval()
    torch.nn.init.normal_(attention.excite.weight)
    with torch.inference_mode():
        found, near, whole = (
            torch.cat([block for _, block in stream]).numpy()
            for stream in (attended(attention, left, right, 5), plain(left, right), attended(attention, left, right))
        )
    for row, by_plain, by_attention in zip(found, near, whole, strict=True):
        order = np.argsort(by_plain)
        assert row[order[:5]] == pytest.approx(by_attention[order[:5]], abs=1e-5)
        assert row[order[:5]].max() < row[order[5:]].min()
        assert np.array_equal(order[5:], [j for j in np.argsort(row) if j not in order[:5]])


def test_junk_does_not_affect_re_ranking(model: Path) -> None:
    query, gallery, junk = people(1, 20, 1), people(2, 40, 2), people(3, 15, 2)
    both = [np.concatenate([getattr(gallery, name), getattr(junk, name)]) for name in ("pictures", "cameras")]
    with_junk = PersonPictures(both[0], np.concatenate([gallery.identities, np.full(15, JUNK)]), both[1])
    expected = evaluate(QUICK, model, query, gallery, rerank=True)
    assert evaluate(QUICK, model, query, with_junk, rerank=True) == expected


def mirrored(side: PersonPictures) -> PersonPictures:
    return replace(side, pictures=np.ascontiguousarray(side.pictures[:, :, ::-1]))


def test_with_flip_a_mirror_image_scores_the_same(model: Path) -> None:
    query, gallery = people(1, 20, 1), people(2, 40, 2)
    found = evaluate(QUICK, model, query, gallery, flip=True)
    assert evaluate(QUICK, model, mirrored(query), gallery, flip=True) == found
    assert evaluate(QUICK, model, query, gallery) != found


def test_blocks_cover_all_queries_and_are_small() -> None:
    left, right = torch.randn(3000, 2).double(), torch.randn(4000, 2).double()
    rows = [rows for rows, found in plain(left, right) if found.numel() <= BLOCK_DISTANCES]
    assert len(rows) > 1 and [row for block in rows for row in range(3000)[block]] == list(range(3000))


def test_a_missing_model_and_a_needless_convention_are_errors(tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match="no such file"), model_directory(tmp_path / "none.xml", None, QUICK):
        pass
    with pytest.raises(InputError, match="give none"), model_directory(model, SIZE, QUICK):
        pass


@pytest.mark.slow
def test_a_published_embedder_reaches_its_known_scores_on_the_real_set() -> None:
    name = "person-reidentification-retail-0277"
    file = asset(f"models/{name}/{name}.xml")
    colors = InputConvention(color="bgr", range=255, mean=(0, 0, 0), std=(1, 1, 1))
    data = open_dataset(f"market1501:{real_set()}")
    query, gallery = data.load("query", colors), data.load("gallery", colors)
    quick = Settings(device="cpu")
    with model_directory(file, colors, quick) as folder:
        found = evaluate(quick, folder, query, gallery, rerank=True)
    assert found.keys() == {"plain", "reranked"}
    assert (found["plain"].rank1, found["plain"].mAP) == pytest.approx((82.9, 81.1), abs=1.0)
    assert found["plain"].queries == 451
    assert found["reranked"].mAP > found["plain"].mAP + 3


def shifted_views(seed: int, many: int, camera: int) -> tuple[Tensor, PersonPictures]:
    """Features of six people, whose own directions are small beside the shift of their camera."""
    rng = np.random.default_rng(seed)
    identities = rng.integers(0, 6, many)
    own = np.random.default_rng(0).normal(size=(6, 16))
    features = own[identities] + rng.normal(scale=0.6, size=(many, 16)) + 8 * np.eye(16)[camera]
    nothing = np.zeros((many, 1, 1, 3), np.uint8)
    return torch.from_numpy(features), PersonPictures(nothing, identities, np.full(many, camera))


def test_features_are_ranked_in_each_space_beside_the_plain_ones() -> None:
    """The same as ranking features that were put into the space by hand, and the last of them is re-ranked."""
    (left, query), (right, gallery) = shifted_views(1, 30, 1), shifted_views(2, 60, 2)
    found = rank_features(left, right, None, query, gallery, rerank=True)
    assert list(found) == ["plain", "reranked"]
    both = Labeled(left, query), Labeled(right, gallery)
    spaces = evaluated_spaces(*both, normalize=True, basis=Basis(np.diag(np.arange(1.0, 17))))
    spaced = rank_features(left, right, None, query, gallery, spaces=spaces, rerank=True)
    assert list(spaced) == ["plain", "normalized", "basis", "reranked"]
    assert spaced["plain"] == found["plain"] and spaced["plain"].mAP + 10 < spaced["normalized"].mAP
    for name, space in spaces.items():
        applied = [
            torch.from_numpy(space.apply(side.features.numpy(), [camera] * len(side.people)))
            for side, camera in zip(both, "12", strict=True)
        ]
        by_hand = rank_features(applied[0], applied[1], None, query, gallery, rerank=True)
        assert by_hand["plain"] == spaced[name] and spaced[name].pairs is not None
    assert by_hand["reranked"] == spaced["reranked"] != found["reranked"]


def test_means_are_those_of_queries_and_gallery_by_camera_and_use_no_label() -> None:
    (left, query), (right, gallery) = shifted_views(1, 30, 1), shifted_views(2, 60, 2)
    (space,) = evaluated_spaces(Labeled(left, query), Labeled(right, gallery), True, None).values()
    wanted = learn_means(np.concatenate([left, right]), ["1"] * 30 + ["2"] * 60)
    assert space.units == wanted.units == ("", "1", "2")
    np.testing.assert_array_equal(space.means, wanted.means)
    others = replace(gallery, identities=gallery.identities[::-1].copy())
    (again,) = evaluated_spaces(Labeled(left, query), Labeled(right, others), True, None).values()
    np.testing.assert_array_equal(again.means, space.means)


@pytest.mark.parametrize("normalize", (True, False))
def test_a_basis_is_learned_from_labeled_people_and_not_from_junk(normalize: bool) -> None:
    (left, query), (right, gallery), (more, people) = (shifted_views(seed, 40, seed % 2) for seed in (1, 2, 3))
    spaces = evaluated_spaces(Labeled(left, query), Labeled(right, gallery), normalize, Labeled(more, people))
    assert list(spaces) == (["normalized", "basis"] if normalize else ["basis"])
    assert spaces["basis"].units == (("", "0", "1") if normalize else ("",))
    cameras = ["1" if normalize else ""] * 40
    wanted = learn_basis(learn_means(more.numpy(), cameras).apply(more.numpy(), cameras), people.identities.tolist())
    assert spaces["basis"].basis is not None
    np.testing.assert_array_equal(spaces["basis"].basis.matrix, wanted.matrix)
    junk = torch.cat([more, 50 * torch.rand(9, 16, dtype=torch.float64)])
    identities = np.append(people.identities, np.full(9, JUNK))
    with_junk = PersonPictures(np.zeros((49, 1, 1, 3), np.uint8), identities, np.append(people.cameras, np.full(9, 1)))
    again = evaluated_spaces(Labeled(left, query), Labeled(right, gallery), normalize, Labeled(junk, with_junk))
    assert again["basis"].basis is not None
    np.testing.assert_array_equal(again["basis"].basis.matrix, wanted.matrix)


def test_a_model_is_evaluated_in_spaces(model: Path) -> None:
    query, gallery, training = people(1, 20, 1), people(2, 40, 2), people(3, 60, 3)
    found = evaluate(QUICK, model, query, gallery, normalize=True, basis=training)
    assert list(found) == ["plain", "attended", "normalized", "basis"]
    left, right, more = features_of(QUICK, model, (query, gallery, training))
    spaces = evaluated_spaces(Labeled(left, query), Labeled(right, gallery), True, Labeled(more, training))
    assert found == rank_features(left, right, load_attention(model), query, gallery, spaces=spaces)
    assert found == evaluate(QUICK, model, query, gallery, normalize=True, basis=spaces["basis"].basis)
