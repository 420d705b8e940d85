"""What a resolve asks of Postgres: so many statements for a unit, however many windows it has."""

from collections import Counter

from pipeline.resolve import resolve_unit, units_within
from pipeline.store import Store
from schemas.levels import Level, level_of
from tests.helpers.thin_town import ThinTown, crowd

#: Connections, statements, COPY and commits for a unit that was never resolved, all of whose windows are one chunk.
MOST = {Level.CAMERA: 24, Level.BUILDING: 29, Level.STREET: 29, Level.DISTRICT: 29}


#: More for the first camera of a day, which makes the day's partitions between two transactions of its own.
DAY = 8


def test_statements_do_not_grow_with_the_windows(store: Store) -> None:
    town = ThinTown(store, crowd(people=30, days=0.25))
    town.take_in()
    waits: Counter[str] = Counter()
    windows: Counter[str] = Counter()
    first, *others = units_within(store, "d1")
    for code in (first, *others):
        store.looked_at_growth_s = float("inf")  # tables are analyzed by the clock
        store.listen(lambda *_: waits.update([code]))  # noqa: B023 - called in this turn alone
        result = resolve_unit(store, town.core, town.model, code, settings=store.settings.association)
        windows[code] = result.windows
    over = {code: count for code, count in waits.items() if count > MOST[level_of(code)] + DAY * (code == first)}
    assert not over
    assert windows["d1"] > MOST[Level.DISTRICT]
    waits.clear()
    resolve_unit(store, town.core, town.model, "d1", settings=store.settings.association)
    assert waits.total() <= 6  # the lock, and whether anything is pending
