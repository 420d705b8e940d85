"""What a resolve asks of Postgres: so many statements for a unit, however many windows it has."""

from collections import Counter

from pipeline.resolve import resolve_unit, units_within
from pipeline.store import Store
from schemas.levels import Level, level_of
from tests.helpers.thin_town import ThinTown, crowd

#: Connections, statements, COPY and commits for a unit that was never resolved, all of whose windows are one chunk. The
#: first camera of a day makes the day's partitions.
MOST = {Level.CAMERA: 28, Level.BUILDING: 32, Level.STREET: 32, Level.DISTRICT: 32}


def test_statements_do_not_grow_with_the_windows(store: Store) -> None:
    town = ThinTown(store, crowd(people=30, days=0.25))
    town.take_in()
    waits: Counter[str] = Counter()
    windows: Counter[str] = Counter()
    for code in units_within(store, "d1"):
        store.looked_at_growth_s = float("inf")  # tables are analyzed by the clock
        store.listen(lambda *_: waits.update([code]))  # noqa: B023 - called in this turn alone
        result = resolve_unit(store, town.core, town.model, code, settings=store.settings.association)
        windows[code] = result.windows
    over = {code: count for code, count in waits.items() if count > MOST[level_of(code)]}
    assert not over
    assert windows["d1"] > MOST[Level.DISTRICT]
    waits.clear()
    resolve_unit(store, town.core, town.model, "d1", settings=store.settings.association)
    assert waits.total() <= 6  # the lock, and whether anything is pending
