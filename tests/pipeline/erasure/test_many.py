"""Fifty people of a resolved city erased; an erasure killed in the middle; what the verification finds."""

import sqlite3
import threading
from uuid import uuid4

import pytest
from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.city.watermarks import any_pending, mark_everything
from pipeline.erasure import erase as erasing
from pipeline.erasure.absence import verify_absence
from pipeline.erasure.erase import erase, finish_all
from pipeline.erasure.erasure_list import list_path, read_list
from pipeline.governance.audit_chain import verify_city
from pipeline.resolve import units_within
from pipeline.store import Store
from pipeline.store.locks import unit_lock
from schemas.errors import InputError, StoreError
from tests.helpers.orphans import count_orphans
from tests.helpers.thin_town import ThinTown


def people(store: Store, most: int) -> list[str]:
    query = text("SELECT persistent_id FROM identity_now WHERE unit = 'd1' ORDER BY crops DESC, key LIMIT :most")
    with store.begin() as connection:
        return [str(one) for one in connection.execute(query, {"most": most}).scalars()]


def count(store: Store, table: str) -> int:
    with store.begin() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def digest(store: Store) -> str:
    with store.begin() as connection:
        return decision_digest(connection)


def test_fifty_people_are_gone_and_the_others_are_as_before(thin: ThinTown) -> None:
    store = thin.store
    before, crops = digest(store), count(store, "crop")
    assert len(people(store, 60)) == 60
    done = erase(store, "identity", people(store, 50), actor="anna", reason="asked for")
    assert done.counts["crops"] > 300 and count(store, "crop") == crops - done.counts["crops"]
    assert digest(store) == before
    assert verify_city(store).faults == []
    absence = verify_absence(store, str(done.id), actor="anna")
    assert absence.found == () and absence.hashes > done.counts["crops"]
    with store.begin() as connection:
        assert not any_pending(connection, units_within(store, "d1"))
        assert set(count_orphans(connection).values()) == {0}
        dangling = connection.scalar(
            text(
                "SELECT count(*) FROM identity i CROSS JOIN unnest(i.tracklets) AS t(id) "
                "WHERE NOT EXISTS (SELECT FROM identity o WHERE o.id = t.id)"
            )
        )
    assert dangling == 0
    assert sum(result.written for result in thin.resolve()) == 0
    salt, hashes = read_list(list_path(store.settings))
    assert len(salt) == 32 and len(hashes) == absence.hashes


@pytest.mark.system
def test_windows_resolved_again_after_an_erasure_hold_together(thin: ThinTown) -> None:
    store = thin.store
    erase(store, "identity", people(store, 20), actor="anna", reason="asked for")
    with store.begin() as connection:
        mark_everything(connection)
    thin.resolve()
    with store.begin() as connection:
        assert set(count_orphans(connection).values()) == {0}
    assert sum(result.written for result in thin.resolve()) == 0


def test_an_erasure_that_was_killed_goes_on_with_the_next(thin: ThinTown, monkeypatch: pytest.MonkeyPatch) -> None:
    store = thin.store

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(erasing, "remove_files", killed)
        with pytest.raises(KeyboardInterrupt):
            erase(store, "identity", people(store, 1), actor="anna", reason="asked for")
    assert count(store, "erasure_name") > 0
    (done,) = finish_all(store)
    assert count(store, "erasure_name") == 0 and done.counts["crops"] > 0
    assert verify_absence(store, str(done.id), actor="anna").found == ()
    assert finish_all(store) == []


def test_the_verification_finds_what_came_back(thin: ThinTown) -> None:
    store = thin.store
    (person,) = people(store, 1)
    query = "SELECT encode(c.key, 'hex') FROM crop c JOIN identity_member m ON m.crop_id = c.id JOIN identity_now n ON "
    query += "m.identity_id = ANY(n.tracklets) WHERE n.persistent_id = :id LIMIT 1"
    with store.begin() as connection:
        key = connection.execute(text(query), {"id": person}).scalar_one()
    done = erase(store, "identity", [person], actor="anna", reason="asked for")
    assert verify_absence(store, person, actor="anna").found == ()
    assert verify_absence(store, key, actor="anna").found == ()
    with store.begin() as connection:
        connection.execute(text("INSERT INTO audit (actor, action, reason) VALUES ('a', 'report', :why)"), {"why": key})
    (store.settings.home / "prefect").mkdir()
    with sqlite3.connect(store.settings.home / "prefect" / "prefect.db") as database:
        database.execute("CREATE TABLE flow_run (name TEXT)")
        database.execute("INSERT INTO flow_run VALUES (?)", (f"about {person}",))
    (store.settings.home / "notes").mkdir()
    (store.settings.home / "notes" / "mine.txt").write_text(f"{key}\n")
    found = verify_absence(store, str(done.id), actor="anna").found
    assert [line.split(":")[0].split()[0] for line in found] == ["table", "file", "Prefect's"]
    for other in (str(uuid4()), "f" * 64):
        with pytest.raises(InputError, match="was erased here"):
            verify_absence(store, other, actor="anna")
    with pytest.raises(InputError, match="is no id"):
        verify_absence(store, "anna", actor="anna")


def test_what_is_not_there_is_refused_and_nothing_changes(thin: ThinTown) -> None:
    store = thin.store
    crops = count(store, "crop")
    some = people(store, 1)
    for kind, names in (
        ("identity", [*some, "0000beef-0000"]),
        ("identity", ["zz"]),
        ("crop", ["f" * 64]),
        ("crop", ["f"]),
        ("probe", [str(uuid4())]),
        ("probe", ["me.jpg"]),
        ("case", ["no such case"]),
    ):
        with pytest.raises(InputError):
            erase(store, kind, names, actor="anna", reason="asked for")
    assert count(store, "crop") == crops and count(store, "erasure") == 0


def test_the_program_can_remove_nothing_past_an_erasure(store: Store) -> None:
    for sql in (
        f"SELECT erase_rows('{uuid4()}', ARRAY[1], '{{}}', '{{}}')",
        f"SELECT erase_audit('{uuid4()}')",
        f"SELECT expire_crops('{uuid4()}', ARRAY[1])",
        "SELECT remove_versions(ARRAY[1])",
        "DELETE FROM erased",
        "UPDATE erasure_salt SET salt = sha256('')",
        "DELETE FROM retention",
    ):
        with pytest.raises(StoreError, match=r"no erasure|no run|permission denied"), store.begin() as connection:
            connection.execute(text(sql))


def test_an_erasure_waits_for_the_resolve_of_its_units(thin: ThinTown) -> None:
    store = thin.store
    told: list[str] = []
    holding, release = threading.Event(), threading.Event()

    def resolve() -> None:
        with unit_lock(store, "d1/s1"):
            holding.set()
            release.wait(60)

    def waiting(line: str) -> None:
        told.append(line)
        assert count(store, "erasure") == 0
        release.set()

    resolving = threading.Thread(target=resolve)
    resolving.start()
    assert holding.wait(60)
    done = erase(store, "identity", [people(store, 1)[0][:13]], actor="anna", reason="asked for", on_wait=waiting)
    resolving.join()
    assert len(told) == 1 and "d1/s1" in told[0] and done.counts["crops"] > 0
