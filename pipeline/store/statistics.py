"""Statistics for the query planner: without them it scans a table that has just been filled from end to end."""

import time

from sqlalchemy import text

from pipeline.store.store import Store

#: Smallest table to analyze, in pages of 8 kB; smaller ones are read as fast without an index.
_LEAST_PAGES = 32
#: Shortest time between two calls that look, seconds: a look takes milliseconds, and a city has thousands of units.
_EVERY_S = 2.0


def analyze_grown(store: Store) -> None:
    """Analyzes the tables that have doubled since they were last analyzed; autovacuum would only do so minutes later.

    Does nothing within two seconds of the store's last call.
    """
    if time.monotonic() < store.looked_at_growth_s + _EVERY_S:
        return
    store.looked_at_growth_s = time.monotonic()
    with store.begin() as connection:
        connection.execute(text("SELECT analyze_grown(:pages)"), {"pages": _LEAST_PAGES})
