"""Retention: what is kept how long, by level and unit; a week goes by."""

from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
import pytest
from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.crops.crop_store import CropStore, place_of_probe
from pipeline.erasure.expire import expire
from pipeline.governance.audit_chain import verify_city
from pipeline.governance.retention import LEVELS, Retention, Rule, read_retention, set_retention
from pipeline.store import Store, embedded
from schemas.errors import CityError, InputError
from schemas.levels import Level
from synthetic.embedding_city.generator import START
from tests.helpers.homes import become_live, superuser_of
from tests.helpers.orphans import count_orphans
from tests.helpers.thin_town import ThinTown, crowd


def as_superuser(server: embedded.EmbeddedServer, store: Store, *statements: str) -> None:
    connection = superuser_of(server, store.settings)()
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def rule(unit: str, level: Level, hours: int | None) -> Rule:
    return Rule(unit, level, hours, "anna", "because", START)


def test_the_nearest_rule_above_counts_and_rows_stay_for_who_needs_them() -> None:
    rules = [
        rule("", Level.CAMERA, 24),
        rule("d1/s1", Level.CAMERA, 48),
        rule("d1", Level.DISTRICT, 720),
        rule("d2", Level.STREET, None),
    ]
    kept = Retention(rules, is_live=True)
    assert kept.hours("d1/s1/b1/c1", Level.CAMERA) == 48
    assert kept.hours("d1/s10/b1/c1", Level.CAMERA) == 24
    assert kept.hours("d1/s1", Level.STREET) == 72
    assert kept.hours_of_rows("d1/s1/b1/c1") == 720
    assert kept.hours_of_rows("d3/s1/b1/c1") == 72
    assert kept.hours_of_rows("d2/s1/b1") is None and kept.hours_of_rows("d2") == 72
    assert Retention(rules[:1], is_live=False).hours("d1", Level.DISTRICT) is None


def test_open_homes_keep_everything_and_live_ones_72_hours(thin: ThinTown, server: embedded.EmbeddedServer) -> None:
    store = thin.store
    later = datetime.now(UTC) + timedelta(days=400)
    assert expire(store, actor="anna", now=later).is_nothing
    become_live(superuser_of(server, store.settings))
    assert expire(store, actor="anna", now=datetime.now(UTC) + timedelta(hours=71)).is_nothing  # since the ingest
    with store.begin() as connection:
        before = decision_digest(connection)
        crops = connection.scalar(text("SELECT count(*) FROM crop"))
    done = expire(store, actor="anna", now=datetime.now(UTC) + timedelta(hours=73))
    assert done.crops == crops and done.versions > 0 and done.partitions == 2
    with store.begin() as connection:
        for table in ("crop", "crop_embedding", "identity", "identity_member", "identity_event", "prototype"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0, table
        assert decision_digest(connection) == before
        keys = "SELECT count(*) FROM match_decision WHERE coalesce(left_key, right_key, runner_up_key) IS NOT NULL"
        assert connection.scalar(text(keys)) == 0
    assert verify_city(store).faults == []
    assert expire(store, actor="anna", now=later).is_nothing


def test_a_rule_needs_a_unit_hours_and_is_audited(thin: ThinTown) -> None:
    store = thin.store
    with pytest.raises(CityError):
        set_retention(store, "d9", LEVELS, 24, actor="anna", reason="r")
    with pytest.raises(InputError, match="hours"):
        set_retention(store, "d1", LEVELS, 0, actor="anna", reason="r")
    set_retention(store, "d1", LEVELS, 24, actor="anna", reason="order 3")
    set_retention(store, "d1", [Level.CAMERA], None, actor="ben", reason="order 4")
    with store.owning() as connection:
        kept = read_retention(connection)
        audited = connection.execute(text("SELECT actor FROM audit WHERE action = 'retention.set' ORDER BY id"))
        assert list(audited.scalars()) == ["anna", "ben"]
    assert kept.hours("d1/s1/b1/c1", Level.CAMERA) is None and kept.hours("d1/s1", Level.STREET) == 24


@pytest.mark.system
def test_a_week_of_retention(store: Store, server: embedded.EmbeddedServer) -> None:
    """A week of people, looked at every twelve hours: at no time is anything there for longer than it may be."""
    town = ThinTown(store, crowd(cameras=3, people=5, days=7, seed=3), intercept=10.0)
    town.take_in()
    town.resolve()
    # As it would have been with cameras: taken in at once, resolved soon after.
    as_superuser(
        server,
        store,
        "UPDATE crop SET ingested_at = captured_at",
        "UPDATE run SET finished_at = window_end",
        "UPDATE city SET kind = 'live'",
    )
    hold = "SELECT persistent_id FROM identity_now WHERE unit = 'd1' AND crops > 3 ORDER BY last_seen LIMIT 1"
    with store.begin() as connection:
        held = connection.execute(text(hold)).scalar_one()
        before = decision_digest(connection)
    _hold(server, store, held)
    kept = _crops_of(store, held)
    removed = 0
    for hour in range(12, 11 * 24, 12):
        now = START + timedelta(hours=hour)
        done = expire(store, actor="anna", now=now)
        removed += done.crops
        if hour in (96, 144):
            with store.begin() as connection:
                late = "SELECT count(*) FROM crop WHERE captured_at < :due AND id <> ALL(held_crops())"
                assert connection.scalar(text(late), {"due": now - timedelta(hours=72)}) == 0
                young = "SELECT count(*) FROM crop WHERE captured_at >= :due"
                of_crowd = int((town.crowd.crops.time_us >= (now - timedelta(hours=72)).timestamp() * 1e6).sum())
                assert connection.scalar(text(young), {"due": now - timedelta(hours=72)}) == of_crowd
                assert decision_digest(connection) == before
                assert set(count_orphans(connection).values()) == {0}
    with store.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM crop")) == len(kept)
        assert decision_digest(connection) == before
    assert removed == len(town.crowd.crops) - len(kept)
    assert _crops_of(store, held) == kept
    as_superuser(server, store, "SET session_replication_role = replica", "UPDATE case_file SET hold = false")
    expire(store, actor="anna", now=START + timedelta(days=12))
    with store.begin() as connection:
        for table in ("crop", "identity", "crop_embedding", "prototype"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0, table
    assert verify_city(store).faults == []


def test_uploaded_pictures_go_after_their_case_closed_or_by_themselves(
    thin: ThinTown, server: embedded.EmbeddedServer
) -> None:
    store, crops = thin.store, CropStore(thin.store.settings)
    long_ago = datetime.now(UTC) - timedelta(days=9)
    pictures = {
        name: cv2.imencode(".png", np.full((9, 9, 3), shade, np.uint8))[1].tobytes()
        for shade, name in enumerate(_PROBES)
    }
    kept = {name: crops.put(place_of_probe(long_ago), data) for name, data in pictures.items()}
    cases = [
        f"INSERT INTO case_file (name, opened_by, closed_at, hold) VALUES ('{name}', 1, {closed}, {hold})"
        for name, (closed, hold, _) in _PROBES.items()
        if name != "none"
    ]
    probes = [
        f"INSERT INTO probe (picture, uploaded_by, uploaded_at, case_id) VALUES ('\\x{kept[name].hex()}', 'anna', "
        f"'{long_ago}', (SELECT id FROM case_file WHERE name = '{name}'))"
        for name in _PROBES
    ]
    rules = ("SET session_replication_role = replica", "UPDATE city SET kind = 'live'")
    as_superuser(server, store, *rules, "INSERT INTO account (name, password) VALUES ('anna', 'x')", *cases, *probes)
    as_superuser(
        server,
        store,
        "SET session_replication_role = replica",
        "INSERT INTO search_request (operator, reason, unit, probe_id, top, model_id) "
        "SELECT 'anna', 'r', 'd1', id, 5, (SELECT id FROM model) FROM probe",
    )
    gone = [name for name, (_, _, goes) in _PROBES.items() if goes]
    done = expire(store, actor="anna")
    assert (done.probes, done.pictures) == (len(gone), len(gone))
    for name, picture in kept.items():
        assert (crops.find(place_of_probe(long_ago), picture) is None) == (name in gone), name
    with store.owning() as connection:
        left = connection.scalars(text("SELECT f.name FROM probe p JOIN case_file f ON f.id = p.case_id ORDER BY 1"))
        assert left.all() == sorted(name for name in _PROBES if name not in gone)
        asked = "SELECT count(*), count(probe_id), count(erased_at) FROM search_request"
        assert tuple(connection.execute(text(asked)).one()) == (5, 5 - len(gone), len(gone))
    assert expire(store, actor="anna").probes == 0


#: Cases of pictures of nine days ago: when each closed, whether it holds, and whether its picture goes.
_PROBES = {
    "none": ("NULL", "false", True),
    "closed": ("now() - interval '4 days'", "false", True),
    "closed today": ("now()", "false", False),
    "held": ("now() - interval '4 days'", "true", False),
    "open": ("NULL", "false", False),
}


def _crops_of(store: Store, person: object) -> list[int]:
    query = (
        "SELECT m.crop_id FROM identity_now n JOIN identity_member m ON m.identity_id = ANY(n.tracklets) "
        "WHERE n.persistent_id = :id ORDER BY 1"
    )
    with store.begin() as connection:
        return list(connection.execute(text(query), {"id": person}).scalars())


def _hold(server: embedded.EmbeddedServer, store: Store, person: object) -> None:
    """A case that found this person, and holds what it names. Past the rules of cases, which need several people."""
    as_superuser(
        server,
        store,
        "SET session_replication_role = replica",
        "INSERT INTO account (name, password) VALUES ('anna', 'x')",
        "INSERT INTO case_file (name, opened_by, hold) VALUES ('17', 1, true)",
        "INSERT INTO case_authorization (case_id, purpose, legal_basis, sought, units, from_time, to_time, expires_at, "
        "asked_by) SELECT id, 'p', 'l', 's', '{d1}', now(), now() + interval '1 h', now() + interval '1 h', 1 "
        "FROM case_file",
        "INSERT INTO search_request (operator, reason, unit, crop_id, top, model_id, authorization_id) "
        "SELECT 'anna', 'r', 'd1', (SELECT min(m.crop_id) FROM identity_now n JOIN identity_member m "
        f"ON m.identity_id = ANY(n.tracklets) WHERE n.persistent_id = '{person}'), 5, (SELECT id FROM model), id "
        "FROM case_authorization",
        "INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance) "
        f"SELECT r.id, 1, n.id, r.model_id, 1 FROM search_request r, identity_now n WHERE n.persistent_id = '{person}'",
    )
