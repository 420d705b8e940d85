"""The Re-ID core in another process: the client of `service.py`. Importing this module loads no torch.

Each request has its own connection. On a Unix socket that costs microseconds, and no connection has to survive a fork,
be shared by threads or outlive a restart of the core process.
"""

import http.client
import json
import socket
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.files import model_digest
from reid_core.serving import wire
from reid_core.serving.checks import check_pairs, check_pictures
from reid_core.serving.core import CPU_BATCH_SIZE, CUDA_BATCH_SIZE
from schemas.cards import ModelCard
from schemas.errors import CoreError, CoreUnavailable
from schemas.settings import Settings

#: Seconds to wait for an answer that needs no device.
_QUICK_S = 30.0


class RemoteCore:
    """A `ReIDCore` whose device is owned by the home's core process; see there for `embed` and `distances`.

    Raises CoreUnavailable, after which another try may succeed, if that process does not answer, is busy, or ends.
    """

    def __init__(self, settings: Settings, card: ModelCard, *, deadline_s: float = wire.DEADLINE_S) -> None:
        """`deadline_s`: how long one chunk may wait and compute, seconds."""
        self.card = card
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._deadline_s = deadline_s
        # The process's device is unknown here: whole batches on CUDA are also whole batches on a CPU.
        self._batch_sizes = (settings.batch_size,) if settings.batch_size else (CUDA_BATCH_SIZE, CPU_BATCH_SIZE)
        self._path = f"/models/{model_digest(card).hex()}"
        self._socket = str(wire.socket_path(settings))

    @classmethod
    def connect(cls, settings: Settings, card: ModelCard) -> "RemoteCore | None":
        """The model with this card in the core process; None if no process answers or it has no such model."""
        if not settings.core_socket.exists():
            return None
        core = cls(settings, card)
        try:
            status, _, _ = core._request("GET", core._path, _QUICK_S)
        except CoreUnavailable:
            return None
        return core if status == 200 else None

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        check_pictures(pictures, self.card)
        features = np.empty((len(pictures), self.card.dims), np.float32)
        # Whole batches, because the process pads incomplete ones.
        rows = _rows(pictures[:1].nbytes, *self._batch_sizes)
        for start in range(0, len(pictures), rows):
            part = features[start : start + rows]
            part[:] = self._compute("embed", pictures[start : start + rows], part)
        return features

    def distances(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        check_pairs(left, right, self.card)
        found = np.empty(len(left), np.float64)
        rows = _rows(2 * 8 * self.card.dims, 64)
        for start in range(0, len(left), rows):
            part = found[start : start + rows]
            pairs = np.stack([left[start : start + rows], right[start : start + rows]]).astype(np.float64, copy=False)
            part[:] = self._compute("distances", pairs, part)
        return found

    def _compute(self, what: str, tensor: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
        """The process's result for `tensor`, an array of the shape and dtype of `like`."""
        headers = {wire.SHAPE: wire.format_shape(tensor.shape), wire.DEADLINE: str(self._deadline_s)}
        path = f"{self._path}/{what}"
        status, answered, body = self._request("POST", path, self._deadline_s + _QUICK_S, tensor.tobytes(), headers)
        if status != 200:
            raise _error(status, body)
        with self._lock:
            self.seconds += float(answered[wire.SECONDS])
        shape = wire.parse_shape(answered[wire.SHAPE], like.itemsize, len(body))
        return np.frombuffer(body, like.dtype).reshape(shape)

    def _request(
        self, method: str, path: str, timeout_s: float, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of the answer. Raises CoreUnavailable if there is none."""
        connection = _UnixConnection(self._socket, timeout_s)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise CoreUnavailable(
                f"{self._socket}: the core process does not answer ({reason}); try again, or start `urban-reid up`"
            ) from None
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("core", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        # Assigned before it connects, so that closing this object closes it even if connecting fails.
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _rows(row_bytes: int, *multiples: int) -> int:
    """Rows of a chunk: a multiple of the first of `multiples` that fits, otherwise as many as fit, and at least 1."""
    fitting = max(1, wire.CHUNK_BYTES // max(1, row_bytes))
    return next((fitting // multiple * multiple for multiple in multiples if multiple <= fitting), fitting)


def _error(status: int, body: bytes) -> CoreError:
    """The error that an answer states."""
    try:
        said = json.loads(body)
        return wire.ERRORS[said["error"]](said["message"])
    except (ValueError, KeyError, TypeError):
        return CoreUnavailable(f"the core process failed with status {status}; see its log and try again")
