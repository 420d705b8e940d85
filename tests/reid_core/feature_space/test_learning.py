"""Cameras' means and bases, with values computed by hand."""

import numpy as np
import pytest

from reid_core.feature_space import learn_basis, learn_means
from schemas.errors import InputError, VectorError

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def test_means_are_those_of_unit_features_and_lean_toward_the_unit_above() -> None:
    """Camera 1 sees east and north, camera 2 north once: all have (1/3, 2/3). With strength 2 camera 1's mean is
    (2 (1/2, 1/2) + 2 (1/3, 2/3)) / 4, and camera 2's (1 (0, 1) + 2 (1/3, 2/3)) / 3."""
    space = learn_means(np.array([EAST, NORTH, NORTH]) * [[3], [2], [7]], ["1", "1", "2"], strength=2)
    assert space.units == ("", "1", "2") and space.basis is None and space.dims == space.dims_out == 2
    np.testing.assert_allclose(space.means, [[1 / 3, 2 / 3], [5 / 12, 7 / 12], [2 / 9, 7 / 9]], rtol=1e-15)


def test_each_unit_leans_toward_its_parent() -> None:
    """d1 has the mean of all; d1/s1 of one passage lies half way between it and its own; its camera half way again."""
    space = learn_means(np.array([EAST, WEST]), ["d1/s1/c1", "d1/s2/c1"], strength=1)
    means = dict(zip(space.units, space.means[:, 0].tolist(), strict=True))
    assert means == {"": 0, "d1": 0, "d1/s1": 0.5, "d1/s1/c1": 0.75, "d1/s2": -0.5, "d1/s2/c1": -0.75}


def test_one_who_loiters_counts_once() -> None:
    """Nine crops of one passage and one of another: their mean is half way, and 0.8 of the way without passages."""
    crops, cameras = np.array([EAST] * 9 + [WEST]), ["1"] * 10
    assert learn_means(crops, cameras, [7] * 9 + [8], strength=0).means[:, 0].tolist() == [0, 0]
    np.testing.assert_allclose(learn_means(crops, cameras, strength=0).means[:, 0], [0.8, 0.8])


def test_a_passage_number_used_at_two_cameras_is_two_passages() -> None:
    space = learn_means(np.array([EAST, EAST, WEST]), ["1", "1", "2"], [0, 0, 0], strength=0)
    assert space.means[:, 0].tolist() == [0, 1, -1]


def test_basis_levels_the_spread_within_people() -> None:
    """Within people x varies by +-0.3 and y by +-0.1: (2 x 2 x 0.09, 2 x 2 x 0.01) / (4 rows - 2 people). A ridge of
    half the mean, 0.05, is added to both, and the basis is their -1/2 power. Where the people stand has no part."""
    spread = np.array([[0.3, 0.1], [-0.3, -0.1]])
    mirrored = spread * np.array([1, -1])
    crops = np.concatenate([spread + np.array([5, 0]), mirrored + np.array([0, 9])])
    basis = learn_basis(crops, ["ann", "ann", "bob", "bob"], ridge=0.5)
    np.testing.assert_allclose(basis, np.diag([0.23**-0.5, 0.07**-0.5]), atol=1e-12)


def test_basis_keeps_the_axes() -> None:
    """With a ridge that hides all differences, the basis is a multiple of the identity: no rotation, no reflection."""
    rng = np.random.default_rng(0)
    basis = learn_basis(rng.normal(size=(40, 5)), np.repeat(np.arange(8), 5).tolist(), ridge=1e9)
    np.testing.assert_allclose(basis / basis[0, 0], np.eye(5), atol=1e-6)


def test_people_seen_once_say_nothing_of_the_basis() -> None:
    rng = np.random.default_rng(0)
    crops, people = rng.normal(size=(6, 3)), ["a", "a", "b", "b", "b", "b"]
    more = np.concatenate([crops, 100 * rng.normal(size=(2, 3))])
    np.testing.assert_allclose(learn_basis(more, [*people, "c", "d"]), learn_basis(crops, people), rtol=1e-9)


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="no features"):
        learn_means(np.empty((0, 3)), [])
    with pytest.raises(VectorError, match="feature 1 is zero"):
        learn_means(np.array([EAST, [0, 0]]), ["1", "1"])
    with pytest.raises(InputError, match="two or more crops"):
        learn_basis(np.eye(3), ["a", "b", "c"])
    with pytest.raises(InputError, match="two or more crops"):
        learn_basis(np.ones((4, 3)), ["a", "a", "b", "b"])
