"""Looks of standing searches: asked for as windows of their units are decided, and answered as searches are.

Nothing is remembered but in the database: what a process misses that is killed, the next one looks at.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import text

from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow
from pipeline.search.answer import Answer, answer
from pipeline.search.client import ask_process
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.errors import ModelChanged
from schemas.logs import in_words

LOOK_EVERY_S = 1.0
#: After a look that failed.
_AFTER_ERROR_S = 10.0
_END_WITHIN_S = 5.0

_DUE = text("SELECT standing, unit FROM due_standing()")
_ASK = text("SELECT ask_standing(:standing, :unit)")

Say = Callable[[str], None]


class Watch:
    """Looks for what standing searches ask for. One process holds it."""

    def __init__(self, store: Store, say: Say) -> None:
        self._store, self._say = store.under(None), say  # of no session: each look is its own standing search's
        self._crops = CropStore(store.settings)
        self._cores: dict[int, ReIDCore] = {}
        self._not_before: dict[tuple[UUID, str], float] = {}

    def look(self, now: float) -> list[Answer]:
        """Answers all that is due. now: seconds of time.monotonic. What fails is said, and tried again later."""
        with self._store.begin() as connection:
            due = connection.execute(_DUE).all()
        found = []
        for row in due:
            one = (row.standing, row.unit)
            if self._not_before.get(one, 0.0) > now:
                continue
            try:
                if (answered := self._ask(*one)) is not None:
                    found.append(answered)
                self._not_before.pop(one, None)
            except ModelChanged:
                continue
            except Exception as error:  # of one search: the others go on
                self._not_before[one] = now + _AFTER_ERROR_S
                self._say(f"standing search {str(row.standing)[:8]} in {row.unit}: {in_words(error)}")
        return found

    def _ask(self, standing: UUID, unit: str) -> Answer | None:
        with self._store.begin() as connection:
            request: UUID | None = connection.scalar(_ASK, {"standing": standing, "unit": unit})
        if request is None:
            return None
        found = ask_process(self._store.settings, request)
        return found or answer(self._store, self._core, self._crops, request)

    def _core(self, model: ModelRow) -> ReIDCore:
        if model.id not in self._cores:
            self._cores[model.id] = open_core(self._store.settings, model.directory(self._store.settings))
        return self._cores[model.id]


@contextmanager
def watching(store: Store, say: Say) -> Iterator[None]:
    """Looks every LOOK_EVERY_S, from a thread of its own, until the block ends."""
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(store, say, ended), name="standing searches", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=_END_WITHIN_S)  # a look that is cut off has written nothing


def _watch(store: Store, say: Say, ended: threading.Event) -> None:
    watch = Watch(store, say)
    while not ended.wait(LOOK_EVERY_S):
        try:
            watch.look(time.monotonic())
        except Exception as error:  # such as a database that is started again; the thread must not end
            say(in_words(error))
            ended.wait(_AFTER_ERROR_S)
