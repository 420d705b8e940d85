"""Requests to the core that serves this home: its core process, or `urban-reid core` on another host.

Importing this module loads no torch. Each request has its own connection. On a Unix socket that costs microseconds, on
a network one way there and back, and no connection has to survive a fork, be shared by threads or outlive a restart of
the core.
"""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from reid_core.serving import wire
from reid_core.serving.token import core_token
from reid_core.serving.unix_socket import UnixConnection
from schemas.addresses import is_private
from schemas.errors import CoreError, CoreUnavailable
from schemas.settings import Settings

#: Seconds to wait for an answer that needs no device.
QUICK_S = 30.0

#: Between two questions to a busy core, seconds.
PAUSE_S = 0.1

#: Status, headers and body.
Answer = tuple[int, http.client.HTTPMessage, bytes]


class CoreClient:
    """The core that serves a home, which need not run."""

    def __init__(self, settings: Settings) -> None:
        """Raises HomeError if the home's path is too long for a socket, or if the core elsewhere has no token here."""
        self._url = settings.core_url
        if self._url is None:
            self._where, self._otherwise = str(wire.socket_path(settings)), "`urban-reid up` starts it"
            self._headers: dict[str, str] = {}
        else:
            self._where, self._otherwise = self._url, "`urban-reid core` serves it on its host"
            self._headers = {"authorization": f"Bearer {core_token(settings)}"}

    @staticmethod
    def is_expected(settings: Settings) -> bool:
        """Whether a core serves this home, or did when its core process was killed."""
        return settings.core_url is not None or settings.core_socket.exists()

    def get(self, path: str, timeout_s: float = QUICK_S) -> Answer:
        """Raises CoreUnavailable if no core answers, CoreError if it takes no request from here."""
        answer = self._request("GET", path, timeout_s, b"", {})
        if answer[0] == 401:
            raise stated_error(answer[0], answer[2])
        return answer

    def opened(self, path: str, within_s: float) -> bytes | None:
        """What the core says of a model or detector; None if no core process answers or it has none at this path.

        Waits while the core is busy or opens it. Raises CoreUnavailable if that takes longer. A core elsewhere is the
        only one: where it does not answer, or has nothing at this path, that raises CoreUnavailable or ModelFileError.
        """
        until = time.monotonic() + within_s
        while True:
            try:
                status, _, body = self.get(path, within_s)
            except CoreUnavailable:
                if self._url is None:
                    return None
                raise
            if status == 200:
                return body
            if status != 503:
                if self._url is None:
                    return None
                raise stated_error(status, body)
            if time.monotonic() > until:
                raise stated_error(status, body)
            time.sleep(PAUSE_S)

    def compute(
        self, path: str, tensor: NDArray[np.generic], deadline_s: float
    ) -> tuple[http.client.HTTPMessage, bytes]:
        """Headers and body of the answer to a tensor. Raises the error that the core states, or CoreUnavailable."""
        headers = {wire.SHAPE: wire.format_shape(tensor.shape), wire.DEADLINE: str(deadline_s)}
        status, answered, body = self._request("POST", path, deadline_s + QUICK_S, tensor.tobytes(), headers)
        if status != 200:
            raise stated_error(status, body)
        return answered, body

    def _request(self, method: str, path: str, timeout_s: float, body: bytes, headers: Mapping[str, str]) -> Answer:
        connection = self._connection(timeout_s)
        try:
            connection.request(method, path, body, {**self._headers, **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            what = "the core process" if self._url is None else "the core"
            raise CoreUnavailable(
                f"{self._where}: {what} does not answer ({reason}); try again", do=self._otherwise
            ) from None
        finally:
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._url is None:
            return UnixConnection("core", self._where, timeout_s)
        parts = urlsplit(self._url)
        assert parts.hostname is not None
        if parts.scheme == "https":
            trusted = ssl.create_default_context()
            return _Encrypted(parts.hostname, parts.port, timeout=timeout_s, context=trusted)
        return _Plain(parts.hostname, parts.port, timeout=timeout_s)


def keep_alive(connection: socket.socket) -> None:
    """Has a connection end within a minute where the other host is gone without a word, also one that only waits."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)


class _Encrypted(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        keep_alive(self.sock)


class _Plain(http.client.HTTPConnection):
    """HTTP without TLS, which does not leave the private network whatever the host's name leads to."""

    def connect(self) -> None:
        super().connect()
        keep_alive(self.sock)
        address = str(self.sock.getpeername()[0])
        if not is_private(address):
            raise CoreError(
                f"URBAN_REID_CORE_URL: {self.host} is {address}, where pictures and the token would go unencrypted; "
                "write https://..."
            )


def stated_error(status: int, body: bytes) -> CoreError:
    """The error that an answer states."""
    try:
        return wire.stated(json.loads(body))
    except (ValueError, KeyError, TypeError):
        return CoreUnavailable(f"the core failed with status {status}; see its log and try again")
