"""The models that a process has loaded, as long as somebody asks for them."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

#: A model that nobody asked for so long is dropped when another one is loaded, seconds.
IDLE_S = 3600.0

Model = TypeVar("Model")


class Loaded(Generic[Model]):
    """Models by digest, for one thread. Those of before a promotion go, but for the one that was asked for last."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}  # the one that was asked for last, last
        self._asked_at: dict[str, float] = {}

    def find(self, digest: str, load: Callable[[], Model]) -> Model:
        """The model with this digest, loaded if it is not there."""
        model = self._models.pop(digest, None)
        if model is None:
            self._leave_idle()
            model = load()
        self._models[digest] = model
        self.touch(digest)
        return model

    def touch(self, digest: str) -> None:
        """Takes note that a model is asked for, if it is there."""
        self._asked_at[digest] = time.monotonic()

    def drop(self, digest: str) -> None:
        self._models.pop(digest, None)

    def _leave_idle(self) -> None:
        before = time.monotonic() - IDLE_S
        for digest in list(self._models)[:-1]:
            if self._asked_at[digest] <= before:
                del self._models[digest]
