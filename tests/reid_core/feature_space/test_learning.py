"""Cameras' means and bases, with values computed by hand."""

import numpy as np
import pytest

from reid_core.feature_space import learn_basis, learn_means, mutual_neighbors, shared_votes
from schemas.arrays import Floats
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


def test_those_who_are_alike_share_one_vote_at_their_camera() -> None:
    """Forty crops of one who loiters count as much as one of each of the others; the same crop elsewhere for itself."""
    others, loiterer = np.eye(8)[:7], np.eye(8)[7] + np.random.default_rng(0).normal(scale=0.1, size=(40, 8))
    votes = shared_votes(np.concatenate([others, loiterer, loiterer[:1]]), ["1"] * 47 + ["2"])
    assert votes[:7].tolist() == [1] * 7 and votes[47] == 1
    assert votes[7:47].sum() == pytest.approx(1, abs=0.3)
    assert shared_votes(at(7, 7, 7), ["1"] * 3).tolist() == [1 / 3] * 3 and not len(shared_votes(at(), []))


def test_weighted_means_lean_toward_the_unit_above_by_their_weights() -> None:
    """All have (2 east + 1 north) / 3; camera 2's weight of 1 against a strength of 2: (north + 2 all) / 3."""
    space = learn_means(np.array([EAST, EAST, NORTH]), ["1", "1", "2"], weights=np.array([1.5, 0.5, 1.0]), strength=2)
    np.testing.assert_allclose(space.means, [[2 / 3, 1 / 3], [5 / 6, 1 / 6], [4 / 9, 5 / 9]], rtol=1e-15)


def test_a_passage_number_used_at_two_cameras_is_two_passages() -> None:
    space = learn_means(np.array([EAST, EAST, WEST]), ["1", "1", "2"], [0, 0, 0], strength=0)
    assert space.means[:, 0].tolist() == [0, 1, -1]


def test_basis_levels_the_spread_within_people_and_weighs_directions_by_what_tells_them_apart() -> None:
    """Within people x varies by +-0.3, y by +-0.1: (2 x 2 x 0.09, 2 x 2 x 0.01) / (4 rows - 2 people) is (0.18, 0.02).
    A ridge of half the mean, 0.05, makes it (0.23, 0.07), whose -1/2 power whitens and leaves (0.18/0.23, 0.02/0.07).

    The people's means, (-1, 0) and (1, 0), vary by (2, 0) / 0.23, less half of what is left, since each has two crops:
    (8.3043, 0), of which two people among a hundred show a fiftieth: (2 (8.3043, 0) + 100 x 4.1522) / 102. Then the
    crops' mean square length is made 1.
    """
    crops = np.array([[-0.7, 0.1], [-1.3, -0.1], [1.3, -0.1], [0.7, 0.1]])
    between = (2 * np.array([8.304348, 0]) + 100 * 4.152174) / 102
    weights = between / (between + np.array([0.782609, 0.285714]))
    basis = learn_basis(crops, ["ann", "ann", "bob", "bob"], ridge=0.5)
    wanted = np.diag([0.23**-0.5, 0.07**-0.5] * weights)
    wanted /= np.sqrt(np.square(crops @ wanted).sum(axis=1).mean())
    np.testing.assert_allclose(basis.matrix, wanted, atol=1e-6)


def many_people(people: int, turned: bool = False) -> tuple[Floats, list[int]]:
    """Three crops of each; people differ in the first two of four directions, each as much as their crops."""
    rng = np.random.default_rng(0)
    own = np.repeat(rng.normal(size=(people, 4)) * [2, 1, 0, 0], 3, axis=0)
    crops = own + rng.normal(size=own.shape)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    return crops @ turn if turned else crops, np.repeat(np.arange(people), 3).tolist()


def test_directions_in_which_people_do_not_differ_count_less_the_more_people_show_it() -> None:
    """Shares of variance between people: 4/5, 1/2, 0 and 0, in the whitened scale with a ridge that adds as much."""
    many, few = (np.linalg.norm(learn_basis(*many_people(people)).matrix, axis=0) for people in (5000, 10))
    scaled = many / many[0] * 0.8
    np.testing.assert_allclose(scaled[1], 0.5, atol=0.03)
    assert (scaled[2:] < 0.05).all() and few[3] / few[0] > 5 * many[3] / many[0]


def test_a_basis_turns_with_the_features() -> None:
    (crops, people), (turned, _) = many_people(50), many_people(50, turned=True)
    np.testing.assert_allclose(
        np.abs(turned @ learn_basis(turned, people).matrix), np.abs(crops @ learn_basis(crops, people).matrix)
    )


def at(*degrees: float) -> Floats:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def test_tracklets_at_two_cameras_that_are_each_other_s_nearest_are_one_person() -> None:
    """Tracklet 4 has two crops around 0 degrees and its nearest at 10, which has it; 7 has 9, which lies nearer 8."""
    features = at(-5, 5, 10, 50, 55, 200)
    tracklets, cameras = [4, 4, 5, 9, 8, 7], ["1", "1", "2", "2", "1", "1"]
    people = mutual_neighbors(features, tracklets, cameras)
    assert people[0] == people[1] == people[2] and people[3] == people[4]
    assert len({people[0], people[3], people[5]}) == 3
    assert len(set(mutual_neighbors(features, tracklets, ["1"] * 6).tolist())) == 5


def test_neighbors_are_looked_for_in_the_street_first() -> None:
    """Somebody at d1/s1 is nearest to a stranger at d1/s2; d1/s3 has no other camera, so all others are asked."""
    features = at(0, 10, 2, 90, 91)
    cameras = ["d1/s1/b1/c1", "d1/s1/b2/c1", "d1/s2/b1/c1", "d1/s2/b2/c1", "d1/s3/b1/c1"]
    people = mutual_neighbors(features, list(range(5)), cameras)
    assert people[0] == people[1] and people[2] == people[3] and len(set(people.tolist())) == 3
    flat = mutual_neighbors(features, list(range(5)), ["1", "2", "3", "4", "5"])
    assert flat[0] == flat[2] and flat[3] == flat[4] and len(set(flat.tolist())) == 3


def test_mutual_neighbors_show_how_views_differ_which_tracklets_cannot() -> None:
    """People differ in six of eight directions, and their passages, of two crops, in the seventh."""
    rng = np.random.default_rng(0)
    own = np.repeat(rng.normal(size=(300, 8)) * [3, 3, 3, 3, 3, 3, 0, 0], 2, axis=0)
    passage = own + rng.normal(size=own.shape) * [0, 0, 0, 0, 0, 0, 1.5, 0]
    crops = np.repeat(passage, 2, axis=0) + rng.normal(scale=0.3, size=(1200, 8))
    tracklets, cameras = np.repeat(np.arange(600), 2).tolist(), ["1", "1", "2", "2"] * 300
    guessed = mutual_neighbors(crops, tracklets, cameras)
    weights = [np.linalg.norm(learn_basis(crops, people).matrix, axis=1) for people in (tracklets, guessed.tolist())]
    by_tracklets, by_neighbors = (found[6] / found[:6].mean() for found in weights)
    assert by_neighbors < 0.6 < 0.9 < by_tracklets and np.mean(guessed[::4] == guessed[2::4]) > 0.75


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="no features"):
        learn_means(np.empty((0, 3)), [])
    with pytest.raises(VectorError, match="feature 1 is zero"):
        learn_means(np.array([EAST, [0, 0]]), ["1", "1"])
    with pytest.raises(InputError, match="two or more crops"):
        learn_basis(np.eye(3), ["a", "b", "c"])
    for crops, people in ((np.ones((4, 3)), ["a", "a", "b", "b"]), (np.empty((0, 3)), [])):
        with pytest.raises(InputError, match="two or more crops"):
            learn_basis(crops, people)
    for people in (["a", "a", "a", "a"], ["a", "a", "b", "b"]):
        with pytest.raises(InputError, match="differ more than their crops"):
            learn_basis(np.array([EAST, WEST, EAST, WEST]), people)
