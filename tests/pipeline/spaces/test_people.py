"""A feature space with a basis of labeled people: `models normalize --basis LAYOUT:DIR`."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.registry import ModelRow
from pipeline.spaces.derived import normalize
from pipeline.spaces.learning import Unlabeled, calibrating_people, teaching_people
from reid_core import Dataset, FeatureSpace, learn_basis, learn_means, open_dataset
from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.evaluation.spaces import basis_of
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.cards import InputConvention
from schemas.errors import InputError
from tests.helpers.town import Town


def test_a_basis_of_a_data_set_s_training_people(resolved: Town) -> None:
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
    core = opened_core(resolved.model)  # with the fastest arithmetic, which differs by processor
    people = open_dataset(source).load("train", core.card.input)
    features, codes = core.embed(people.pictures).astype(np.float64), list(map(str, people.cameras))
    wanted = learn_basis(learn_means(features, codes).apply(features, codes), people.identities.tolist()).matrix
    assert space.basis is not None
    np.testing.assert_allclose(space.basis.matrix, wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max())
    np.testing.assert_array_equal(space.means, means.means)
    count = len(np.unique(people.identities))
    assert sources == [("none", "crops of d1"), ("people", f"crops of d1; basis of {count} people of {source}")]
    assert f"training pictures: {len(people)} of {len(people)}" in steps


def test_who_calibrates_teaches_no_basis(tmp_path: Path) -> None:
    """A quarter of a data set's people, and at most 200; without a basis of people all of them up to 200."""
    assert calibrating_people([3, 1, 2, 3]) == {1, 2, 3}
    assert calibrating_people(range(8), of_basis=True) == {0, 4}
    assert len(calibrating_people(range(1000))) == len(calibrating_people(range(1000), of_basis=True)) == 200
    folder = tmp_path / "bounding_box_train"
    folder.mkdir()
    for person in (-1, *range(2, 11)):
        name = "-1" if person < 0 else f"{person:04}"
        cv2.imwrite(str(folder / f"{name}_c1s1_{person + 1:06}_01.jpg"), np.full((8, 8, 3), 9, np.uint8))
    dataset = open_dataset(f"market1501:{tmp_path}")
    assert teaching_people(dataset, InputConvention()).identities.tolist() == [3, 4, 5, 7, 8, 9]
    other = replace(dataset, source="msmt17:elsewhere")
    assert teaching_people(other, InputConvention()).identities.tolist() == list(range(2, 11))


def test_people_that_teach_nothing_are_refused() -> None:
    nobody = PersonPictures(np.zeros((3, 1, 1, 3), np.uint8), np.full(3, JUNK), np.ones(3, np.int64))
    with pytest.raises(InputError, match="no labeled people"):
        basis_of(np.eye(3), nobody)
