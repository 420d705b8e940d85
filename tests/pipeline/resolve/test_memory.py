"""What a unit keeps in memory over many windows changes nothing: each window sees what a fresh reading would give."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import Connection, text

from pipeline.association.prototypes import Prototypes
from pipeline.city.decision_digest import decision_digest
from pipeline.resolve import level_windows, runs
from pipeline.resolve.memory import UnitMemory
from pipeline.resolve.read import Identity, read_member_ids
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from schemas.parameters import Period
from schemas.times import from_us, window_start
from tests.helpers.homes import fresh_settings
from tests.helpers.thin_town import ThinTown, crowd, looks

CROWD = crowd()


@pytest.fixture
def thin_town(server: EmbeddedServer) -> Iterator[Callable[[], ThinTown]]:
    """Makes towns, each with a database and a home of its own."""
    with ExitStack() as ends:

        def make() -> ThinTown:
            return ThinTown(ends.enter_context(Store.open(ends.enter_context(fresh_settings(server)), "pytest")), CROWD)

        yield make


def rows(town: ThinTown, sql: str, **parameters: object) -> list[tuple[object, ...]]:
    with town.store.begin() as connection:
        return [tuple(row) for row in connection.execute(text(sql), parameters)]


def digest(town: ThinTown) -> str:
    with town.store.begin() as connection:
        return decision_digest(connection)


#: The crops of each identity, whatever it is called.
GROUPS = (
    "SELECT n.unit, string_agg(encode(c.key, 'hex'), ' ' ORDER BY c.key) FROM identity_now n, "
    "unnest(n.tracklets) AS t (id) JOIN identity_member m ON m.identity_id = t.id JOIN crop c ON c.id = m.crop_id "
    "GROUP BY n.unit, n.persistent_id"
)
#: What happened in each current run.
EVENTS = (
    "SELECT r.unit, r.window_start, e.kind, count(*) FROM run r LEFT JOIN identity_event e ON e.run_id = r.id "
    "WHERE r.superseded_at IS NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
)


def groups(town: ThinTown) -> list[tuple[object, ...]]:
    return rows(town, f"{GROUPS} ORDER BY 1, 2")


def held_once(town: ThinTown) -> None:
    """Above the cameras, every tracklet is in one identity of each unit above it, and so is every child."""
    tracklets = rows(town, "SELECT count(*) FROM identity_now WHERE level = 'camera'")[0][0]
    found = rows(
        town,
        "SELECT n.level, count(*), count(DISTINCT t.id) FROM identity_now n, unnest(n.tracklets) AS t (id) "
        "GROUP BY n.level ORDER BY n.level",
    )
    assert found == [(level, tracklets, tracklets) for level in ("camera", "building", "street", "district")]


@pytest.fixture(scope="module")
def at_once(server: EmbeddedServer) -> Iterator[ThinTown]:
    """Taken in and resolved at once; nobody changes it."""
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        town = ThinTown(store, CROWD)
        town.take_in()
        town.resolve()
        yield town


def test_the_town_has_everything_to_remember(at_once: ThinTown) -> None:
    kinds = dict(rows(at_once, "SELECT kind, count(*) FROM identity_event GROUP BY kind"))
    assert all(kinds.get(kind, 0) >= 4 for kind in ("create", "attach", "merge", "split")), kinds
    held_once(at_once)


@pytest.mark.parametrize(
    "chunk", [pytest.param(1, marks=pytest.mark.slow), 7, pytest.param(64, marks=pytest.mark.slow)]
)
def test_chunks_change_nothing(
    thin_town: Callable[[], ThinTown], at_once: ThinTown, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_CHUNK", chunk)
    other = thin_town()
    other.take_in()
    other.resolve()
    assert digest(other) == digest(at_once)
    assert groups(other) == groups(at_once)
    assert rows(other, EVENTS) == rows(at_once, EVENTS)


def test_period_after_period_gives_the_same(thin_town: Callable[[], ThinTown], at_once: ThinTown) -> None:
    other = thin_town()
    other.take_in()
    first, last = (from_us(int(us)) for us in CROWD.crops.time_us[[0, -1]])
    start = window_start(first, 300)
    while start <= last:
        start += timedelta(seconds=1500)
        other.resolve(period=Period(to_time=start))
    assert rows(other, "SELECT count(*) FROM watermark WHERE dirty_from IS NOT NULL") == [(0,)]
    assert digest(other) == digest(at_once)
    assert rows(other, EVENTS) == rows(at_once, EVENTS)


def parts(seed: int) -> list[np.ndarray]:
    """Places of the crops in three parts; a passage's crops may come in different ones."""
    rng = np.random.default_rng(seed)
    part = rng.choice(3, len(CROWD.crops), p=[0.6, 0.3, 0.1])
    return [np.flatnonzero(part == which) for which in range(3)]


@pytest.mark.parametrize(
    "seed, chunk",
    [(0, 2000), *(pytest.param(seed, chunk, marks=pytest.mark.slow) for seed in (1, 2) for chunk in (3, 60))],
)
def test_late_data_end_like_all_at_once(
    thin_town: Callable[[], ThinTown], at_once: ThinTown, seed: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_CHUNK", chunk)
    other = thin_town()
    for part in parts(seed):
        other.take_in(part)
        other.resolve()
        held_once(other)
    assert digest(other) == digest(at_once)
    assert groups(other) == groups(at_once)


def same_vectors(a: Prototypes | None, b: Prototypes | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.weight == b.weight and all(
        np.array_equal(np.asarray(x, np.float16), np.asarray(y, np.float16))
        for x, y in ((a.mean, b.mean), (a.medoids.reshape(-1, len(a.mean)), b.medoids.reshape(-1, len(b.mean))))
    )


def check_same(a: Identity, b: Identity) -> None:
    for name in ("id", "key", "persistent_id", "unit", "first_seen_us", "last_seen_us", "timed", "crops", "tracklets"):
        assert getattr(a, name) == getattr(b, name), name
    np.testing.assert_array_equal(a.spans, b.spans)
    assert same_vectors(a.prototypes, b.prototypes)


def check_like_store(
    connection: Connection, memory: UnitMemory, fresh: UnitMemory, window: object, children: list[UUID]
) -> int:
    """How many identities were compared."""
    context, read = memory.context(window), fresh.context(window)  # type: ignore[arg-type]
    assert [one.key for one in context] == [one.key for one in read]
    for ours, theirs in zip(context, read, strict=True):
        check_same(ours, theirs)
    everyone = [one.persistent_id for one in context]
    ours_held, theirs_held = (which.members(connection, everyone) for which in (memory, fresh))
    for own in everyone:
        for ours, theirs in zip(ours_held[own], theirs_held[own], strict=True):
            check_same(ours, theirs)
    for child in children:
        assert memory.holders([child]) == fresh.holders([child])
    return len(everyone)


@pytest.mark.parametrize("chunk", [pytest.param(1, marks=pytest.mark.slow), 40])
def test_memory_is_what_the_store_would_give(
    thin_town: Callable[[], ThinTown], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each chunk, first of a fresh town and then with late data, some windows decided and some anew."""
    original = level_windows._level_chunk
    compared: Counter[str] = Counter()

    def checked(store, connection, job, memory, windows):  # type: ignore[no-untyped-def]
        result = original(store, connection, job, memory, windows)
        window = windows[-1] + timedelta(seconds=job.settings.window_s)
        fresh = UnitMemory(job.unit, job.model.id, job.numbers, memory._horizon_s)
        fresh.read(connection, window)
        ids = read_member_ids(connection, [one.id for one in fresh.context(window)])
        children = [child for its in ids.values() for child in its]
        compared[job.unit] += check_like_store(connection, memory, fresh, window, children)
        return result

    monkeypatch.setattr(level_windows, "_level_chunk", checked)
    monkeypatch.setattr(runs, "_CHUNK", chunk)
    town = thin_town()
    for part in parts(0):
        town.take_in(part)
        town.resolve()
    assert min(compared.values()) > 0 and compared["d1"] > 50


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [20, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5, 35))])
def test_killed_within_a_chunk_ends_like_undisturbed(
    thin_town: Callable[[], ThinTown], at_once: ThinTown, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies when the chunk's runs are written and its transaction is open; then it begins again."""
    other = thin_town()
    other.take_in()
    written = 0
    original = runs.write_runs

    def write_and_die(*args: object) -> None:
        nonlocal written
        original(*args)  # type: ignore[arg-type]
        written += 1
        if written == after:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(runs, "_CHUNK", 40)
        patched.setattr(runs, "write_runs", write_and_die)
        with pytest.raises(Killed):
            other.resolve()
    before = rows(other, "SELECT count(*) FROM run")[0][0]
    assert before == rows(other, "SELECT count(*) FROM run WHERE superseded_at IS NULL")[0][0]
    other.resolve()
    assert digest(other) == digest(at_once)
    assert rows(other, EVENTS) == rows(at_once, EVENTS)
    assert rows(other, "SELECT count(*) FROM run WHERE superseded_at IS NOT NULL") == [(0,)]  # nothing done twice


#: The crops of each identity above the cameras, by its id.
HELD = (
    "SELECT n.unit, n.persistent_id, array_agg(m.crop_id) FROM identity_now n, unnest(n.tracklets) AS t (id) "
    "JOIN identity_member m ON m.identity_id = t.id WHERE n.level <> 'camera' GROUP BY 1, 2"
)
#: Ids that a child of an identity had before, where the identity was given a new one and nobody bears the older.
LOST = """
    WITH alive AS (SELECT i.* FROM identity i JOIN run r ON r.id = i.run_id WHERE r.superseded_at IS NULL),
    made AS (
        SELECT i.* FROM alive i JOIN identity_event e ON e.run_id = i.run_id AND e.persistent_id = i.persistent_id
        WHERE e.kind IN ('create', 'split')
        AND NOT EXISTS (SELECT FROM identity o WHERE o.persistent_id = i.persistent_id AND o.id < i.id)
    )
    SELECT DISTINCT n.unit, n.persistent_id, h.persistent_id FROM made n
    JOIN identity_member m ON m.identity_id = n.id JOIN identity c ON c.id = m.child_id
    JOIN identity o ON o.persistent_id = c.persistent_id JOIN identity_member b ON b.child_id = o.id
    JOIN identity h ON h.id = b.identity_id AND h.unit = n.unit AND h.id < n.id
    WHERE h.persistent_id NOT IN (SELECT persistent_id FROM alive)"""


def test_ids_survive_late_data(thin_town: Callable[[], ThinTown], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ones whether windows are looked at alone or together, and no older one is let go for a new one."""
    first, late, _ = parts(2)
    kept = []
    for chunk in (5, 2000):
        monkeypatch.setattr(runs, "_CHUNK", chunk)
        town = thin_town()
        town.take_in(first)
        town.resolve()
        names = {own: (unit, min(crops)) for unit, own, crops in rows(town, HELD)}  # type: ignore[call-overload]
        town.take_in(late)
        town.resolve()
        after = rows(town, HELD)
        assert len({own for _, own, _ in after}) == len(after)  # nobody has an id of another unit
        assert rows(town, LOST) == []
        kept.append({(unit, min(crops), names.get(own)) for unit, own, crops in after})  # type: ignore[call-overload]
        assert sum(name is not None for _, _, name in kept[-1]) >= 0.8 * len(names)
    assert kept[0] == kept[1]


def test_an_id_that_is_out_of_sight_is_not_given_to_another(store: Store) -> None:
    """Late data part two that were one. The earlier half was last seen beyond the horizon: its id stays its own."""
    its = looks(("c1", 10, 0), ("c2", 700, 40), ("c1", 1300, -15), ("c1", 690, 55))
    town = ThinTown(store, its, steep=20, sure=15, transit=0)
    town.take_in(np.arange(3))
    town.resolve()
    assert [len(crops) for unit, _, crops in rows(town, HELD) if unit == "d1/s1/b1"] == [3]  # type: ignore[arg-type]
    town.take_in(np.array([3]))
    town.resolve()
    assert sorted(len(crops) for unit, _, crops in rows(town, HELD) if unit == "d1/s1/b1") == [1, 1, 2]  # type: ignore[arg-type]
    held_once(town)
