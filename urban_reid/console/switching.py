"""Models that come into use while the pages go on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock, Thread

from schemas.errors import InputError, UrbanReidError
from schemas.text import said


@dataclass
class Switching:
    """A promotion or a rollback that goes on beside the pages, one at a time."""

    words: str = ""  # what it does, or did
    done: int = 0
    of: int = 0
    working: bool = False
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _lock: Lock = field(default_factory=Lock)

    def begin(self, words: str, work: Callable[[Callable[[int, int], None]], str]) -> Thread:
        """Starts `work`, which returns how it ended, in the thread returned. Raises InputError while one goes on."""
        with self._lock:
            if self.working:
                raise InputError(f"wait for the one that goes on: {self.words}")
            self.working, self.words, self.done, self.of = True, words, 0, 0
        thread = Thread(target=self._run, args=(work,), name="model switch", daemon=True)
        thread.start()
        return thread

    def _run(self, work: Callable[[Callable[[int, int], None]], str]) -> None:
        ended = said("it ended without a result; see the log of the console")
        try:
            ended = work(self._tell)
        except UrbanReidError as error:
            ended = str(error)
        finally:
            self.words, self.working, self.at = ended, False, datetime.now(UTC)

    def _tell(self, done: int, of: int) -> None:
        self.done, self.of = done, of
