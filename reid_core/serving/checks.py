"""Checks of the pictures and features that go into a core, and of the features that come out of it."""

import numpy as np
from numpy.typing import NDArray

from schemas.cards import ModelCard
from schemas.errors import CoreError, VectorError

#: Largest value of half precision, in which the database stores features.
LARGEST = 65_504.0


def check_pictures(pictures: NDArray[np.uint8], card: ModelCard) -> None:
    """Raises CoreError unless `pictures` are prepared for this model: uint8 (n, H, W, 3) of its height and width."""
    expected = (card.input.height, card.input.width, 3)
    if pictures.dtype != np.uint8 or pictures.shape[1:] != expected:
        raise CoreError(
            f"pictures of {pictures.dtype} {pictures.shape}; model {card.name} takes uint8 {('n', *expected)}"
        )


def check_pairs(left: NDArray[np.float64], right: NDArray[np.float64], card: ModelCard) -> None:
    """Raises VectorError unless both sides pass `check_vectors` and have equally many rows."""
    for side in (left, right):
        check_vectors(side, card.dims, f"distances of model {card.name}")
    if len(left) != len(right):
        raise VectorError(f"distances of model {card.name}: {len(left)} vectors on the left, {len(right)} on the right")


def check_vectors(vectors: NDArray[np.floating], dims: int, what: str) -> None:
    """Raises VectorError unless `vectors` is (n, dims), finite, and in half precision without overflow or zero rows.

    `what`: beginning of the message.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dims:
        raise VectorError(f"{what}: an array of shape {vectors.shape}; this model's vectors have {dims} dims")
    largest = np.maximum(vectors.max(axis=1, initial=0.0), -vectors.min(axis=1, initial=0.0))  # NaN stays NaN
    if ((largest > 2.0**-25) & (largest <= LARGEST)).all():
        return
    # Values up to half of half precision's smallest number round to zero there.
    for wrong, why in (
        (np.isnan(largest), "holds NaN"),
        (largest > LARGEST, f"holds a value over {LARGEST:.0f}"),
        (largest <= 2.0**-25, "is zero"),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise VectorError(f"{what}: vector {row} of {len(vectors)} {why}; check the model and its input convention")
