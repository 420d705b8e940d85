"""The detectors of a home: loaded on first use, and the one thread that runs them.

Requests of several cameras that wait for one detector run as one batch, so that a device with room for several pictures
gets them together. They wait in order of arrival, whichever camera they are from.
"""

import queue
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reid_core.core_process.folders import Folders
from reid_core.core_process.loaded import Loaded
from reid_core.core_process.places import Places
from reid_core.detection.detector import DetectionModel, Found, PictureInput, find_people
from reid_core.detection.files import detector_file, digest_of
from reid_core.detection.opening import open_model
from schemas.errors import ModelFileError
from schemas.settings import Settings

#: Requests at a time, mostly of one picture each, of as many cameras; one more is refused.
QUEUE = 128
#: Pictures of one batch, unless a single request has more.
MOST_PICTURES = 32


class Described(Protocol):
    """What is said of a detector: see `DetectionModel`."""

    @property
    def input(self) -> PictureInput: ...

    @property
    def sure(self) -> float: ...

    @property
    def name(self) -> str: ...


#: The detector, what it found in each picture, and the seconds that it computed.
Result = tuple[Described, list[Found], float]


@dataclass(frozen=True)
class _Request:
    digest: str
    pictures: NDArray[np.uint8]
    future: Future[Result] = field(default_factory=Future)


class Detectors(Places):
    def __init__(self, settings: Settings) -> None:
        super().__init__(QUEUE)
        self.settings = settings
        self._folders = Folders(settings.detectors_dir, lambda folder: digest_of(detector_file(folder)))
        self._models: Loaded[DetectionModel] = Loaded()
        self._waiting: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="detection", daemon=True)
        self._thread.start()

    def submit(self, digest: str, pictures: NDArray[np.uint8]) -> Future[Result]:
        """Queues pictures (n, h, w, 3) of one size, or none to learn about the detector.

        The caller's place in the queue is given back when they are done, or canceled before that began.
        """
        request = _Request(digest, pictures)
        request.future.add_done_callback(lambda _: self.leave())
        self._waiting.put(request)
        return request.future

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        waiting: deque[_Request | None] = deque()
        while True:
            first = waiting.popleft() if waiting else self._waiting.get()
            while not self._waiting.empty():
                waiting.append(self._waiting.get())
            if first is None:
                break
            batch, others = [first], deque[_Request | None]()
            for request in waiting:
                fits = request is not None and _together(batch, request)
                (batch if fits else others).append(request)  # type: ignore[arg-type]
            waiting = others
            self._run([request for request in batch if request.future.set_running_or_notify_cancel()])
        for request in waiting:
            if request is not None:
                request.future.cancel()

    def _run(self, batch: list[_Request]) -> None:
        if not batch:
            return
        try:
            model = self._model(batch[0].digest)
            pictures = np.concatenate([request.pictures for request in batch])
            began = time.perf_counter()
            found = find_people(model, pictures) if len(pictures) else []
            seconds = (time.perf_counter() - began) / max(1, len(pictures))
        except BaseException as error:  # each of the requests learns of it
            for request in batch:
                request.future.set_exception(error)
            return
        for request in batch:
            count = len(request.pictures)
            request.future.set_result((model, found[:count], seconds * count))
            found = found[count:]

    def _model(self, digest: str) -> DetectionModel:
        try:
            folder = self._folders.find(digest)
        except ModelFileError:
            self._models.drop(digest)  # removed, or changed, since it was loaded
            raise
        return self._models.find(digest, lambda: open_model(detector_file(folder), self.settings))


def _together(batch: list[_Request], request: _Request) -> bool:
    """Whether a request can run in one batch with others."""
    first = batch[0]
    pictures = sum(len(other.pictures) for other in batch) + len(request.pictures)
    same = request.digest == first.digest and request.pictures.shape[1:] == first.pictures.shape[1:]
    return same and pictures <= MOST_PICTURES
