"""The Re-ID core in another process: the client of `service.py`. Importing this module loads no torch.

Notable: a connection per request. On a Unix socket it costs microseconds, and nothing has to survive a fork, a thread
or the other side's restart.
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
from schemas.cards import ModelCard
from schemas.errors import CoreError, CoreUnavailable
from schemas.settings import Settings

#: Seconds to wait for an answer that needs no device.
_QUICK_S = 30.0


class RemoteCore:
    """A `ReIDCore` whose device is owned by the home's core process; see there for `embed` and `distances`.

    Raises CoreUnavailable, worth another try, where that process does not answer, is busy, or ends in the middle.
    """

    def __init__(self, settings: Settings, card: ModelCard, *, deadline_s: float = wire.DEADLINE_S) -> None:
        """`deadline_s`: how long one chunk may wait and compute."""
        self.card = card
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._deadline_s = deadline_s
        self._batch_size = settings.batch_size
        self._path = f"/models/{model_digest(card).hex()}"
        self._socket = str(wire.socket_path(settings))

    @classmethod
    def connect(cls, settings: Settings, card: ModelCard) -> "RemoteCore | None":
        """The core process's model of this card; None where no process answers or it has no such model."""
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
        # Whole batches, since the process pads what is left of one.
        rows = _rows(pictures[:1].nbytes, self._batch_size)
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
        """What the process computes from `tensor`: an array of the shape and type of `like`."""
        headers = {wire.SHAPE: wire.format_shape(tensor.shape), wire.DEADLINE: str(self._deadline_s)}
        path = f"{self._path}/{what}"
        status, answered, body = self._request("POST", path, self._deadline_s + _QUICK_S, tensor.tobytes(), headers)
        if status != 200:
            raise _refusal(status, body)
        with self._lock:
            self.seconds += float(answered[wire.SECONDS])
        shape = wire.parse_shape(answered[wire.SHAPE], like.itemsize, len(body))
        return np.frombuffer(body, like.dtype).reshape(shape)

    def _request(
        self, method: str, path: str, timeout_s: float, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of the answer. Raises CoreUnavailable."""
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
        # Kept before it connects, so that closing this object closes it however connecting ends.
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _rows(row_bytes: int, multiple: int) -> int:
    """Rows of a chunk: as many times `multiple` as fit, or fewer than one of them, and at least 1."""
    fitting = max(1, wire.CHUNK_BYTES // max(1, row_bytes))
    return fitting // multiple * multiple or fitting


def _refusal(status: int, body: bytes) -> CoreError:
    try:
        said = json.loads(body)
        return wire.ERRORS[said["error"]](said["message"])
    except (ValueError, KeyError, TypeError):
        return CoreUnavailable(f"the core process failed with status {status}; see its log and try again")
