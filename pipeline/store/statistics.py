"""Statistics for the planner: without them a table that has just been filled is read from end to end."""

import time

from sqlalchemy import text

from pipeline.store.store import Store

#: Pages (8 kB) from which on a table is worth it; smaller ones are read as fast without an index.
_LEAST_PAGES = 32
#: Not more often than this, seconds: a look takes milliseconds, and a city has thousands of units.
_EVERY_S = 2.0


def analyze_grown(store: Store) -> None:
    """Analyzes the tables that have doubled since they were analyzed; autovacuum sees to the rest, minutes later.

    A call soon after another of the same store does nothing.
    """
    if time.monotonic() < store.looked_at_growth_s + _EVERY_S:
        return
    store.looked_at_growth_s = time.monotonic()
    with store.begin() as connection:
        connection.execute(text("SELECT analyze_grown(:pages)"), {"pages": _LEAST_PAGES})
