import itertools

import numpy as np

from synthetic import Difficulty, simulate_city, training_set
from synthetic.pedestrians import draw_people


def test_shapes_labels_and_repeatability() -> None:
    first, again = (training_set(1, people=5, pictures_per_person=6, size=(64, 32)) for _ in range(2))
    assert first.pictures.shape == (30, 64, 32, 3) and first.pictures.dtype == np.uint8
    assert first.identities.tolist() == [i for i in range(5) for _ in range(6)]
    assert np.array_equal(first.pictures, again.pictures)
    assert np.array_equal(first.cameras, again.cameras)
    assert first.pictures.reshape(30, -1).std(axis=1).min() > 4
    for passage in np.unique(first.passages):
        rows = first.passages == passage
        assert len(np.unique(first.cameras[rows])) == len(np.unique(first.identities[rows])) == 1
    for person in range(5):
        assert len(np.unique(first.cameras[first.identities == person])) >= 2


def test_other_seeds_give_other_pictures() -> None:
    one, other = (training_set(seed, people=3, pictures_per_person=4, size=(64, 32)) for seed in (1, 2))
    assert not np.array_equal(one.pictures, other.pictures)


def test_every_seed_has_other_people() -> None:
    cities = [set(simulate_city(seed, people=20).people) for seed in range(4)]
    assert all(not one & other for one, other in itertools.combinations(cities, 2))
    cloth = {person.cloth for people in cities for person in people}
    assert len(cloth) == 80  # the seeds of the cloth differ too


def test_look_alikes_share_clothes_but_not_bodies() -> None:
    difficulty = Difficulty()
    people = draw_people(np.random.default_rng(0), 40, look_alike_share=0.5, group=(2, 5), spread=difficulty.spread)
    assert len(set(people)) == 40

    def near(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
        return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 8 * difficulty.spread

    alike = [
        (one, other)
        for one, other in itertools.combinations(people, 2)
        if (one.upper, one.lower, one.pattern) == (other.upper, other.lower, other.pattern)
        and near(one.upper_color, other.upper_color)
        and near(one.lower_color, other.lower_color)
    ]
    assert len({id(person) for pair in alike for person in pair}) >= 18
    assert all(one.height_m != other.height_m for one, other in alike)
