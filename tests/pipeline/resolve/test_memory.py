"""The memory of a unit changes no result: each window sees what a fresh read of the store would return."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import Connection, text

from pipeline.association.prototypes import Prototypes
from pipeline.city.decision_digest import decision_digest
from pipeline.resolve import level_windows, resolve_unit, runs, units_within
from pipeline.resolve.memory import UnitMemory
from pipeline.resolve.read import read_member_ids
from pipeline.resolve.rows import Identity
from pipeline.resolve.runs import Job, UnitResult
from pipeline.resolve.write import write_runs
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from schemas.arrays import Ints
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


def rows(town: ThinTown, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
    with town.store.begin() as connection:
        return [tuple(row) for row in connection.execute(text(sql), parameters)]


def digest(town: ThinTown) -> str:
    with town.store.begin() as connection:
        return decision_digest(connection)


#: The crops of each identity, without its id.
GROUPS = (
    "SELECT n.unit, string_agg(encode(c.key, 'hex'), ' ' ORDER BY c.key) FROM identity_now n, "
    "unnest(n.tracklets) AS t (id) JOIN identity_member m ON m.identity_id = t.id JOIN crop c ON c.id = m.crop_id "
    "GROUP BY n.unit, n.persistent_id"
)
#: Numbers of events by current run and kind.
EVENTS = (
    "SELECT r.unit, r.window_start, e.kind, count(*) FROM run r LEFT JOIN identity_event e ON e.run_id = r.id "
    "WHERE r.superseded_at IS NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
)


def groups(town: ThinTown) -> list[tuple[Any, ...]]:
    return rows(town, f"{GROUPS} ORDER BY 1, 2")


def check_held_once(town: ThinTown) -> None:
    """Asserts that at each level every tracklet is in exactly one identity."""
    tracklets = rows(town, "SELECT count(*) FROM identity_now WHERE level = 'camera'")[0][0]
    found = rows(
        town,
        "SELECT n.level, count(*), count(DISTINCT t.id) FROM identity_now n, unnest(n.tracklets) AS t (id) "
        "GROUP BY n.level ORDER BY n.level",
    )
    assert found == [(level, tracklets, tracklets) for level in ("camera", "building", "street", "district")]


@pytest.fixture(scope="module")
def at_once(server: EmbeddedServer) -> Iterator[ThinTown]:
    """All crops taken in and resolved at once. Tests only read it."""
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        town = ThinTown(store, CROWD)
        town.take_in()
        town.resolve()
        yield town


def test_the_town_has_events_of_each_kind(at_once: ThinTown) -> None:
    kinds = dict(rows(at_once, "SELECT kind, count(*) FROM identity_event GROUP BY kind"))
    assert all(kinds.get(kind, 0) >= 4 for kind in ("create", "attach", "merge", "split")), kinds
    check_held_once(at_once)


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


def test_progress_tells_the_windows_of_each_chunk(
    thin_town: Callable[[], ThinTown], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_CHUNK", 7)
    town = thin_town()
    town.take_in()
    settings = town.store.settings.association
    told: list[tuple[int, int]] = []
    for unit in units_within(town.store, "d1/s1/b1"):
        told.clear()
        result = resolve_unit(
            town.store, town.core, town.model, unit, settings=settings, progress=lambda *now: told.append(now)
        )
        assert len(told) > 3
        assert {total for _, total in told} == {result.windows}
        done = [done for done, _ in told]
        assert done == sorted(set(done)) and done[-1] == result.windows
        assert max(b - a for a, b in pairwise([0, *done])) <= 7


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


def parts(seed: int) -> list[Ints]:
    """Row numbers of the crops in three parts; the crops of one passage may lie in different parts."""
    rng = np.random.default_rng(seed)
    part = rng.choice(3, len(CROWD.crops), p=[0.6, 0.3, 0.1])
    return [np.flatnonzero(part == which) for which in range(3)]


@pytest.mark.parametrize(
    "seed, chunk",
    [(0, 2000), *(pytest.param(seed, chunk, marks=pytest.mark.slow) for seed in (1, 2) for chunk in (3, 60))],
)
def test_late_data_give_the_same_as_all_at_once(
    thin_town: Callable[[], ThinTown], at_once: ThinTown, seed: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_CHUNK", chunk)
    other = thin_town()
    for part in parts(seed):
        other.take_in(part)
        other.resolve()
        check_held_once(other)
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


def check_like_fresh(
    connection: Connection, memory: UnitMemory, fresh: UnitMemory, window: datetime, children: list[UUID]
) -> int:
    """Asserts that both hold the same; returns the number of identities compared."""
    context, fresh_context = memory.context(window), fresh.context(window)
    assert [one.key for one in context] == [one.key for one in fresh_context]
    for kept, read in zip(context, fresh_context, strict=True):
        check_same(kept, read)
    ids = [one.persistent_id for one in context]
    members, fresh_members = (one.members(connection, ids) for one in (memory, fresh))
    for id_ in ids:
        for kept, read in zip(members[id_], fresh_members[id_], strict=True):
            check_same(kept, read)
    for child in children:
        assert memory.holders([child]) == fresh.holders([child])
    return len(ids)


@pytest.mark.parametrize("chunk", [pytest.param(1, marks=pytest.mark.slow), 40])
def test_memory_is_what_the_store_would_return(
    thin_town: Callable[[], ThinTown], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each chunk; with late data some windows' runs stand and others are resolved again."""
    original = level_windows._resolve_chunk
    compared: Counter[str] = Counter()

    def checked(connection: Connection, job: Job, memory: UnitMemory, windows: Sequence[datetime]) -> UnitResult:
        result = original(connection, job, memory, windows)
        window = windows[-1] + timedelta(seconds=job.settings.window_s)
        fresh = UnitMemory(job.unit, job.model.id, job.numbers, memory._horizon_s)
        fresh.read(connection, window)
        ids = read_member_ids(connection, [one.id for one in fresh.context(window)])
        children = [child for members in ids.values() for child in members]
        compared[job.unit] += check_like_fresh(connection, memory, fresh, window, children)
        return result

    monkeypatch.setattr(level_windows, "_resolve_chunk", checked)
    monkeypatch.setattr(runs, "_CHUNK", chunk)
    town = thin_town()
    for part in parts(0):
        town.take_in(part)
        town.resolve()
    assert min(compared.values()) > 0 and compared["d1"] > 50


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [20, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5, 35))])
def test_killed_within_a_chunk_gives_the_same_as_undisturbed(
    thin_town: Callable[[], ThinTown], at_once: ThinTown, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the chunk's runs are written but not committed; then resolved again."""
    other = thin_town()
    other.take_in()
    written = 0

    def write_and_die(*args: Any) -> None:
        nonlocal written
        write_runs(*args)
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


#: The crops of each identity above camera level, with its unit and id.
HELD = (
    "SELECT n.unit, n.persistent_id, array_agg(m.crop_id) FROM identity_now n, unnest(n.tracklets) AS t (id) "
    "JOIN identity_member m ON m.identity_id = t.id WHERE n.level <> 'camera' GROUP BY 1, 2"
)
#: Earlier ids that identities lost: the identity got a new id although no other identity has the earlier one.
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
    """The same ids whatever the chunk, and no earlier id is replaced by a new one without need."""
    first, late, _ = parts(2)
    kept = []
    for chunk in (5, 2000):
        monkeypatch.setattr(runs, "_CHUNK", chunk)
        town = thin_town()
        town.take_in(first)
        town.resolve()
        before = {id_: (unit, min(crops)) for unit, id_, crops in rows(town, HELD)}
        town.take_in(late)
        town.resolve()
        after = rows(town, HELD)
        assert len({id_ for _, id_, _ in after}) == len(after)  # no two units share an id
        assert rows(town, LOST) == []
        kept.append({(unit, min(crops), before.get(id_)) for unit, id_, crops in after})
        assert sum(earlier is not None for _, _, earlier in kept[-1]) >= 0.8 * len(before)
    assert kept[0] == kept[1]


def test_an_id_beyond_the_horizon_is_not_given_to_another_identity(store: Store) -> None:
    """Late data split an identity. The earlier half was last seen beyond the horizon and keeps its id."""
    passages = looks(("c1", 10, 0), ("c2", 700, 40), ("c1", 1300, -15), ("c1", 690, 55))
    town = ThinTown(store, passages, slope=20, intercept=15, transit=0)
    town.take_in(np.arange(3))
    town.resolve()
    assert [len(crops) for unit, _, crops in rows(town, HELD) if unit == "d1/s1/b1"] == [3]
    town.take_in(np.array([3]))
    town.resolve()
    assert sorted(len(crops) for unit, _, crops in rows(town, HELD) if unit == "d1/s1/b1") == [1, 1, 2]
    check_held_once(town)


def forget(town: ThinTown, *identities: tuple[str, int]) -> None:
    """Takes the prototypes of a unit's identities in a window, as a model has them whose pictures are gone."""
    gone = text(
        "DELETE FROM prototype WHERE identity_id IN (SELECT i.id FROM identity i JOIN run r ON r.id = i.run_id "
        "WHERE i.unit = :unit AND r.superseded_at IS NULL AND r.window_start = to_timestamp(:start))"
    )
    with town.store.begin() as connection:
        for unit, window in identities:
            connection.execute(gone, {"unit": unit, "start": 1_767_225_600 + 300 * window})


def test_members_that_the_model_does_not_know_are_not_lost_with_their_identitys_id(store: Store) -> None:
    """A later window is resolved again, whose member the identity has to do without: it gets an id of its own."""
    town = ThinTown(store, looks(("c1", 10, 0), ("c2", 400, 5), ("c1", 450, 90)), slope=20, intercept=15, transit=0)
    town.take_in(np.arange(2))
    town.resolve()
    assert [len(crops) for unit, _, crops in rows(town, HELD) if unit == "d1/s1/b1"] == [2]
    forget(town, ("d1/s1/b1/c1", 0), ("d1/s1/b1", 0))
    town.take_in(np.array([2]))
    town.resolve()
    check_held_once(town)


def test_an_identity_that_the_model_does_not_know_keeps_its_members_beside_a_new_version_of_one(store: Store) -> None:
    """Its window is resolved again because of another building; there it was not known before, and now it is."""
    passages = looks(("c1", 10, 0), ("b2/c1", 20, 3), ("c2", 400, 2), ("b2/c1", 410, 90))
    town = ThinTown(store, passages, slope=20, intercept=15, transit=0)
    town.take_in(np.arange(3))
    town.resolve()
    assert [len(crops) for unit, _, crops in rows(town, HELD) if unit == "d1/s1"] == [3]
    forget(town, *((unit, 0) for unit in ("d1/s1/b1/c1", "d1/s1/b2/c1", "d1/s1/b1", "d1/s1/b2", "d1/s1", "d1")))
    town.take_in(np.array([3]))
    town.resolve()
    check_held_once(town)
