"""A detection network in the core process. Importing this module loads no engine."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_core.detection.detector import Found, PictureInput
from reid_core.detection.files import digest_of
from reid_core.serving import wire
from reid_core.serving.client import CoreClient
from schemas.settings import Settings

#: How long the pictures of one request may wait and be looked at, seconds: later nobody needs a live frame's people.
DEADLINE_S = 60.0


class RemoteModel:
    """A `DetectionModel` whose device is owned by the home's core process.

    `find` raises CoreUnavailable, after which another try may succeed, if that process does not answer, is busy, or
    ends.
    """

    def __init__(self, client: CoreClient, path: str, found: PictureInput, sure: float, name: str) -> None:
        self._client, self._path = client, path
        self.input, self.sure, self.name = found, sure, name

    @classmethod
    def connect(cls, settings: Settings, file: Path) -> "RemoteModel | None":
        """The detector with this file in the home's core; None if no core process answers or it has no such detector.

        Waits while the core is busy, because many cameras begin at once, and each would load the network itself.
        Raises CoreUnavailable if it stays so. With URBAN_REID_CORE_URL it raises also where there is no such detector.
        """
        if not CoreClient.is_expected(settings):
            return None
        client, path = CoreClient(settings), f"/detectors/{digest_of(file)}"
        body = client.opened(path, DEADLINE_S)
        if body is None:
            return None
        said = json.loads(body)
        return cls(client, path, PictureInput(**said["input"]), said["sure"], said["name"])

    def find(self, pictures: NDArray[np.uint8]) -> list[Found]:
        found: list[Found] = []
        step = wire.rows_of_chunk(pictures[:1].nbytes)
        for start in range(0, len(pictures), step):
            part = pictures[start : start + step]
            answered, body = self._client.compute(f"{self._path}/find", part, DEADLINE_S)
            rows = np.frombuffer(body, np.float64).reshape(wire.parse_shape(answered[wire.SHAPE], 8, len(body)))
            found += [rows[rows[:, 0] == number, 1:] for number in range(len(part))]
        return found
