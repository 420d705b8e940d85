"""What takes long to read is read again and again beside the pages, so that none waits for a count of millions."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Condition, Thread
from typing import Generic, TypeVar

from pipeline.browsing.city_now import CityNow, Totals, read_city_now, read_totals
from pipeline.browsing.models import Sureness, read_sureness
from pipeline.city.units import read_city
from pipeline.registry import models
from pipeline.store import Store
from schemas.errors import UrbanReidError
from schemas.levels import Level

T = TypeVar("T")

#: What is younger than this is shown as it is; what is older is shown too, and read again meanwhile. Where reading
#: takes long, it rests for so many times as long, so that it takes a twentieth of a core at most.
_YOUNG_S, _RESTS = 2.0, 20.0
#: A page waits so long for it.
_WITHIN_S = 0.15
#: Districts whose curves are drawn.
_DISTRICTS = 4

_log = logging.getLogger(__name__)


class Beside(Generic[T]):
    """The newest result of a function that is called in a thread whenever somebody asks for it and it is old."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._found: T | None = None
        self._seconds, self._ended_at = 0.0, -float("inf")
        self._working = False
        self._turn = Condition()

    def now(self, within_s: float | None = None) -> T | None:
        """The newest result; None where the first one is not there within so many seconds, _WITHIN_S by default."""
        within_s = _WITHIN_S if within_s is None else within_s
        with self._turn:
            if not self._working and time.monotonic() - self._ended_at >= max(_YOUNG_S, _RESTS * self._seconds):
                self._working = True
                Thread(target=self._work, name="beside the pages", daemon=True).start()
            if self._found is None or self._seconds < within_s:  # soon there: shown as it is now
                self._turn.wait_for(lambda: not self._working, within_s)
            return self._found

    def _work(self) -> None:
        began, found = time.monotonic(), None
        try:
            found = self._read()
        except UrbanReidError as error:
            _log.warning("%s", error)
        finally:
            with self._turn:
                self._found = found or self._found
                self._working, self._ended_at = False, time.monotonic()
                self._seconds = self._ended_at - began
                self._turn.notify_all()


class Counting:
    """How the city stands: who is there now, read again in moments, and totals, counted as often as that takes."""

    def __init__(self, store: Store) -> None:
        def totals() -> Totals:
            codes = [unit.code for unit in read_city(store).units]
            with store.begin(only_reads=True) as connection:
                return read_totals(connection, codes, datetime.now(UTC))

        def stands() -> CityNow | None:
            known = self._totals.now()
            if known is None:
                return None
            with store.begin(only_reads=True) as connection:
                return read_city_now(connection, known, datetime.now(UTC))

        self._totals, self._stands = Beside(totals), Beside(stands)

    def now(self) -> CityNow | None:
        """None until all is counted once."""
        return self._stands.now()


def judging(store: Store) -> Beside[list[Sureness]]:
    """How sure the model in use is, by district."""

    def read() -> list[Sureness]:
        used = next((model for model in models(store) if model.in_use), None)
        districts = [unit.code for unit in read_city(store).units if unit.level is Level.DISTRICT][:_DISTRICTS]
        with store.begin(only_reads=True) as connection:
            return [] if used is None else [read_sureness(connection, used, district) for district in districts]

    return Beside(read)
