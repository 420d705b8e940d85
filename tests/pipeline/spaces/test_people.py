"""A feature space with a basis of labeled people: `models normalize --basis LAYOUT:DIR`."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.registry import ModelRow
from pipeline.spaces.derived import normalize
from pipeline.spaces.learning import Unlabeled
from reid_core import Dataset, FeatureSpace, learn_basis, learn_means, open_dataset, open_model
from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.evaluation.spaces import basis_of
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.errors import InputError
from tests.helpers.town import Town


def test_a_basis_of_a_data_set_s_training_people(resolved: Town, model_folder: Path) -> None:
    store, source = resolved.store, "rendered:5:8"
    steps: list[str] = []
    sources: list[tuple[str, str]] = []

    def opened_core(model: ModelRow) -> ReIDCore:
        return open_core(store.settings, model.directory(store.settings))

    def learned(name: str, basis: Unlabeled | Dataset) -> FeatureSpace:
        found = normalize(store, resolved.crops, opened_core, resolved.model.name, "d1", name, basis, steps.append)
        assert found.model.card.feature_space is not None
        sources.append((found.model.card.feature_space.basis, found.model.card.feature_space.learned_from))
        return FeatureSpace.open(found.model.directory(store.settings))

    means, space = learned("means", "none"), learned("people", open_dataset(source))
    opened = open_model(model_folder)
    people = open_dataset(source).load("train", opened.card.input)
    features, codes = opened.embed(people.pictures).astype(np.float64), list(map(str, people.cameras))
    wanted = learn_basis(learn_means(features, codes).apply(features, codes), people.identities.tolist()).matrix
    assert space.basis is not None
    np.testing.assert_allclose(space.basis.matrix, wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max())
    np.testing.assert_array_equal(space.means, means.means)
    count = len(np.unique(people.identities))
    assert sources == [("none", "crops of d1"), ("people", f"crops of d1; basis of {count} people of {source}")]
    assert f"training pictures: {len(people)} of {len(people)}" in steps


def test_people_that_teach_nothing_are_refused() -> None:
    nobody = PersonPictures(np.zeros((3, 1, 1, 3), np.uint8), np.full(3, JUNK), np.ones(3, np.int64))
    with pytest.raises(InputError, match="no labeled people"):
        basis_of(np.eye(3), nobody)
