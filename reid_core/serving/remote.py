"""The Re-ID core in another process, here or on another host. Importing this module loads no torch."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.feature_space import FeatureSpace
from reid_core.files import model_digest
from reid_core.serving import wire
from reid_core.serving.checks import check_pairs, check_pictures
from reid_core.serving.client import CoreClient
from reid_core.serving.core import CPU_BATCH_SIZE, CUDA_BATCH_SIZE
from schemas.cards import ModelCard
from schemas.settings import Settings

#: How long a core elsewhere may take to open a model that is asked for first, seconds.
OPENS_WITHIN_S = 600.0


class RemoteCore:
    """A `ReIDCore` whose device is owned by the home's core process or `urban-reid core`; see there for its methods.

    Raises CoreUnavailable, after which another try may succeed, if that core does not answer, is busy, or ends.
    """

    def __init__(
        self,
        settings: Settings,
        card: ModelCard,
        space: FeatureSpace | None = None,
        *,
        deadline_s: float = wire.DEADLINE_S,
    ) -> None:
        """`space`: that of the model. `deadline_s`: how long one chunk may wait and compute, seconds."""
        self.card = card
        self.space = space
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._deadline_s = deadline_s
        # The process's device is unknown here: whole batches on CUDA are also whole batches on a CPU.
        self._batch_sizes = (settings.batch_size,) if settings.batch_size else (CUDA_BATCH_SIZE, CPU_BATCH_SIZE)
        self._path = f"/models/{model_digest(card).hex()}"
        self._client = CoreClient(settings)

    @classmethod
    def connect(cls, settings: Settings, card: ModelCard, space: FeatureSpace | None = None) -> "RemoteCore | None":
        """The model with this card in the home's core; None if no core process answers or it has no such model.

        With URBAN_REID_CORE_URL it waits while that core opens the model, and raises CoreUnavailable if it does not
        answer, ModelFileError if it has no such model, CoreError if it takes no request from here.
        """
        if not CoreClient.is_expected(settings):
            return None
        core = cls(settings, card, space)
        return None if core._client.opened(core._path, OPENS_WITHIN_S) is None else core

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        check_pictures(pictures, self.card)
        features = np.empty((len(pictures), self.card.raw_dims), np.float32)
        # Whole batches, because the process pads incomplete ones.
        rows = wire.rows_of_chunk(pictures[:1].nbytes, *self._batch_sizes)
        for start in range(0, len(pictures), rows):
            part = features[start : start + rows]
            part[:] = self._compute("embed", pictures[start : start + rows], part)
        return features

    def distances(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        check_pairs(left, right, self.card)
        found = np.empty(len(left), np.float64)
        rows = wire.rows_of_chunk(2 * 8 * self.card.dims, 64)
        for start in range(0, len(left), rows):
            part = found[start : start + rows]
            pairs = np.stack([left[start : start + rows], right[start : start + rows]]).astype(np.float64, copy=False)
            part[:] = self._compute("distances", pairs, part)
        return found

    def _compute(self, what: str, tensor: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
        """The process's result for `tensor`, an array of the shape and dtype of `like`."""
        answered, body = self._client.compute(f"{self._path}/{what}", tensor, self._deadline_s)
        with self._lock:
            self.seconds += float(answered[wire.SECONDS])
        shape = wire.parse_shape(answered[wire.SHAPE], like.itemsize, len(body))
        return np.frombuffer(body, like.dtype).reshape(shape)
