"""Requests to the home's core process. Importing this module loads no torch.

Each request has its own connection. On a Unix socket that costs microseconds, and no connection has to survive a fork,
be shared by threads or outlive a restart of the core process.
"""

import http.client
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reid_core.serving import wire
from reid_core.serving.unix_socket import UnixConnection
from schemas.errors import CoreError, CoreUnavailable
from schemas.settings import Settings

#: Seconds to wait for an answer that needs no device.
QUICK_S = 30.0

#: Status, headers and body.
Answer = tuple[int, http.client.HTTPMessage, bytes]


class CoreClient:
    """The core process of a home, which need not run."""

    def __init__(self, settings: Settings) -> None:
        """Raises HomeError if the home's path is too long for a socket."""
        self._socket = str(wire.socket_path(settings))

    def get(self, path: str, timeout_s: float = QUICK_S) -> Answer:
        """Raises CoreUnavailable if no process answers."""
        return self._request("GET", path, timeout_s, b"", {})

    def compute(
        self, path: str, tensor: NDArray[np.generic], deadline_s: float
    ) -> tuple[http.client.HTTPMessage, bytes]:
        """Headers and body of the answer to a tensor. Raises the error that the process states, or CoreUnavailable."""
        headers = {wire.SHAPE: wire.format_shape(tensor.shape), wire.DEADLINE: str(deadline_s)}
        status, answered, body = self._request("POST", path, deadline_s + QUICK_S, tensor.tobytes(), headers)
        if status != 200:
            raise _error(status, body)
        return answered, body

    def _request(self, method: str, path: str, timeout_s: float, body: bytes, headers: Mapping[str, str]) -> Answer:
        connection = UnixConnection("core", self._socket, timeout_s)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise CoreUnavailable(
                f"{self._socket}: the core process does not answer ({reason}); try again, or start `urban-reid up`"
            ) from None
        finally:
            connection.close()


def _error(status: int, body: bytes) -> CoreError:
    """The error that an answer states."""
    try:
        said = json.loads(body)
        return wire.ERRORS[said["error"]](said["message"])
    except (ValueError, KeyError, TypeError):
        return CoreUnavailable(f"the core process failed with status {status}; see its log and try again")
