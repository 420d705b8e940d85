"""A camera for tests: JPEG frames over RTSP on loopback, interleaved in the TCP connection, behind a password.

It implements as much of RFC 2326 (RTSP), RFC 2617 (Basic) and RFC 2435 (JPEG in RTP) as a real client needs.
"""

import base64
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

USER, PASSWORD = "watchman", "s3cret/?@:word"
_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track1\r\n"


class Camera:
    """Serves `frames`, ten a second, `plays` times, and is gone then. `authorized`: a client gave the password."""

    def __init__(self, frames: Sequence[NDArray[np.uint8]], plays: int = 1) -> None:
        self.frames, self.plays = frames, plays
        self.authorized = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"rtsp://127.0.0.1:{self._socket.getsockname()[1]}/street"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                try:
                    self._talk(connection)
                except OSError:
                    continue

    def _talk(self, connection: socket.socket) -> None:
        reader = connection.makefile("rb")
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        while request := reader.readline().decode():
            headers = {}
            while line := reader.readline().decode().strip():
                key, _, value = line.partition(":")
                headers[key.strip().lower()] = value.strip()
            method = request.split()[0]
            answer, body = "200 OK", ""
            extra = "Session: 1\r\n"
            if headers.get("authorization") != expected and method != "OPTIONS":
                answer, extra = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
            elif method == "OPTIONS":
                extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif method == "DESCRIBE":
                self.authorized = True
                body = _SDP
                extra = f"Content-Type: application/sdp\r\nContent-Base: {self.address}/\r\n"
            elif method == "SETUP":
                extra += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            head = f"RTSP/1.0 {answer}\r\nCSeq: {headers['cseq']}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
            connection.sendall((head + body).encode())
            if method == "PLAY" and answer == "200 OK":
                self.plays -= 1
                if not self.plays:
                    self.close()
                self._play(connection)
                return

    def _play(self, connection: socket.socket) -> None:
        sequence = 0
        for number, frame in enumerate(self.frames):
            width, height, tables, scan = _jpeg_parts(frame)
            for start in range(0, len(scan), 1400):
                part = scan[start : start + 1400]
                last = start + 1400 >= len(scan)
                payload = struct.pack(">I", start) + bytes([1, 255, width // 8, height // 8])
                payload += (struct.pack(">BBH", 0, 0, 128) + tables if start == 0 else b"") + part
                header = struct.pack(">BBHII", 0x80, 26 | (last << 7), sequence, number * 9000, 1)
                connection.sendall(struct.pack(">cBH", b"$", 0, len(header + payload)) + header + payload)
                sequence += 1
            time.sleep(0.1)  # 10 frames/s


def _jpeg_parts(frame: NDArray[np.uint8]) -> tuple[int, int, bytes, bytes]:
    """Width, height, the two quantization tables, and the scan of a frame as baseline JPEG 4:2:0."""
    done, encoded = cv2.imencode(
        ".jpg", frame, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    )
    assert done
    data, tables, at = encoded.tobytes(), b"", 2
    while True:
        marker, length = struct.unpack(">HH", data[at : at + 4])
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xFFDB:
            tables += b"".join(body[start + 1 : start + 65] for start in range(0, len(body), 65))
        if marker == 0xFFDA:
            return frame.shape[1], frame.shape[0], tables, data[at:]


@contextmanager
def camera(frames: Sequence[NDArray[np.uint8]], plays: int = 1) -> Iterator[Camera]:
    """A camera that serves `frames` until the context ends."""
    serving = Camera(frames, plays)
    try:
        yield serving
    finally:
        serving.close()
