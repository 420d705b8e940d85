import numpy as np
import pytest

from reid_core.datasets import Dataset, hold_out, open_dataset
from reid_core.evaluation.ranking import RankingMetrics
from schemas.errors import InputError
from tests.helpers.data_sets import SMALL


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return open_dataset("rendered:3:12")  # six people to train on


def test_people_are_apart_and_every_query_has_a_match(dataset: Dataset) -> None:
    people = dataset.load("train", SMALL)
    train, query, gallery = hold_out(people, 2)
    assert sorted([*train.names, *query.names, *gallery.names]) == sorted(people.names)
    held = set(query.identities)
    assert len(held) == 2 and held == set(gallery.identities) and not held & set(train.identities)
    metrics = RankingMetrics(gallery.identities, gallery.cameras)
    scores = metrics.update(np.zeros((len(query), len(gallery))), query.identities, query.cameras).compute()
    assert scores.queries == len(query) and scores.skipped == ()


def test_seeds_draw_other_people(dataset: Dataset) -> None:
    drawn = [frozenset(sample.identity for sample in hold_out(dataset, 3, seed).query) for seed in (0, 0, *range(1, 9))]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 3


def test_of_a_data_set_and_of_its_pictures_is_the_same(dataset: Dataset) -> None:
    described, loaded = hold_out(dataset, 2, 5), hold_out(dataset.load("train", SMALL), 2, 5)
    assert tuple(sample.name for sample in described.query) == loaded.query.names
    assert tuple(sample.name for sample in described.gallery) == loaded.gallery.names
    assert tuple(sample.name for sample in described.train) == loaded.train.names


def test_people_who_could_not_be_found_again_stay(dataset: Dataset) -> None:
    people = dataset.load("train", SMALL)
    identities, cameras = np.repeat(np.arange(6), 16), np.tile(np.arange(16) % 4, 6)
    cameras[identities == 0] = 1  # one camera only
    cameras[identities == 1] = np.arange(16)  # one picture a camera
    cameras[identities == 2] = np.array([0] * 15 + [1])  # the query of camera 0 would have no match
    identities[identities == 3] = -1
    object.__setattr__(people, "identities", identities)
    object.__setattr__(people, "cameras", cameras)
    for seed in range(5):
        found = hold_out(people, 2, seed)
        assert set(found.query.identities) == {4, 5}
        assert set(found.train.identities) == {-1, 0, 1, 2}
    with pytest.raises(InputError, match="3 people cannot be held out: 2 have two pictures under each of two cameras"):
        hold_out(people, 3)


def test_somebody_is_left(dataset: Dataset) -> None:
    for people in (0, 6, 7):
        with pytest.raises(InputError, match="at least one person must be left to train on"):
            hold_out(dataset, people)
    assert len({sample.identity for sample in hold_out(dataset, 5).train}) == 1
