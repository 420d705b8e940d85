"""The embedders of a home: loaded on first use, and the one thread that computes with them, in order of arrival."""

import importlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reid_core.core_process.folders import Folders
from reid_core.core_process.loaded import Loaded
from reid_core.core_process.places import Places
from reid_core.files import model_digest, open_space, read_card
from reid_core.serving.arithmetic import check_arithmetic
from schemas.errors import ModelFileError
from schemas.settings import Settings

#: Requests at a time, of up to 8 MB each; one more is refused.
QUEUE = 32

if TYPE_CHECKING:
    from reid_core.serving.local import LocalCore

Job = Callable[["LocalCore"], NDArray[np.floating]]
Result = tuple[NDArray[np.floating], float]


class Embedders(Places):
    def __init__(self, settings: Settings) -> None:
        super().__init__(QUEUE)
        self.settings = settings
        self.folders = Folders(settings.models_dir, digest_of)
        self._cores: Loaded[LocalCore] = Loaded()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedding")
        # torch takes seconds to import: that begins now, and the socket answers meanwhile.
        self._worker.submit(importlib.import_module, "reid_core.serving.local")

    def find(self, digest: str) -> None:
        """Raises ModelFileError unless the home has an undamaged model with this digest."""
        self.folders.find(digest)

    def embed(self, digest: str, pictures: NDArray[np.uint8]) -> Future[Result]:
        """Queues pictures, uint8 (n, H, W, 3), for features, float32 (n, D). See `submit`."""
        return self.submit(digest, lambda core: core.embed(pictures))

    def distances(self, digest: str, pairs: NDArray[np.float64]) -> Future[Result]:
        """Queues pairs, float64 (2, n, D), for distances, float64 (n,). See `submit`."""
        return self.submit(digest, lambda core: core.distances(pairs[0], pairs[1]))

    def load(self, digest: str) -> None:
        """Loads a model now, and waits for that. Raises ModelFileError, CoreError."""
        self._worker.submit(self._core, digest).result()

    def submit(self, digest: str, job: Job) -> Future[Result]:
        """Queues a job, whose result is an array and the seconds that it computed.

        The caller's place in the queue is given back when the job ends, or is canceled before it begins.
        """
        future = self._worker.submit(self._compute, digest, job)
        future.add_done_callback(lambda _: self.leave())
        return future

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)

    def _compute(self, digest: str, job: Job) -> Result:
        core = self._core(digest)
        before = core.seconds
        return job(core), core.seconds - before

    def _core(self, digest: str) -> "LocalCore":
        try:
            folder = self.folders.find(digest)
        except ModelFileError:
            self._cores.drop(digest)  # removed, or changed, since it was loaded
            raise
        core = self._cores.find(digest, lambda: self._open(folder))
        if core.card.feature_space is not None:  # its base's network is in use with it
            self._cores.touch(core.card.feature_space.base)
        return core

    def _open(self, folder: Path) -> "LocalCore":
        """A feature space computes with its base's core; where that is not here, its own folder is whole."""
        from reid_core.serving.local import LocalCore

        card = read_card(folder)
        check_arithmetic(self.settings, card)
        if card.feature_space is not None:
            with suppress(ModelFileError):
                return self._core(card.feature_space.base).in_space(card, open_space(folder, card))
        return LocalCore.open(self.settings, folder)


def digest_of(folder: Path) -> str:
    return model_digest(read_card(folder)).hex()
