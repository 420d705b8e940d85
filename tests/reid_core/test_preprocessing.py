"""Resizing and normalization, against numbers computed by hand."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reid_core.preprocessing import normalized, prepare
from schemas.cards import InputConvention


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (32, 16), (64, 32), (31, 17), (2000, 1000)])
def test_any_picture_is_resized_to_the_input(size: tuple[int, int]) -> None:
    prepared = prepare(picture(*size), InputConvention(height=32, width=16))
    assert prepared.shape == (32, 16, 3) and prepared.dtype == np.uint8 and prepared.flags.c_contiguous


def test_the_inputs_size_stays_and_half_of_it_is_a_mean() -> None:
    same = picture(32, 16)
    convention = InputConvention(height=32, width=16)
    assert np.array_equal(prepare(same, convention), same)
    double = picture(64, 32)
    means = double.reshape(32, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(prepare(double, convention) - means).max() <= 0.5
    flipped = double[:, ::-1]  # not contiguous, as slices of frames are
    assert np.array_equal(prepare(flipped, convention), prepare(flipped.copy(), convention))


def test_enlarging_interpolates_between_neighbors() -> None:
    row = np.array([[[0, 10, 100]] * 16, [[200, 10, 100]] * 16], np.uint8)  # (2, 16, 3)
    grown = prepare(row, InputConvention(height=32, width=16))
    assert (np.diff(grown[:, 0, 0].astype(int)) >= 0).all() and set(grown[:, 0, 1]) == {10}


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_other_arrays_are_an_error(wrong: NDArray[np.uint8]) -> None:
    with pytest.raises(AssertionError):
        prepare(wrong, InputConvention())


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        (InputConvention(mean=(0, 0, 0), std=(1, 1, 1)), [0.2, 0.4, 1.0]),
        (InputConvention(mean=(0, 0, 0), std=(1, 1, 1), color="bgr"), [1.0, 0.4, 0.2]),
        (InputConvention(mean=(0, 0, 0), std=(1, 1, 1), range=255), [51, 102, 255]),
        (InputConvention(mean=(0.1, 0.2, 0.3), std=(0.5, 1, 2)), [0.2, 0.2, 0.35]),
        # Mean and std are in the order of the colors: blue is first.
        (InputConvention(mean=(5, 2, 1), std=(2, 1, 1), range=255, color="bgr"), [125, 100, 50]),
    ],
)
def test_normalization(convention: InputConvention, expected: list[float]) -> None:
    pictures = np.empty((2, 4, 5, 3), np.uint8)
    pictures[:] = (51, 102, 255)
    found = normalized(torch.from_numpy(pictures), convention)
    assert found.shape == (2, 3, 4, 5) and found.dtype == torch.float32
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float32)[:, None, None].expand(2, 3, 4, 5))
