"""Labeled data for a feature space come from other cameras, whose means it learns there; its basis stays."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.calibration.labeled_city import labeled_city
from pipeline.calibration.withheld import Withheld
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow, find_model, rename_model
from pipeline.spaces.derived import normalize
from pipeline.spaces.learning import Unlabeled
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from pipeline.training.comparison import measure
from reid_core.datasets import Dataset, open_dataset
from reid_core.evaluation.evaluate import evaluate
from reid_core.feature_space import FeatureSpace
from reid_core.files import read_card
from reid_core.serving.core import ReIDCore, compared_features
from reid_core.serving.factory import open_core
from synthetic.training import training_set
from tests.helpers.homes import fresh_settings
from tests.helpers.town import Town


@pytest.fixture(scope="module")
def town(server: EmbeddedServer, city_files: Path, model_folder: Path) -> Iterator[Town]:
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        made = Town(store, city_files, model_folder)
        made.take_in((city_files / "manifest.jsonl").read_text().splitlines()[:80])
        yield made


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set of 32 people at two cameras."""
    people = training_set(5, 32, 4, (128, 64))
    folder = tmp_path_factory.mktemp("market") / "bounding_box_train"
    folder.mkdir()
    for number, (picture, person) in enumerate(zip(people.pictures, people.identities.tolist(), strict=True)):
        name = f"{person + 1:04}_c{1 + number % 2}s1_{number:06}_01.jpg"
        assert cv2.imwrite(str(folder / name), picture[..., ::-1])
    return f"market1501:{folder.parent}"


@pytest.fixture(scope="module")
def space(town: Town, market: str) -> ModelRow:
    """A space with a basis of labeled people, learned in a small city."""
    return learned(town, "space", open_dataset(market))


def learned(town: Town, name: str, basis: Unlabeled | Dataset) -> ModelRow:
    def opened(model: ModelRow) -> ReIDCore:
        return open_core(town.store.settings, model.directory(town.store.settings))

    return normalize(town.store, CropStore(town.store.settings), opened, "test", "d1", name, basis).model


def test_a_labeled_city_has_means_of_its_own_cameras_the_same_basis_and_people_who_did_not_teach_it(
    town: Town, space: ModelRow, market: str
) -> None:
    settings = town.store.settings
    withheld, steps = Withheld(), list[str]()
    with labeled_city(settings, space.directory(settings), market, steps.append, withheld) as (_, core, model):
        assert steps[0].endswith(": 8 of 32 people") and space.card.feature_space is not None
        assert "basis of 24 people" in space.card.feature_space.learned_from
        assert model.base_id is not None and model.in_use and core.space is not None
        its = FeatureSpace.open(space.directory(settings))
        assert its.basis is not None and core.space.basis is not None
        assert np.array_equal(core.space.basis.matrix, its.basis.matrix)
        own = {unit for unit in core.space.units if unit.count("/") == 3}
        assert own == {"d1/s1/b-c1/c1", "d1/s1/b-c2/c2"} and not own & set(its.units)
        probes = withheld.features(core)
        assert probes.shape == (8, space.dims) and np.linalg.norm(probes, axis=1) == pytest.approx(1)


def test_where_a_city_taught_itself_a_basis_so_does_the_labeled_one(town: Town, market: str) -> None:
    settings = town.store.settings
    folder = learned(town, "taught", "tracklets").directory(settings)
    steps = list[str]()
    with labeled_city(settings, folder, market, steps.append) as (_, core, model):
        assert steps[0].endswith(": 32 of 32 people") and model.card.feature_space is not None
        assert model.card.feature_space.basis == "tracklets" and core.space is not None
        own, its = core.space.basis, FeatureSpace.open(folder).basis
        assert own is not None and its is not None and not np.allclose(own.matrix, its.matrix)


def test_the_base_s_files_are_there_once(town: Town, space: ModelRow) -> None:
    """A second name for each in the space's folder, also after the base was renamed."""
    settings, store = town.store.settings, town.store
    files = town.model.card.sha256
    assert files and files.items() < space.card.sha256.items()
    for name in ("base", town.model.name):
        rename_model(store, "base" if name != "base" else town.model.name, name)
        assert all((settings.models_dir / name / f).samefile(space.directory(settings) / f) for f in files)
        assert read_card(settings.models_dir / name).sha256 == files


def test_a_comparison_ranks_in_the_space(town: Town, space: ModelRow) -> None:
    settings = town.store.settings
    folder, dataset = space.directory(settings), open_dataset("rendered:9:12")
    query, gallery = (dataset.load(split, space.card.input) for split in ("query", "gallery"))
    scores = evaluate(settings, folder, query, gallery, normalize=True, basis=FeatureSpace.open(folder).basis)
    assert set(scores) == {"plain", "normalized", "basis"}  # the base's diff attention is not used in its space
    assert measure(settings, folder, dataset)["mAP"] == pytest.approx(scores["basis"].mAP, abs=1e-3)


def test_a_space_without_a_basis_keeps_its_base_s_diff_attention(town: Town) -> None:
    settings, store = town.store.settings, town.store
    kept = learned(town, "kept", "none")
    assert kept.card.diff_attention == town.model.card.diff_attention is not None
    core, base = (open_core(settings, model.directory(settings)) for model in (kept, town.model))
    assert core.space is not None and core.space.recentered
    raw = np.random.default_rng(1).normal(1, 1, (6, kept.dims))
    placed = compared_features(core, raw, ["d1/s1/b1/c1"] * 6)
    assert np.array_equal(core.distances(placed[:3], placed[3:]), base.distances(placed[:3], placed[3:]))
    dataset = open_dataset("rendered:9:12")
    query, gallery = (dataset.load(split, kept.card.input) for split in ("query", "gallery"))
    attended = evaluate(settings, kept.directory(settings), query, gallery)["attended"]
    found = measure(settings, kept.directory(settings), dataset)
    assert found["mAP"] != pytest.approx(attended.mAP, abs=1e-3) and abs(found["mAP"] - attended.mAP) < 10
    with store.begin() as connection:
        assert find_model(connection, "kept").base_id == town.model.id
