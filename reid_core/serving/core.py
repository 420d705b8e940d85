"""The interface of the Re-ID core: pictures to features, pairs of features to distances.

`factory.open_core` opens one: a `local.LocalCore` or a `remote.RemoteCore`. Importing this module loads no torch.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reid_core.feature_space import FeatureSpace
from schemas.cards import ModelCard

#: Pictures in one padded batch of a torch model, unless the settings say otherwise. Stored features depend on it in
#: their last bits, so the CPU's stays as it is.
CPU_BATCH_SIZE = 16
CUDA_BATCH_SIZE = 64


class ReIDCore(Protocol):
    """One model on one device. Safe to call from several threads, which then wait for each other.

    space: what raw features go through before they are compared; None: they are compared as they are.
    seconds: what the device has spent computing for this object, without waiting in a queue.
    """

    card: ModelCard
    space: FeatureSpace | None
    seconds: float

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw post-BN features, float32 (N, card.raw_dims), of prepared pictures, uint8 RGB (N, H, W, 3).

        A picture's feature does not depend on the other pictures. Raises VectorError for a feature that the store
        cannot hold, OutOfDeviceMemory, and CoreUnavailable if the core is another process that does not answer.
        """
        ...

    def distances(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Test distances, float64 (n,) in 0..2, of the row pairs left, right (n, D); left is the query's side.

        The rows are features as they are compared (`compared_features`), or means of such.

        Attended distances if the model has diff attention, otherwise Euclidean distances of the L2-normalized rows.
        Computed in float64, with the same bits for a row pair whatever the other pairs are.
        """
        ...


def compared_features(core: ReIDCore, raw: NDArray[np.floating], cameras: Sequence[str]) -> NDArray[np.float64]:
    """Features as the core compares them, float64 (n, D), of raw ones (n, card.raw_dims) and their n cameras' codes.

    A feature's result depends on itself and its camera alone. For a picture from no camera the code is that of a unit.
    Raises VectorError.
    """
    if not len(raw):
        return np.empty((0, core.card.dims))
    features = np.asarray(raw, np.float64)
    return features if core.space is None else core.space.apply(features, cameras)


def symmetric_distances(core: ReIDCore, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the distances in both orders, because in the city neither side is the query.

    left, right: (n, D); returns float64 (n,). See the paper, 'Diff attention module'.
    """
    if core.card.diff_attention is None:
        return core.distances(left, right)  # symmetric already
    assert left.shape == right.shape, f"{left.shape} and {right.shape}"
    there, back = np.split(core.distances(np.concatenate([left, right]), np.concatenate([right, left])), 2)
    return (there + back) / 2
