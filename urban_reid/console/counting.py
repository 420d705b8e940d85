"""Counts of the city, made again and again beside the pages: none of them waits for a count over millions of rows."""

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Condition, Thread

from pipeline.browsing.city_now import CityNow, read_city_now
from pipeline.city.units import read_city
from pipeline.store import Store
from schemas.errors import UrbanReidError

#: Counts younger than this are shown as they are; older ones are shown too, and made again meanwhile. Where counting
#: takes long, it rests for so many times as long.
_YOUNG_S, _RESTS = 2.0, 5.0
#: A page waits so long for the first count.
_FIRST_WITHIN_S = 0.2

_log = logging.getLogger(__name__)


@dataclass
class Counting:
    store: Store
    _found: CityNow | None = None
    _ended_at: float = 0.0
    _working: bool = False
    _turn: Condition = field(default_factory=Condition)

    def now(self, within_s: float = _FIRST_WITHIN_S) -> CityNow | None:
        """The newest counts; None where the first of them are not made within so many seconds."""
        with self._turn:
            rested = 0.0 if self._found is None else max(_YOUNG_S, _RESTS * self._found.seconds)
            if not self._working and time.monotonic() - self._ended_at >= rested:
                self._working = True
                Thread(target=self._count, name="counts", daemon=True).start()
            if self._found is None or self._found.seconds < within_s:  # soon made: shown as they are now
                self._turn.wait_for(lambda: not self._working, within_s)
            return self._found

    def _count(self) -> None:
        found = None
        try:
            codes = [unit.code for unit in read_city(self.store).units]
            with self.store.begin() as connection:
                found = read_city_now(connection, codes, datetime.now(UTC))
        except UrbanReidError as error:
            _log.warning("the city cannot be counted: %s", error)
        finally:
            with self._turn:
                self._found = found or self._found
                self._working, self._ended_at = False, time.monotonic()
                self._turn.notify_all()
