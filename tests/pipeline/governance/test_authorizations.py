"""Who may ask for, approve, refuse and end an authorization, by commands and by SQL of the program's role."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from pipeline.governance.audit import Action, read_audit
from pipeline.governance.authorizations import (
    MOST_COUNTED,
    Opens,
    approve,
    ask,
    cases,
    close_case,
    hold_case,
    lock_overdue,
    open_case,
    pending,
    refuse,
    revoke,
    show_case,
    what_it_opens,
)
from pipeline.governance.doors import grant_of
from pipeline.governance.purposes import (
    Limits,
    add_purpose,
    assessment,
    change_limits,
    limits,
    purposes,
    retire_purpose,
    state_assessment,
)
from pipeline.store import Store, embedded
from schemas.errors import InputError, NotAllowed
from tests.helpers.governed import Governed, asked
from tests.helpers.homes import fresh_settings, superuser_of
from tests.helpers.rows import insert_city, insert_crop, insert_identity, insert_model, insert_run

NOTHING = Opens(0, 0, 0)


@pytest.fixture(scope="module")
def governed(server: embedded.EmbeddedServer) -> Iterator[Governed]:
    """One live home for all tests here; each opens cases of its own."""
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        with store.begin() as connection:
            connection.execute(text("INSERT INTO city (timezone, digest) VALUES ('UTC', sha256('city'))"))
            insert_city(connection)
            insert_crop(connection)
            insert_identity(connection, insert_run(connection, insert_model(connection)), unit="d1/s1/b1")
        yield Governed(store, superuser_of(server, settings))


def newest(governed: Governed) -> Any:
    with governed.store.owning() as connection:
        return read_audit(connection, last=1)[0]


def waiting(governed: Governed, case: str, **changed: Any) -> str:
    """An authorization that anna has asked for and nobody has decided on."""
    governed.as_("anna")
    open_case(governed.store, case, reason="reported")
    return str(ask(governed.store, case, asked(**changed)))


def granted(governed: Governed, name: str, authorization: str | UUID) -> bool:
    governed.as_(name, UUID(str(authorization)))
    with governed.store.signed_in() as connection:
        return grant_of(connection) is not None


def test_one_asks_and_another_approves_who_sees_what_it_would_open(governed: Governed) -> None:
    store = governed.store
    authorization = waiting(governed, "counts", units=("d1/s1/b1",))
    assert not granted(governed, "anna", authorization)
    governed.as_("ben")
    found, opens = what_it_opens(store, authorization[:8])
    assert (found.state, found.asked_by, found.case_name) == ("asked", "anna", "counts")
    assert opens == Opens(crops=1, cameras=1, identities=1)
    assert (found.id, opens) in [(row.id, count) for row, count in pending(store)]
    approve(store, authorization, opens, reason="in proportion")
    row = newest(governed)
    assert (row.action, row.reason, row.unit) == (Action.CASE_APPROVE, "in proportion", "d1/s1/b1")
    assert row.details["opens"] == {"crops": 1, "cameras": 1, "identities": 1}
    assert granted(governed, "anna", authorization)
    _, (shown,) = show_case(store, "counts")
    assert (shown.state, shown.approved_by, shown.opens) == ("approved", "ben", row.details["opens"])
    assert "counts" in [case.name for case in cases(store)]


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"to_time": datetime(2026, 2, 1, tzinfo=UTC)}, "the period is longer than 168 hours"),
        ({"expires_at": datetime.now(UTC) + timedelta(days=40)}, "expires later than 720 hours"),
        (
            {"to_time": datetime.now(UTC) + timedelta(days=9), "from_time": datetime.now(UTC) + timedelta(days=5)},
            "the period is not over yet",
        ),
        (
            {"to_time": datetime.now(UTC) + timedelta(hours=1), "from_time": datetime.now(UTC)},
            "kind standing",
        ),
        ({"purpose": "curiosity"}, "curiosity is no purpose of the list"),
        ({"kind": "urgent"}, "urgent use is off"),
        ({"kind": "standing"}, "standing searches are off"),
        ({"units": ("d1", "d9")}, "there is no unit d9"),
    ],
)
def test_what_is_unbounded_or_off_is_refused(governed: Governed, changed: dict[str, Any], match: str) -> None:
    governed.as_("anna")
    name = f"refused {match}"
    open_case(governed.store, name, reason="reported")
    with pytest.raises(NotAllowed, match=match):
        ask(governed.store, name, asked(**changed))
    assert newest(governed).action == Action.ACCESS_REFUSE
    assert show_case(governed.store, name)[1] == []


@pytest.mark.parametrize(
    "change",
    ["from_time = '-infinity'", "to_time = 'infinity'", "expires_at = 'infinity'", "units = '{}'", "units = '{\"\"}'"],
)
def test_sql_of_the_program_asks_for_nothing_unbounded(governed: Governed, change: str) -> None:
    governed.as_("anna")
    column, value = change.split(" = ")
    usual = {
        "units": "'{d1}'",
        "from_time": "'2026-01-01Z'",
        "to_time": "'2026-01-02Z'",
        "expires_at": "now() + interval '1 day'",
    }
    columns = usual | {column: value}
    case = open_case(governed.store, f"sql {change}", reason="reported")
    sql = (
        f"INSERT INTO case_authorization (case_id, purpose, legal_basis, sought, {', '.join(columns)}) "
        f"VALUES (:case, 'missing-person', 'law', 'a child', {', '.join(columns.values())})"
    )
    refusal = pytest.raises(Exception, match=r"violates check constraint|longer than|expires later|there is no unit")
    with refusal, governed.store.signed_in() as connection:
        connection.execute(text(sql), {"case": case})


def test_nobody_approves_what_they_asked_for_and_only_supervisors_decide(governed: Governed) -> None:
    store = governed.store
    authorization = waiting(governed, "who decides")
    with pytest.raises(NotAllowed, match="needs the role supervisor, and anna is signed in as operator"):
        approve(store, authorization, NOTHING, reason="mine")
    governed.as_("ben")
    open_case(store, "own", reason="reported")
    own = str(ask(store, "own", asked()))
    with pytest.raises(NotAllowed, match="ben is requester in this case and cannot be its approver too"):
        approve(store, own, NOTHING, reason="mine")
    approve(store, authorization, what_it_opens(store, authorization)[1], reason="in proportion")
    with pytest.raises(NotAllowed, match="ben is approver in this case and cannot be its requester too"):
        ask(store, "who decides", asked())
    governed.as_(None)
    with pytest.raises(NotAllowed, match="needs an account"):
        approve(store, own, NOTHING, reason="nobody")
    for name in ("otto", "ada", "emil"):
        governed.as_(name)
        with pytest.raises(NotAllowed, match=f"{name} is signed in as"):
            open_case(store, f"of {name}", reason="curiosity")
    for nobody in ("ada", "emil", None):
        governed.as_(nobody)
        looks: list[Callable[[Store], object]] = [cases, pending]
        looks += [lambda store: show_case(store, "own"), lambda store: what_it_opens(store, own)]
        for look in looks:
            with pytest.raises(NotAllowed, match=r"looking at cases needs the role auditor or operator or supervisor"):
                look(store)


def test_sql_of_the_program_meets_the_same_rules(governed: Governed) -> None:
    authorization = waiting(governed, "by sql")
    for name, match in (("anna", "needs the role supervisor"), ("ben", "states what the approver was shown")):
        governed.as_(name)
        with pytest.raises(NotAllowed, match=match), governed.store.signed_in() as connection:
            connection.execute(
                text("UPDATE case_authorization SET approved_by = 2, approved_at = now() WHERE id = :id"),
                {"id": authorization},
            )
    with pytest.raises(NotAllowed, match="read committed"), governed.store.signed_in() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        connection.execute(
            text("UPDATE case_authorization SET approved_at = now(), opens = '{}' WHERE id = :id"),
            {"id": authorization},
        )
    governed.as_("anna")
    case = open_case(governed.store, "forged", reason="reported")
    with governed.store.signed_in() as connection:  # who asked is the database's to say
        made = connection.execute(
            text(
                "INSERT INTO case_authorization (case_id, purpose, legal_basis, sought, units, from_time, to_time, "
                "expires_at, asked_by) VALUES (:case, 'missing-person', 'law', 'a child', '{d1}', '2026-01-01Z', "
                "'2026-01-02Z', now() + interval '1 day', 2) RETURNING account_name(asked_by)"
            ),
            {"case": case},
        ).scalar_one()
    assert made == "anna"
    with governed.store.signed_in() as connection:  # whoever revokes does nothing else
        left = connection.execute(
            text(
                "UPDATE case_authorization SET approved_by = 2, approved_at = now(), revoked_by = 2, "
                "revoked_at = now() WHERE id = :id RETURNING account_name(revoked_by), approved_at"
            ),
            {"id": authorization},
        ).one()
    assert tuple(left) == ("anna", None)


def test_an_approver_is_shown_no_less_than_it_opens_by_the_databases_count(governed: Governed) -> None:
    store = governed.store
    authorization = waiting(governed, "counted", units=("d1/s1/b1",))
    governed.as_("ben")
    for less in (NOTHING, Opens(crops=1, cameras=1, identities=0), Opens(crops=0, cameras=9, identities=9)):
        with pytest.raises(NotAllowed, match="it opens more than the approver was shown"):
            approve(store, authorization, less, reason="in proportion")
    approve(store, authorization, Opens(crops=900, cameras=80, identities=70), reason="in proportion")
    counted = {"crops": 1, "cameras": 1, "identities": 1}
    assert newest(governed).details["opens"] == counted == show_case(store, "counted")[1][0].opens


def test_what_many_pictures_open_is_not_counted_to_the_end(governed: Governed) -> None:
    store, camera = governed.store, "d1/s1/b1/c1"
    authorization = waiting(governed, "many", units=("d1/s1/b1",))
    governed.past_rules(_CROPS, camera, MOST_COUNTED + 40)
    try:
        governed.as_("ben")
        _, opens = what_it_opens(store, authorization)
        assert opens == Opens(crops=MOST_COUNTED + 1, cameras=1, identities=1)
        with pytest.raises(NotAllowed, match="it opens more than the approver was shown"):
            approve(store, authorization, replace(opens, crops=MOST_COUNTED), reason="in proportion")
        governed.past_rules(_CROPS.replace("many", "more"), camera, 5)  # which changes nothing of what was shown
        approve(store, authorization, opens, reason="in proportion")
        assert newest(governed).details["opens"]["crops"] == MOST_COUNTED + 1
    finally:
        governed.past_rules("DELETE FROM crop WHERE source IN ('many', 'more')")


_CROPS = (
    "INSERT INTO crop (key, camera, captured_at, timed, source, picture, width_px, height_px, quality) "
    "SELECT sha256(convert_to('many ' || n, 'UTF8')), %s, timestamptz '2026-01-01 10:00Z' + n * interval '1 ms', true, "
    "'many', sha256('x'), 8, 16, 0.5 FROM generate_series(1, %s) AS n"
)


def test_who_is_supervisor_elsewhere_does_not_decide_here(governed: Governed) -> None:
    authorization = waiting(governed, "elsewhere")
    governed.sql("UPDATE account_role SET unit = 'd1/s1' WHERE role = 'supervisor'")
    governed.as_("ben")
    try:
        with pytest.raises(NotAllowed, match="ben is supervisor of other units"):
            approve(governed.store, authorization, NOTHING, reason="in proportion")
    finally:
        governed.sql("UPDATE account_role SET unit = '' WHERE role = 'supervisor'")


def test_a_refused_or_revoked_one_holds_no_more_and_a_closed_case_ends_all(governed: Governed) -> None:
    store = governed.store
    refused = waiting(governed, "refused")
    governed.as_("ben")
    refuse(store, refused, reason="out of proportion")
    with pytest.raises(NotAllowed, match="has ended"):
        approve(store, refused, NOTHING, reason="after all")
    authorization = governed.authorized("revoked")
    assert granted(governed, "cleo", authorization)
    with pytest.raises(NotAllowed, match="by a supervisor or by whoever asked"):
        revoke(store, str(authorization), reason="not mine")
    governed.as_("anna")
    revoke(store, str(authorization), reason="found")
    assert not granted(governed, "anna", authorization)
    authorization = governed.authorized("closed")
    governed.as_("ben")
    hold_case(store, "closed", hold=True, reason="court")
    close_case(store, "closed", reason="over")
    case, (row,) = show_case(store, "closed")
    assert case.hold and case.closed_at is not None and row.state == "revoked"
    assert not granted(governed, "anna", authorization)
    changes: list[Callable[[], object]] = [
        lambda: hold_case(store, "closed", hold=True, reason="again"),
        lambda: ask(store, "closed", asked()),
    ]
    for change in changes:
        governed.as_("anna")
        with pytest.raises(NotAllowed, match="closed"):
            change()
    with pytest.raises(InputError, match="there is no case 'none'"):
        show_case(store, "none")


def test_a_case_closes_whatever_has_ended_in_it_and_its_hold_ends_after_that(governed: Governed) -> None:
    store = governed.store
    authorization = governed.authorized("ended")
    governed.past_rules(
        "UPDATE case_authorization SET asked_at = now() - interval '2 h', expires_at = now() WHERE id = %s",
        authorization,
    )
    governed.as_("dora")
    with pytest.raises(NotAllowed, match="said by a supervisor, or by whoever opened it"):
        hold_case(store, "ended", hold=True, reason="mine")
    governed.as_("anna")
    hold_case(store, "ended", hold=True, reason="court")
    close_case(store, "ended", reason="over")
    hold_case(store, "ended", hold=False, reason="the court is done")
    case, (row,) = show_case(store, "ended")
    assert case.closed_at is not None and not case.hold and row.state == "expired"


def test_urgent_use_begins_at_once_and_is_locked_without_approval(governed: Governed) -> None:
    store = governed.store
    governed.as_("ada")
    change_limits(store, Limits(168, 720, urgent=True, standing=False), reason="council's decision 4")
    try:
        kept, late, refused = (waiting(governed, f"urgent {n}", kind="urgent") for n in range(3))
        assert all(granted(governed, "anna", one) for one in (kept, late, refused))
        governed.as_("ben")
        approve(store, kept, what_it_opens(store, kept)[1], reason="in proportion")
        refuse(store, refused, reason="not urgent")
        earlier = "UPDATE case_authorization SET asked_at = now() - interval '48 hours' WHERE id IN (%s, %s)"
        governed.past_rules(earlier, kept, late)
        assert granted(governed, "anna", kept) and not granted(governed, "anna", late)
        governed.as_("ben")
        with pytest.raises(NotAllowed, match="has ended"):
            approve(store, late, NOTHING, reason="late")
        assert lock_overdue(store) == 2 and lock_overdue(store) == 0
        states = {str(row.id): row.state for n in range(3) for row in show_case(store, f"urgent {n}")[1]}
        assert states == {kept: "approved", late: "locked", refused: "locked"}
        assert newest(governed).action == Action.CASE_LOCK
    finally:
        governed.as_("ada")
        change_limits(store, Limits(168, 720, urgent=False, standing=False), reason="over")


def test_the_frame_is_the_administrators(governed: Governed) -> None:
    store = governed.store
    changes: list[Callable[[], object]] = [
        lambda: add_purpose(store, "lost-property", "things", reason="useful"),
        lambda: retire_purpose(store, "missing-person", reason="useful"),
        lambda: state_assessment(store, "none needed", reason="useful"),
        lambda: change_limits(store, Limits(8784, 8784, True, True), reason="useful"),
    ]
    for name in ("anna", "ben", "otto"):
        governed.as_(name)
        for change in changes:
            with pytest.raises(NotAllowed, match="needs the role administrator"):
                change()
    assert limits(store) == Limits(168, 720, False, False) and assessment(store) == "DPIA 2026/7"
    governed.as_("ada")
    changes[0]()
    retire_purpose(store, "lost-property", reason="not a purpose")
    with pytest.raises(InputError, match="already, perhaps a retired one"):
        changes[0]()
    assert [row.name for row in purposes(store) if row.retired_at is None] == ["missing-person"]
    governed.as_("anna")
    open_case(store, "retired", reason="reported")
    with pytest.raises(NotAllowed, match="lost-property is no purpose of the list"):
        ask(store, "retired", asked(purpose="lost-property"))


def test_nothing_is_authorized_before_the_city_has_an_impact_assessment(governed: Governed) -> None:
    governed.as_("anna")
    open_case(governed.store, "early", reason="reported")
    kept = governed.sql("DELETE FROM impact_assessment RETURNING reference")
    with pytest.raises(NotAllowed, match="no reference to an impact assessment"):
        ask(governed.store, "early", asked())
    governed.past_rules("INSERT INTO impact_assessment (reference) VALUES (%s)", kept[-1][0])


def test_an_open_home_has_no_cases(store: Store) -> None:
    with pytest.raises(NotAllowed, match="this home holds no people of real cameras"):
        open_case(store, "case 17", reason="reported")
