"""The interface of the Re-ID core: pictures to features, pairs of features to distances.

`factory.open_core` opens one. Importing this module loads no torch.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.cards import ModelCard


class ReIDCore(Protocol):
    """One model on one device. Safe to call from several threads, which then wait for each other.

    `seconds` counts what the device spent computing for this object, without waiting in a queue.
    """

    card: ModelCard
    seconds: float

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw post-BN features, float32 (N, D), of prepared pictures, uint8 RGB (N, H, W, 3).

        A picture's feature does not depend on its neighbors. Raises VectorError for a feature that the store would
        not hold, OutOfDeviceMemory, and CoreUnavailable where the core is another process.
        """
        ...

    def distances(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Test distances, float64 (n,) in 0..2, of the row pairs left, right (n, D): left is the query's side.

        Attended where the model has diff attention, else Euclidean of the L2-normalized rows; float64 throughout, and
        the same bits for a row pair whatever the others are.
        """
        ...


def symmetric_distances(core: ReIDCore, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the distances in both orders: inside the city no side is the query (paper, 'Diff attention module')."""
    if core.card.diff_attention is None:
        return core.distances(left, right)  # symmetric as it is
    return (core.distances(left, right) + core.distances(right, left)) / 2
