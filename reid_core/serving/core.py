"""The Re-ID core as everything above sees it: pictures in, features out; feature pairs in, distances out.

`open_core` gives the one core process of `urban-reid up` where it answers, else a core in this process. Importing this
module loads no torch.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reid_core.files import read_card
from schemas.cards import ModelCard
from schemas.errors import CoreError, VectorError
from schemas.settings import Settings

#: Largest value that half precision holds, and with it the store.
LARGEST = 65_504.0


class ReIDCore(Protocol):
    """One model on one device. Safe to call from several threads, which then wait for each other.

    `seconds` counts what the device spent computing for this object, without waiting in a queue.
    """

    card: ModelCard
    seconds: float

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw post-BN features, float32 (N, D), of prepared pictures, uint8 RGB (N, H, W, 3).

        A picture's feature does not depend on its neighbours. Raises VectorError for a feature that the store would
        not hold, OutOfDeviceMemory, and CoreUnavailable where the core is another process.
        """
        ...

    def distances(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Test distances, float64 (n,) in 0..2, of the row pairs left, right (n, D): left is the query's side.

        Attended where the model has diff attention, else Euclidean of the L2-normalised rows; float64 throughout, and
        the same bits for a row pair whatever the others are.
        """
        ...


def symmetric_distances(core: ReIDCore, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the distances in both orders: inside the city no side is the query (paper, 'Diff attention module')."""
    if core.card.diff_attention is None:
        return core.distances(left, right)  # symmetric as it is
    return (core.distances(left, right) + core.distances(right, left)) / 2


def open_core(settings: Settings, model_directory: Path) -> ReIDCore:
    """The core for a model directory: the home's core process where it has this model, else one in this process.

    Raises ModelFileError.
    """
    from reid_core.serving.remote import RemoteCore

    remote = RemoteCore.connect(settings, read_card(model_directory))
    if remote is not None:
        return remote
    from reid_core.serving.local import LocalCore

    return LocalCore.open(settings, model_directory)


def check_pictures(pictures: NDArray[np.uint8], card: ModelCard) -> None:
    """Raises CoreError unless `pictures` are prepared for this model: uint8 (n, H, W, 3)."""
    expected = (card.input.height, card.input.width, 3)
    if pictures.dtype != np.uint8 or pictures.shape[1:] != expected:
        raise CoreError(
            f"pictures of {pictures.dtype} {pictures.shape}; model {card.name} takes uint8 {('n', *expected)}"
        )


def check_pairs(left: NDArray[np.float64], right: NDArray[np.float64], card: ModelCard) -> None:
    """Raises VectorError unless both sides are sound vectors of this model, in equal number."""
    for side in (left, right):
        check_vectors(side, card.dims, f"distances of model {card.name}")
    if len(left) != len(right):
        raise VectorError(f"distances of model {card.name}: {len(left)} vectors on the left, {len(right)} on the right")


def check_vectors(vectors: NDArray[np.floating], dims: int, what: str) -> None:
    """Raises VectorError unless `vectors` is (n, dims), finite, no row zero in half precision, none over 65,504."""
    if vectors.ndim != 2 or vectors.shape[1] != dims:
        raise VectorError(f"{what}: an array of shape {vectors.shape}; this model's vectors have {dims} dims")
    largest = np.abs(vectors).max(axis=1, initial=0.0)  # NaN stays NaN
    # Half of the smallest number of half precision rounds to zero there.
    for wrong, why in (
        (np.isnan(largest), "holds NaN"),
        (largest > LARGEST, f"holds a value over {LARGEST:.0f}"),
        (largest <= 2.0**-25, "is zero"),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise VectorError(f"{what}: vector {row} of {len(vectors)} {why}; check the model and its input convention")
