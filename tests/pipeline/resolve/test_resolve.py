"""Laws of resolve: a repeat writes nothing; neither the order of arrival nor late data change the decisions."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, text

from pipeline.city.assignments import assignments
from pipeline.city.decision_digest import decision_digest
from pipeline.city.status import status
from pipeline.city.watermarks import mark_everything
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import embedded, roles
from pipeline.store.user_supplied import supplied_url
from schemas.levels import Level, level_of, parent_of
from schemas.parameters import Period
from schemas.times import parse_time
from tests.helpers.town import Town


def digest(town: Town, unit: str | None = None) -> str:
    with town.store.begin() as connection:
        return decision_digest(connection, unit)


def rows(town: Town, sql: str, **parameters: object) -> Sequence[Row[Any]]:
    with town.store.begin() as connection:
        return connection.execute(text(sql), parameters).all()


@pytest.fixture
def expected(town: Town, lines: list[str]) -> str:
    """The digest of `town` after all crops were taken in and resolved at once."""
    town.take_in(lines)
    assert town.resolve() > 0
    return digest(town)


def test_repeat_writes_nothing(town: Town, expected: str) -> None:
    before = status(town.store)
    assert town.resolve() == 0
    with town.store.begin() as connection:
        mark_everything(connection)
    assert town.resolve() == 0  # every window was looked at, and every run stands
    assert status(town.store) == before
    assert before["digest"] == expected and before["pending"] == 0


def test_the_digest_outlives_an_erasure_of_the_keys(server: embedded.EmbeddedServer, town: Town, expected: str) -> None:
    """Nothing that erasing deletes enters the digest: keys become random, distances and ids of tracklets go."""
    owner = server.connect(roles.OWNER, str(supplied_url(town.store.settings).database))
    with owner, owner.cursor() as cursor:
        cursor.execute("CREATE FUNCTION pg_temp.random_key() RETURNS bytea RETURN sha256(uuid_send(gen_random_uuid()))")
        cursor.execute("UPDATE crop SET key = pg_temp.random_key(), picture = pg_temp.random_key()")
        cursor.execute("UPDATE identity SET key = pg_temp.random_key(), tracklets = '{}'")
        cursor.execute(
            "UPDATE match_decision SET left_key = least(a, b), right_key = greatest(a, b), distance = 0, "
            "runner_up_key = NULL FROM (SELECT id AS of, pg_temp.random_key() AS a, pg_temp.random_key() AS b "
            "FROM match_decision) AS tombstone WHERE id = tombstone.of"
        )
    owner.close()
    assert digest(town) == expected
    assert town.resolve() == 0  # nothing became dirty


def test_every_level_groups_the_same_tracklets(town: Town, expected: str) -> None:
    for level in (Level.BUILDING, Level.STREET, Level.DISTRICT):
        held = Counter(
            row.id
            for row in rows(
                town,
                "SELECT t.id FROM identity_now n, unnest(n.tracklets) AS t(id) WHERE n.level = :level",
                level=level,
            )
        )
        tracklets = {row.id for row in rows(town, "SELECT id FROM identity_now WHERE level = 'camera'")}
        assert set(held) == tracklets and set(held.values()) == {1}
    sizes = status(town.store)["levels"]
    assert sizes["camera"] > sizes["building"] >= sizes["street"] >= sizes["district"] > 0


def test_members_are_one_level_down(town: Town, expected: str) -> None:
    pairs = rows(
        town,
        "SELECT i.unit AS unit, c.unit AS child FROM identity_member m "
        "JOIN identity i ON i.id = m.identity_id JOIN identity c ON c.id = m.child_id",
    )
    assert pairs and all(parent_of(pair.child) == pair.unit for pair in pairs)


def test_each_join_states_its_evidence(town: Town, expected: str) -> None:
    found = rows(town, "SELECT * FROM match_decision WHERE verdict = 'join'")
    assert found
    for row in found:
        assert 0 <= row.distance <= 2 and row.probability is not None and row.operating_point is not None
        assert level_of(row.left_at) == level_of(row.right_at)


def test_assignments_name_every_crop_once(town: Town, expected: str, lines: list[str]) -> None:
    found = list(assignments(town.store, "d1"))
    assert len(found) == len(lines) == len({row["crop"] for row in found})
    assert all(row["district"] for row in found)
    assert {row["truth"] for row in found} == {json.loads(line)["truth"] for line in lines}


@pytest.mark.parametrize("seed", [0, 1])
def test_order_of_arrival_changes_nothing(
    fresh_town: Callable[..., Town], town: Town, expected: str, lines: list[str], seed: int
) -> None:
    """Crops arrive in random order, a third at a time, with a resolve after each: most windows get late data."""
    other = fresh_town()
    shuffled = lines[:]
    random.Random(seed).shuffle(shuffled)
    third = len(lines) // 3 + 1
    for start in range(0, len(shuffled), third):
        other.take_in(shuffled[start : start + third])
        assert other.resolve() > 0
    assert digest(other) == expected
    assert status(other.store)["levels"] == status(town.store)["levels"]
    assert rows(other, "SELECT count(*) AS n FROM run WHERE superseded_at IS NOT NULL")[0].n > 0  # some data were late


def test_one_window_after_the_other_gives_the_same(
    fresh_town: Callable[..., Town], expected: str, by_time: Callable[[], list[str]]
) -> None:
    """As with a schedule: crops arrive as they are seen, and each resolve covers what arrived until then."""
    other = fresh_town()
    windows: dict[int, list[str]] = {}
    for line in by_time():
        windows.setdefault(int(parse_time(json.loads(line)["time"]).timestamp()) // 150, []).append(line)
    for part in windows.values():
        other.take_in(part)
        other.resolve()
    assert digest(other) == expected


def test_persistent_ids_survive_late_data(town: Town, by_time: Callable[[], list[str]]) -> None:
    """Late crops supersede runs; identities keep their ids."""
    early = by_time()
    late, rest = early[5:8], early[:5] + early[8:]
    town.take_in(rest)
    town.resolve()
    before = {row["crop"]: row["district"] for row in assignments(town.store, "d1")}
    town.take_in(late)
    assert town.resolve() > 0
    after = {row["crop"]: row["district"] for row in assignments(town.store, "d1")}
    kept = sum(after[crop] == identity for crop, identity in before.items())
    assert kept >= 0.9 * len(before)
    assert {after[crop] for crop in before} & set(before.values())


def test_truth_is_not_read(fresh_town: Callable[..., Town], expected: str, lines: list[str]) -> None:
    """The same crops with shuffled truths give the same decisions."""
    names = [json.loads(line)["truth"] for line in lines]
    random.Random(0).shuffle(names)
    other = fresh_town()
    other.take_in([json.dumps({**json.loads(line), "truth": name}) for line, name in zip(lines, names, strict=True)])
    other.resolve()
    assert digest(other) == expected


def test_without_calibration_nothing_is_joined(fresh_town: Callable[..., Town], lines: list[str]) -> None:
    other = fresh_town(calibrated=False)
    other.take_in(lines)
    other.resolve()
    verdicts = {row.verdict for row in rows(other, "SELECT DISTINCT verdict FROM match_decision")}
    assert verdicts == {"review"}
    levels = status(other.store)["levels"]
    assert levels["district"] == levels["camera"]
    assert {row.probability for row in rows(other, "SELECT DISTINCT probability FROM match_decision")} == {None}


def test_period_leaves_the_rest_pending(town: Town, lines: list[str], by_time: Callable[[], list[str]]) -> None:
    town.take_in(lines)
    times = [parse_time(json.loads(line)["time"]) for line in by_time()]
    middle = times[len(times) // 2]
    settings = town.store.settings.association
    for code in units_within(town.store, "d1"):
        if code.count("/") == 3:
            embed_camera(town.store, town.core, town.crops, town.model, code)
        resolve_unit(town.store, town.core, town.model, code, settings=settings, period=Period(to_time=middle))
    latest = rows(town, "SELECT max(window_start) AS latest FROM run")[0].latest
    assert latest < middle
    assert status(town.store)["pending"] > 0
    town.resolve()
    whole = digest(town)
    with town.store.begin() as connection:
        mark_everything(connection)
    assert town.resolve() == 0 and digest(town) == whole


def test_digest_of_a_unit_covers_what_is_below_it(town: Town, expected: str) -> None:
    parts = {digest(town, unit) for unit in ("d1", "d1/s1", "d1/s2", "d1/s1/b1")}
    assert len(parts) == 4
    assert digest(town, "d1") == expected


_RESOLVE_ONCE = """
import sys
from pathlib import Path
from pipeline.crops.crop_store import CropStore
from pipeline.registry import model_in_use
from pipeline.store import embedded, roles
from pipeline.store.user_supplied import supplied_url
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.settings import settings
with Store.open(settings(), "killed") as store:
    with store.begin() as connection:
        model = model_in_use(connection)
    core = open_core(settings(), model.directory(settings()))
    print("ready", flush=True)
    for code in units_within(store, "d1"):
        if code.count("/") == 3:
            embed_camera(store, core, CropStore(settings()), model, code)
        resolve_unit(store, core, model, code, settings=settings().association)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_anywhere_gives_the_same_as_undisturbed(
    town: Town, fresh_town: Callable[..., Town], lines: list[str]
) -> None:
    """kill -9 at twenty random points, then a resolve: the same digest, and no window written twice."""
    town.take_in(lines)
    started = time.monotonic()
    town.resolve()
    duration = time.monotonic() - started
    expected = digest(town)
    rng = random.Random(0)
    killed = 0
    for _ in range(20):
        other = fresh_town()
        other.take_in(lines)
        environment = {
            "URBAN_REID_HOME": str(other.store.settings.home),
            "URBAN_REID_DATABASE_URL": other.store.settings.database_url or "",
            "PATH": "/usr/bin:/bin",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", _RESOLVE_ONCE],
            env=environment,
            cwd=Path(__file__).parents[3],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 1.2 * duration))
        killed += process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()
        other.resolve()
        assert digest(other) == expected
        twice = rows(other, "SELECT unit, window_start FROM run GROUP BY 1, 2 HAVING count(*) > 1")
        assert not twice, "a window was written twice"
    assert killed >= 10
