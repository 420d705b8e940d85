"""The audit's chain: what the database writes, each way to tamper with it, checkpoints, exports verified elsewhere."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from pipeline.governance import verify_audit
from pipeline.governance.audit import Action, audit, read_audit
from pipeline.governance.audit_chain import checkpoints_path, own_fingerprint, sign_checkpoint, verify_city
from pipeline.governance.audit_export import export
from pipeline.store import Store, embedded
from pipeline.store.user_supplied import supplied_url
from schemas.errors import InputError, StoreError


@pytest.fixture
def audited(store: Store) -> Store:
    """Twelve rows: four of each of two districts, four of none."""
    for number in range(12):
        unit = (None, "d1/s1", "d2")[number % 3]
        with store.begin() as connection:
            audit(connection, "anna", Action.SEARCH_START, unit=unit, reason=f"case {number} é", details={"n": number})
    return store


class Superuser:
    """Runs SQL without triggers and foreign keys, and puts the audit back as it was."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._run("CREATE TABLE kept AS TABLE audit", "CREATE TABLE kept_chain AS TABLE audit_chain")

    def tamper(self, *statements: str) -> None:
        self._run("SET session_replication_role = replica", *statements)

    def put_back(self) -> None:
        self.tamper(
            "DELETE FROM audit_chain",
            "DELETE FROM audit",
            "INSERT INTO audit OVERRIDING SYSTEM VALUE TABLE kept",
            "INSERT INTO audit_chain TABLE kept_chain",
        )

    def _run(self, *statements: str) -> None:
        connection = self._connect()
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.close()


@pytest.fixture
def superuser(server: embedded.EmbeddedServer, audited: Store) -> Superuser:
    database = str(supplied_url(audited.settings).database)
    return Superuser(lambda: server.connect("postgres", database))


def faults(store: Store) -> list[str]:
    return verify_city(store).faults


def test_rows_are_chained_by_district_and_verify(audited: Store) -> None:
    verdict = verify_city(audited)
    assert (verdict.faults, verdict.rows, verdict.erased) == ([], 12, 0)
    assert verdict.heads == {"": 4, "d1": 4, "d2": 4}


def test_time_salt_and_chain_are_the_databases(audited: Store) -> None:
    for sql in (
        "INSERT INTO audit (actor, action, at) VALUES ('anna', 'search.start', now())",
        "INSERT INTO audit (actor, action, salt) VALUES ('anna', 'search.start', sha256(''))",
        "INSERT INTO audit (id, actor, action) OVERRIDING SYSTEM VALUE VALUES (99, 'anna', 'search.start')",
        "INSERT INTO audit_chain VALUES ('', 99, 1, sha256(''))",
        "UPDATE audit SET reason = NULL",
        "DELETE FROM audit",
        "DELETE FROM audit_chain",
        "UPDATE audit_chain SET position = position + 100",
        "TRUNCATE audit CASCADE",
    ):
        with pytest.raises(StoreError, match="permission denied"), audited.begin() as connection:
            connection.execute(text(sql))
    assert verify_city(audited).rows == 12


def test_the_time_is_that_of_the_row_and_not_of_the_transaction(store: Store) -> None:
    with store.signed_in() as connection:
        before = connection.scalar(text("SELECT clock_timestamp()"))
        audit(connection, "anna", Action.PERSON_SHOW, details={})
        assert connection.scalar(text("SELECT at > :before FROM audit"), {"before": before})


def test_a_transaction_that_fails_leaves_no_gap(audited: Store) -> None:
    with pytest.raises(RuntimeError), audited.begin() as connection:
        audit(connection, "anna", Action.SEARCH_START, unit="d1", details={})
        raise RuntimeError
    with audited.begin() as connection:
        audit(connection, "anna", Action.SEARCH_START, unit="d1", details={})
    verdict = verify_city(audited)
    assert (verdict.faults, verdict.heads["d1"]) == ([], 5)


def test_transactions_at_once_make_one_chain_and_none_waits_for_the_other_in_a_circle(audited: Store) -> None:
    def write(order: list[str]) -> None:
        for _ in range(25):
            with audited.begin() as connection:
                for unit in order:
                    audit(connection, "ben", Action.SEARCH_START, unit=unit, details={})

    failed: list[BaseException] = []

    def guarded(order: list[str]) -> None:
        try:
            write(order)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(order,)) for order in (["d1", "d2"], ["d2", "d1"], ["d1", "d2"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdict = verify_city(audited)
    assert (failed, verdict.faults, verdict.heads) == ([], [], {"": 4, "d1": 79, "d2": 79})


#: (name, statements that a superuser runs, what is said). Rows 1, 4, 7, 10 are of no district, 2, 5, ... of d1.
_HASH = "public.audit_hash({}, c.district, c.position, a.id, a.at, a.actor, a.action, a.unit, a.commitment)"
TAMPERINGS: list[tuple[str, list[str], str]] = [
    ("actor", ["UPDATE audit SET actor = 'zoe' WHERE id = 5"], "row 5 (d1, 2)"),
    ("action", ["UPDATE audit SET action = 'report.write' WHERE id = 5"], "row 5 (d1, 2)"),
    ("time", ["UPDATE audit SET at = at - interval '1 microsecond' WHERE id = 5"], "row 5 (d1, 2)"),
    ("unit below", ["UPDATE audit SET unit = 'd1/s2' WHERE id = 5"], "row 5 (d1, 2)"),
    ("unit elsewhere", ["UPDATE audit SET unit = 'd2' WHERE id = 5"], "wrong chain"),
    ("unit gone", ["UPDATE audit SET unit = NULL WHERE id = 5"], "wrong chain"),
    ("reason", ["UPDATE audit SET reason = 'another' WHERE id = 5"], "row 5: its reason"),
    ("reason gone", ["UPDATE audit SET reason = NULL WHERE id = 5"], "row 5: its reason"),
    ("details", ["UPDATE audit SET details = '{\"n\": 5}' WHERE id = 5"], "row 5: its reason"),
    ("salt", ["UPDATE audit SET salt = sha256('') WHERE id = 5"], "row 5: its reason"),
    (
        "reason and commitment",
        [
            "UPDATE audit SET reason = 'another', commitment = sha256(salt || public.audit_fields('another', "
            "details::text)) WHERE id = 5"
        ],
        "row 5 (d1, 2)",
    ),
    ("erased silently", ["UPDATE audit SET reason = NULL, details = '{}', salt = NULL WHERE id = 5"], "row 5"),
    ("row removed", ["DELETE FROM audit WHERE id = 5"], "row 5 was removed"),
    (
        "row and link removed",
        ["DELETE FROM audit WHERE id = 5", "DELETE FROM audit_chain WHERE audit_id = 5"],
        "d1: the chain has nothing at 2",
    ),
    (
        "removed and closed up",
        [
            "DELETE FROM audit WHERE id = 5",
            "DELETE FROM audit_chain WHERE audit_id = 5",
            "UPDATE audit_chain SET position = position - 1 WHERE district = 'd1' AND position > 2",
        ],
        "row 8 (d1, 2)",
    ),
    ("link removed", ["DELETE FROM audit_chain WHERE audit_id = 5"], "row 5 is in no chain"),
    (
        "two swapped",
        [
            "UPDATE audit_chain SET audit_id = CASE audit_id WHEN 5 THEN -8 ELSE -5 END WHERE audit_id IN (5, 8)",
            "UPDATE audit_chain SET audit_id = -audit_id WHERE audit_id < 0",
        ],
        "row 8 (d1, 2)",
    ),
    (
        "two places swapped",
        [
            "UPDATE audit_chain SET position = position + 100 WHERE audit_id = 5",
            "UPDATE audit_chain SET position = 2 WHERE audit_id = 8",
            "UPDATE audit_chain SET position = 3 WHERE audit_id = 5",
        ],
        "row 8 (d1, 2)",
    ),
    (
        "row inserted past the trigger",
        [
            "INSERT INTO audit (actor, action, commitment, salt, details) SELECT 'zoe', 'search.start', "
            "sha256(sha256('') || public.audit_fields(NULL, '{}')), sha256(''), '{}'"
        ],
        "row 13 is in no chain",
    ),
    ("hash", ["UPDATE audit_chain SET hash = sha256('') WHERE audit_id = 5"], "row 5 (d1, 2)"),
    (
        "row with its hash",
        [
            "UPDATE audit SET actor = 'zoe' WHERE id = 5",
            f"UPDATE audit_chain c SET hash = {_HASH.format('b.hash')} FROM audit a, audit_chain b "
            "WHERE a.id = 5 AND c.audit_id = 5 AND b.district = 'd1' AND b.position = 1",
        ],
        "row 8 (d1, 3)",
    ),
    ("first removed", ["DELETE FROM audit_chain WHERE audit_id = 2", "DELETE FROM audit WHERE id = 2"], "nothing at 1"),
    ("end cut", ["DELETE FROM audit_chain WHERE audit_id = 11", "DELETE FROM audit WHERE id = 11"], "ends at 3"),
    ("district cut", ["DELETE FROM audit_chain WHERE district = 'd2'", "DELETE FROM audit WHERE unit = 'd2'"], "d2"),
    ("all cut", ["DELETE FROM audit_chain", "DELETE FROM audit"], "ends at 0"),
    (
        "last row with its hash",
        [
            "UPDATE audit SET actor = 'zoe' WHERE id = 11",
            f"UPDATE audit_chain c SET hash = {_HASH.format('b.hash')} FROM audit a, audit_chain b "
            "WHERE a.id = 11 AND c.audit_id = 11 AND b.district = 'd1' AND b.position = 3",
        ],
        "d1, 4: not what the checkpoint",
    ),
]


def test_every_tampering_of_a_superuser_is_found(audited: Store, superuser: Superuser) -> None:
    sign_checkpoint(audited)
    for name, statements, said in TAMPERINGS:
        superuser.tamper(*statements)
        found = faults(audited)
        assert any(said in fault for fault in found), (name, found)
        superuser.put_back()
        assert faults(audited) == [], name


def test_a_change_of_any_cell_of_any_row_is_found(audited: Store, superuser: Superuser) -> None:
    values = {
        "actor": "'zoe'",
        "action": "'report.write'",
        "at": "at + interval '1 hour'",
        "reason": "reason || ' '",
        "details": """'{"n": -1}'""",
        "salt": "sha256(salt)",
        "commitment": "sha256(commitment)",
        "unit": "coalesce(unit || '/x', 'd3')",
    }
    for column, value in values.items():
        for row in (1, 5, 12):
            superuser.tamper(f"UPDATE audit SET {column} = {value} WHERE id = {row}")
            assert any(f"row {row}" in fault for fault in faults(audited)), (column, row)
            superuser.put_back()
    assert faults(audited) == []


def test_an_erased_reason_verifies_once_a_row_says_so(audited: Store, superuser: Superuser) -> None:
    superuser.tamper("UPDATE audit SET reason = NULL, details = '{}', salt = NULL WHERE id = 5")
    assert faults(audited) == ["row 5: its reason and details are gone, and no row of audit.erase says so"]
    with audited.signed_in() as connection:
        connection.execute(
            text("INSERT INTO audit (actor, action, details) VALUES ('anna', 'audit.erase', '{\"rows\": [5]}')")
        )
    verdict = verify_city(audited)
    assert (verdict.faults, verdict.erased, verdict.rows) == ([], 1, 13)


def test_checkpoints_are_a_chain_of_their_own(audited: Store) -> None:
    path = checkpoints_path(audited.settings)
    for number in range(3):
        signed = sign_checkpoint(audited)
        assert signed.rows == 12 + number and signed.key == own_fingerprint(audited.settings)
        with audited.begin() as connection:
            audit(connection, "ben", Action.REPORT_WRITE, unit="d1", details={})
    assert path.stat().st_mode & 0o777 == 0o600 and faults(audited) == []
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[2]]) + "\n")
    assert faults(audited) == ["checkpoint 2: the one before it was removed or moved"]
    changed = json.loads(lines[1]) | {"heads": {"d1": [1, "00" * 32]}}
    path.write_text("\n".join([lines[0], json.dumps(changed), "{}", "nonsense"]) + "\n")
    assert faults(audited) == [f"checkpoint {number}: it was changed, or is none" for number in (2, 3, 4)]


def test_checkpoints_of_another_key_are_none(audited: Store) -> None:
    sign_checkpoint(audited)
    assert verify_city(audited, key="00" * 32).faults == [
        f"checkpoint 1: signed with another key, {own_fingerprint(audited.settings)}"
    ]


def test_a_key_is_checked_where_there_are_no_checkpoints_too(audited: Store, tmp_path: Path) -> None:
    """What an auditor noted down counts: with the file of checkpoints gone, any key would verify otherwise."""
    key = "0a" * 32
    (fault,) = verify_city(audited, key.upper()).faults
    assert fault.startswith(f"no checkpoint is there, so none that {key} signed")
    export(audited, tmp_path / "export", operator="cleo", reason="a test")
    code, said = run_verifier(tmp_path / "export", "--key", key)
    assert code == 1 and said.startswith(fault)
    for wrong in ("", "nonsense", key[:-1]):
        with pytest.raises(InputError, match=r"^--key '.*' is no fingerprint of a key"):
            verify_city(audited, wrong)
        code, said = run_verifier(tmp_path / "export", "--key", wrong)
        assert code == 1 and "is no fingerprint of a key" in said and "damaged" not in said


def test_a_cut_chain_gets_no_new_checkpoint(audited: Store, superuser: Superuser) -> None:
    sign_checkpoint(audited)
    superuser.tamper("DELETE FROM audit_chain WHERE district = 'd2'")
    with pytest.raises(InputError, match=r"states 4 rows of d2 and the database has fewer"):
        sign_checkpoint(audited)


def run_verifier(folder: Path, *arguments: str) -> tuple[int, str]:
    """Runs the exported program as a stranger would: nothing of this project can be imported."""
    command = [sys.executable, "-P", "-S", "-c", _ISOLATED, str(folder / "verify_audit.py"), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    return done.returncode, done.stdout + done.stderr


_ISOLATED = (
    "import sys, site, runpy; site.main(); "
    "sys.meta_path.insert(0, type('No', (), {'find_spec': staticmethod(lambda name, *_: "
    "(_ for _ in ()).throw(ImportError(name)) if name in ('pipeline', 'schemas', 'urban_reid') else None)})); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def test_an_export_verifies_elsewhere_and_a_changed_one_does_not(audited: Store, tmp_path: Path) -> None:
    sign_checkpoint(audited)
    folder = tmp_path / "export"
    assert export(audited, folder, operator="cleo", reason="yearly | report") == 13
    assert run_verifier(folder) == (0, "verified: 13 rows, 0 of them erased, 1 checkpoints\n")
    page = (folder / "audit.md").read_text()
    assert "| search.start | 12 |" in page and "| audit.export | 1 |" in page and "yearly \\| report" in page
    assert "case 7 é" in page
    rows = folder / "audit.jsonl"
    whole = rows.read_text()
    for old, new in (("case 7", "case 8"), ('"anna"', '"zoe"')):
        rows.write_text(whole.replace(old, new, 1))
        code, said = run_verifier(folder)
        assert code == 1 and "changed" in said
    rows.write_text("\n".join(whole.splitlines()[:-1]) + "\n")
    code, said = run_verifier(folder)
    assert code == 1 and "the export states rows up to 4" in said
    rows.write_text("{}\n")
    assert run_verifier(folder)[0] == 1
    with pytest.raises(InputError, match="is not an empty folder"):
        export(audited, folder, operator="cleo", reason="again")


def test_a_part_of_the_chain_verifies_against_the_checkpoints(audited: Store, tmp_path: Path) -> None:
    sign_checkpoint(audited)
    with audited.begin() as connection:
        connection.execute(text("SELECT pg_sleep(0.01)"))
    since = datetime.now(UTC)
    with audited.begin() as connection:
        audit(connection, "ben", Action.REPORT_WRITE, unit="d1", details={})
    folder = tmp_path / "part"
    assert export(audited, folder, operator="cleo", reason="a week", since=since) == 2
    verdict = verify_audit.verify_export(folder)
    assert (verdict.faults, verdict.rows, verdict.heads) == ([], 2, {"": 5, "d1": 5, "d2": 4})
    rows = folder / "audit.jsonl"
    head, *others = rows.read_text().splitlines()
    starts = json.loads(head)
    starts["starts"]["d1"][1] = "00" * 32
    rows.write_text("\n".join([json.dumps(starts), *others]) + "\n")
    found = verify_audit.verify_export(folder).faults
    assert any("not what the checkpoint" in fault for fault in found) and any("row 13" in fault for fault in found)


def test_rows_are_read_by_what_they_say(audited: Store) -> None:
    with audited.signed_in() as connection:
        connection.execute(text("INSERT INTO audit (actor, action, unit) VALUES ('ben', 'report', 'd1')"))  # of 0.1
    with audited.signed_in() as connection:
        assert [row.id for row in read_audit(connection, last=2)] == [12, 13]
        assert [row.id for row in read_audit(connection, unit="d1")] == [2, 5, 8, 11, 13]
        assert [row.id for row in read_audit(connection, actor="ben")] == [13]
        assert [row.actor for row in read_audit(connection, action="report.write")] == ["ben"]
        late = datetime.now(UTC) + timedelta(hours=1)
        assert read_audit(connection, start=late) == [] and len(read_audit(connection, end=late)) == 13
        with pytest.raises(InputError, match=r"no action 'report\.writ'; there are, among others: report\.write"):
            read_audit(connection, action="report.writ")


def test_a_file_of_checkpoints_that_cannot_be_used_is_one_error_of_ours(audited: Store, tmp_path: Path) -> None:
    """`up` goes on resolving when the disk that keeps the checkpoints is away."""
    (tmp_path / "file").write_text("")
    audited.settings = audited.settings.model_copy(update={"audit_checkpoints": tmp_path / "file" / "checkpoints"})
    with pytest.raises(InputError, match=r"a checkpoint cannot be written to .*: File exists"):
        sign_checkpoint(audited)
    audited.settings = audited.settings.model_copy(update={"audit_checkpoints": tmp_path})
    with pytest.raises(InputError, match=r"cannot be read: .*Is a directory"):
        verify_city(audited)
    with pytest.raises(InputError, match=r"file/export cannot be made: "):
        export(audited, tmp_path / "file" / "export", operator="cleo", reason="a test")
    (tmp_path / "nonsense").write_text("nonsense\n")
    audited.settings = audited.settings.model_copy(update={"audit_checkpoints": tmp_path / "nonsense"})
    with pytest.raises(InputError, match=r"the last line of .*nonsense is no checkpoint"):
        sign_checkpoint(audited)
