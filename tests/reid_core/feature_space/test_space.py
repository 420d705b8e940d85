"""What a feature space computes, bit for bit, and its files."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits

from reid_core.feature_space import Basis, FeatureSpace, learn_basis, learn_means
from reid_core.feature_space.space import ARRAYS, DESCRIPTION
from schemas.arrays import Floats
from schemas.errors import ModelFileError, VectorError

HALF = np.sqrt(0.5)


def by_hand(features: NDArray[np.floating], means: Floats, basis: Floats) -> Floats:
    """The definition, in plain float64, of features whose means are given row by row."""
    centered = features / np.linalg.norm(features, axis=1, keepdims=True) - means
    placed = np.pad(
        centered / np.linalg.norm(centered, axis=1, keepdims=True) @ basis, ((0, 0), (0, 1)), constant_values=1
    )
    found: Floats = placed / np.linalg.norm(placed, axis=1, keepdims=True)
    return found


def learned(dims: int, seed: int = 0) -> tuple[FeatureSpace, NDArray[np.float32], list[str]]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(200, dims)).astype(np.float32) + 1
    cameras = [f"d1/s1/b1/c{number % 4}" for number in range(200)]
    space = learn_means(features, cameras)
    basis = learn_basis(space.apply(features, cameras), (np.arange(200) // 4).tolist())
    return FeatureSpace(space.units, space.means, basis), features, cameras


def test_a_camera_s_own_mean_is_taken_off() -> None:
    """(3, 4) has the unit feature (0.6, 0.8). Camera 1's mean (0.6, 0.3) leaves (0, 0.5), whose direction is (0, 1);
    camera 2's (0.1, 0.3) leaves (0.5, 0.5); an unknown camera takes everything's, (0.6, 1.8): (0, -1)."""
    space = FeatureSpace(("", "1", "2"), np.array([[0.6, 1.8], [0.6, 0.3], [0.1, 0.3]]))
    found = space.apply(np.array([[3.0, 4.0]] * 3), ["1", "2", "9"])
    np.testing.assert_allclose(found, [[0, 1], [HALF, HALF], [0, -1]], atol=1e-7)


def test_a_camera_without_a_mean_takes_that_of_its_nearest_unit() -> None:
    """Each unit's mean lies on an axis of its own, so the feature that is left tells which one was taken off."""
    units = ("", "d1", "d1/s1", "d1/s1/b1", "d1/s1/b1/c1")
    space = FeatureSpace(units, 9 * np.eye(5))
    cameras = ["d1/s1/b1/c1", "d1/s1/b1/c10", "d1/s1/b10/c1", "d1/s9/b1/c1", "d2/s1/b1/c1", "d1/s1", ""]
    found = space.apply(np.ones((7, 5)), cameras)
    assert found.argmin(axis=1).tolist() == [4, 3, 2, 1, 0, 2, 0]


def test_the_basis_multiplies_what_is_left_and_a_constant_stands_beside_it() -> None:
    """(0, 0.5) is left, of length 1 (0, 1), times the basis (1.5, 0, 2), and with the constant 7.25**0.5 long."""
    space = FeatureSpace(("",), np.array([[0.6, 0.3]]), Basis(np.array([[1.0, 0.0, 2.0], [1.5, 0.0, 2.0]])))
    found = space.apply(np.array([[6.0, 8.0]]), ["1"])
    assert space.dims == 2 and space.dims_out == 4
    np.testing.assert_allclose(found, np.array([[1.5, 0, 2, 1]]) / 7.25**0.5, atol=1e-7)


def test_features_of_which_little_tells_people_apart_lie_near_each_other() -> None:
    """In the basis east and west are long, north and south short: these two are opposite, and yet near each other."""
    space = FeatureSpace(("",), np.zeros((1, 2)), Basis(np.diag([3.0, 0.1])))
    east, west, north, south = space.apply(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), ["1"] * 4)
    assert east @ west < -0.7 and north @ south > 0.9 and 0.2 < east @ north < 0.5


def test_a_space_of_format_1_computes_what_it_did(tmp_path: Path) -> None:
    """Its basis keeps no length. The digest is that of what it computed before there was a format 2."""
    eighths = np.array([[6, 2, 0, -4], [-3, -8, -7, -8], [-6, 5, 3, 7], [0, 2, 8, 4]])
    means = np.array([[0.25, 0, 0, 0], [0, 0.5, 0, -0.25]])
    FeatureSpace(("", "1"), means, Basis(eighths / 8, length_kept=False)).save(tmp_path)
    assert json.loads((tmp_path / DESCRIPTION).read_text())["format"] == 1
    space = FeatureSpace.open(tmp_path)
    assert space.basis is not None and not space.basis.length_kept and space.dims_out == 4
    features = np.array([[2, 1, 1, 7], [-4, 5, 3, -8], [-2, 6, 1, -8], [5, 4, 6, -6], [-7, 6, -8, 1]])
    found = space.apply(features, ["1", "1", "2", "1", "2"])
    assert sha256(found.tobytes()).hexdigest() == "dd1812aa3457f3ab4e2f92048b37e556fa52307687404df501ea320218af0979"
    np.testing.assert_allclose(found[0], [0.118137, 0.404595, 0.776095, 0.469066], atol=1e-6)


def test_a_recentered_space_takes_off_only_what_sets_a_camera_apart(tmp_path: Path) -> None:
    """(3, 4) has the length 5. Camera 1's mean lies (0.1, -0.2) from everything's, so (0.5, 1.0) times 5 is left."""
    space = FeatureSpace(("", "1"), np.array([[0.5, 0.5], [0.6, 0.3]]), recentered=True)
    space.save(tmp_path)
    for one in (space, FeatureSpace.open(tmp_path)):
        found = one.apply(np.array([[3.0, 4.0], [3.0, 4.0]]), ["1", "9"])
        np.testing.assert_allclose(found, [[2.5, 5.0], [3.0, 4.0]], atol=1e-12)
        assert np.array_equal(one.apply(np.array([[3.0, 4.0]]), ["1"]), found[:1])
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    other, _, _ = learned(2)
    other.save(tmp_path)
    (tmp_path / DESCRIPTION).write_text(
        json.dumps({**json.loads((tmp_path / DESCRIPTION).read_text()), "recentered": described["recentered"]})
    )
    with pytest.raises(ModelFileError, match="is recentered and has a basis"):
        FeatureSpace.open(tmp_path)


@pytest.mark.parametrize("dims", (3, 512))
def test_rounding_is_far_below_that_of_stored_features(dims: int) -> None:
    space, features, cameras = learned(dims)
    assert space.basis is not None
    wanted = by_hand(
        features.astype(np.float64), space.means[[space.units.index(code) for code in cameras]], space.basis.matrix
    )
    np.testing.assert_allclose(space.apply(features, cameras), wanted, atol=1e-6)


@pytest.mark.parametrize("dims", (5, 512))
def test_a_row_has_the_same_bits_alone_among_others_and_on_any_number_of_threads(dims: int) -> None:
    space, features, cameras = learned(dims)
    with threadpool_limits(limits=2):
        whole = space.apply(features, cameras)
    with threadpool_limits(limits=1):
        for rows in (slice(0, 1), slice(7, 8), slice(3, 100), slice(0, 200, 3)):
            np.testing.assert_array_equal(space.apply(features[rows], cameras[rows]), whole[rows])
        np.testing.assert_array_equal(space.apply(np.asfortranarray(features), cameras), whole)
        np.testing.assert_array_equal(space.apply(features.astype(np.float64), cameras), whole)


def test_products_are_exact_for_the_widest_model() -> None:
    """The worst case: 16,000 equal entries against a basis of the largest ones add up below 2**53, in any order."""
    space = FeatureSpace(("",), np.full((1, 16_000), -(16_000**-0.5)), Basis(np.ones((16_000, 2))))
    centered = np.rint(np.full(16_000, 2 * 16_000**-0.5) * 2**24).astype(int).tolist()
    assert space.basis is not None
    column = space.basis._whole[:, 0].astype(int).tolist()
    assert sum(left * right for left, right in zip(centered, column, strict=True)) < 2**53
    assert max(column) > 2**19  # and they are fine


def test_bad_features_are_named() -> None:
    space = FeatureSpace(("",), np.array([[1.0, 0.0]]))
    for row, message in (
        ([0.0, 0.0], "feature 1 is zero"),
        ([np.nan, 0.0], "feature 1 is zero, NaN"),
        ([2.0, 0.0], "feature 1 is its camera's mean"),
    ):
        with pytest.raises(VectorError, match=message):
            space.apply(np.array([[0.0, 1.0], row]), ["1", "1"])
    with pytest.raises(VectorError, match=r"shape \(1, 3\).* takes 2 dims"):
        space.apply(np.ones((1, 3)), ["1"])
    assert space.apply(np.empty((0, 2)), []).shape == (0, 2)


def test_files_hold_the_space_and_are_told_from_others(tmp_path: Path) -> None:
    space, features, cameras = learned(8)
    hashes = space.save(tmp_path / "space")
    again = FeatureSpace.open(tmp_path / "space")
    assert again.units == space.units and json.loads((tmp_path / "space" / DESCRIPTION).read_text())["format"] == 2
    np.testing.assert_array_equal(again.apply(features, cameras), space.apply(features, cameras))
    assert again.save(tmp_path / "again") == hashes and set(hashes) == {ARRAYS, DESCRIPTION}
    bare = FeatureSpace(space.units, space.means)
    bare.save(tmp_path / "bare")
    assert FeatureSpace.open(tmp_path / "bare").basis is None


def test_files_that_are_missing_changed_or_wrong_are_refused(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ModelFileError, match=message):
            FeatureSpace.open(tmp_path)

    refused("cannot be read .*No such file")
    learned(4)[0].save(tmp_path)
    data = (tmp_path / ARRAYS).read_bytes()
    (tmp_path / ARRAYS).write_bytes(data[:-1] + b"\x00")
    refused("its SHA-256 is not the one")
    (tmp_path / ARRAYS).unlink()
    refused("cannot be read")
    bad: tuple[tuple[dict[str, NDArray[np.floating]], str], ...] = (
        ({"means": np.zeros((6, 3))}, "'means' does not fit"),
        ({"means": np.zeros((8, 4), np.float32)}, "'means' does not fit"),
        ({"other": np.zeros(3)}, "'other' does not fit"),
        ({}, "lacks an array"),
        ({"means": np.zeros((8, 4))}, "lacks an array"),
        ({"means": np.full((8, 4), np.inf)}, "not finite"),
    )
    for arrays, message in bad:
        described = _describe(tmp_path, arrays)
        refused(message)
    described["units"] = ["d1"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(described))
    refused("units: .*'' among them|each code once")
    (tmp_path / DESCRIPTION).write_text("[]")
    refused("not a feature space")


def _describe(folder: Path, arrays: dict[str, NDArray[np.floating]]) -> dict[str, object]:
    """Writes files whose hashes agree, whatever the arrays are."""
    from reid_core.tensors import sha256_of

    save_file(arrays, folder / ARRAYS)
    described: dict[str, object] = json.loads((folder / DESCRIPTION).read_text())
    described["sha256"] = sha256_of(folder / ARRAYS)
    (folder / DESCRIPTION).write_text(json.dumps(described))
    return described
