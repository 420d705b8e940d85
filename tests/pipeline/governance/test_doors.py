"""Open and live homes, and what `granted()` says of sessions and authorizations."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, text

from pipeline.city.units import read_city_file, store_city
from pipeline.governance.audit import Action, audit, read_audit
from pipeline.governance.doors import Grant, check_authorized, check_role, grant_of
from pipeline.ingest.batches import Source, open_batch
from pipeline.store import Store, embedded
from schemas.errors import NotAllowed, StoreError
from schemas.settings import Settings
from tests.helpers.homes import become_live, past_case_rules, superuser_of, unbound

Beyond = Callable[[], AbstractContextManager[Connection]]

TOKEN = "ab" * 32
NOW = datetime.now(UTC)


@pytest.fixture
def live(server: embedded.EmbeddedServer, settings: Settings, store: Store, city_files: Path) -> Store:
    """A live home with the accounts anna and ben; who opens it holds TOKEN."""
    store_city(store, read_city_file(city_files / "city.yaml"))
    become_live(superuser_of(server, settings))
    past_case_rules(superuser_of(server, settings))
    with store.signing_in() as connection:
        connection.execute(text("INSERT INTO account (name, password) VALUES ('anna', 'x'), ('ben', 'x')"))
    store.settings = settings.model_copy(update={"token": SecretStr(TOKEN)})
    return store


@pytest.fixture
def beyond(server: embedded.EmbeddedServer, settings: Settings) -> Beyond:
    """Transactions of a superuser."""
    return lambda: unbound(server, settings)


def sign_in(
    connection: Connection, role: str = "operator", units: str = "{d1}", authorization: UUID | None = None
) -> None:
    connection.execute(
        text(
            "INSERT INTO session (hash, account_id, role, units, authorization_id, expires_at) VALUES (sha256(decode("
            ":token, 'hex')), 1, CAST(:role AS account_role_kind), :units, :authorization, now() + interval '1 hour')"
        ),
        {"token": TOKEN, "role": role, "units": units, "authorization": authorization},
    )


def authorization(
    connection: Connection, units: str = "{d1/s1,d2}", kind: str = "search", approved: bool = True
) -> UUID:
    case: UUID = connection.execute(
        text("INSERT INTO case_file (name, opened_by) VALUES (:name, 1) RETURNING id"), {"name": str(uuid4())}
    ).scalar_one()
    made: UUID = connection.execute(
        text(
            "INSERT INTO case_authorization (case_id, kind, purpose, legal_basis, sought, units, from_time, to_time, "
            "expires_at, asked_by, approved_by, approved_at) VALUES (:case, CAST(:kind AS authorization_kind), "
            "'missing person', 'law 1', 'a child', :units, now() - interval '1 day', now(), now() + interval '1 day', "
            "1, CASE WHEN :approved THEN 2 END, CASE WHEN :approved THEN now() END) RETURNING id"
        ),
        {"case": case, "units": units, "kind": kind, "approved": approved},
    ).scalar_one()
    return made


def now_granted(store: Store, request: UUID | None = None) -> Grant | None:
    with store.signed_in(request) as connection:
        return grant_of(connection)


def test_a_home_becomes_live_with_the_first_batch_that_is_neither_synthetic_nor_a_data_set(
    server: embedded.EmbeddedServer, settings: Settings, store: Store, city_files: Path
) -> None:
    def kind_after(source: Source) -> str:
        with store.begin() as connection:
            open_batch(connection, source, "anna")
            return str(connection.scalar(text("SELECT kind FROM city")))

    with superuser_of(server, settings)() as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ingest_batch ENABLE TRIGGER city_kind_of_batch")
    city = read_city_file(city_files / "city.yaml")
    store_city(store, city)
    assert now_granted(store) == Grant(None, None, None, ("",), None, None, None, True)
    assert kind_after(Source("dataset:market1501", "a")) == "data-set"
    assert kind_after(Source("manifest", "b", synthetic=True)) == "synthetic"
    assert kind_after(Source("video", "c")) == "live"
    assert kind_after(Source("manifest", "d", synthetic=True)) == "live"
    store_city(store, city, is_demo=True)
    assert now_granted(store) is None


def test_a_demo_is_synthetic_from_its_city_on(store: Store, city_files: Path) -> None:
    store_city(store, read_city_file(city_files / "city.yaml"), is_demo=True)
    with store.begin() as connection:
        assert connection.scalar(text("SELECT kind FROM city")) == "synthetic"


def test_an_authorization_narrows_a_session_to_the_units_of_both_and_to_its_period(live: Store, beyond: Beyond) -> None:
    with beyond() as connection:
        sign_in(connection, authorization=authorization(connection))
    grant = now_granted(live)
    assert grant is not None and grant.from_time is not None and grant.to_time is not None
    assert (grant.name, grant.role, grant.units, grant.is_open) == ("anna", "operator", ("d1/s1",), False)
    assert grant.to_time - grant.from_time == timedelta(days=1)


@pytest.mark.parametrize(
    "undone",
    [
        "UPDATE session SET ended_at = now()",
        "UPDATE session SET expires_at = now()",
        "UPDATE account SET disabled_at = now() WHERE id = 1",
        "UPDATE case_authorization SET revoked_at = now(), revoked_by = 2",
        "UPDATE case_authorization SET locked_at = now()",
        "UPDATE case_authorization SET approved_at = NULL, approved_by = NULL",
        "UPDATE case_authorization SET asked_at = now() - interval '2 days', expires_at = now() - interval '1 s'",
        "UPDATE session SET hash = sha256('forged')",
    ],
)
def test_nothing_is_granted_any_more(
    server: embedded.EmbeddedServer, settings: Settings, live: Store, beyond: Beyond, undone: str
) -> None:
    with beyond() as connection:
        sign_in(connection, authorization=authorization(connection))
    assert now_granted(live) is not None
    with superuser_of(server, settings)() as connection, connection.cursor() as cursor:
        cursor.execute(undone)
    assert now_granted(live) is None


def test_an_urgent_authorization_holds_48_hours_without_an_approval(
    server: embedded.EmbeddedServer, settings: Settings, live: Store, beyond: Beyond
) -> None:
    with beyond() as connection:
        sign_in(connection, authorization=authorization(connection, kind="urgent", approved=False))
    assert now_granted(live) is not None
    with superuser_of(server, settings)() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE case_authorization SET asked_at = now() - interval '48 hours'")
    assert now_granted(live) is None


def test_whoever_looks_needs_an_account_a_role_an_authorization_and_its_unit(live: Store, beyond: Beyond) -> None:
    def look(unit: str = "d1/s1/b1") -> Grant:
        return check_authorized(live, unit, "a search", Action.PEOPLE_SHOW)

    def refused(match: str, ask: Callable[[], object] = look) -> None:
        with pytest.raises(NotAllowed, match=match):
            ask()
        with beyond() as connection:
            newest = read_audit(connection, last=1)[0]
        assert newest.action == Action.ACCESS_REFUSE

    refused("sign in with `urban-reid login`")
    with beyond() as connection:
        sign_in(connection, role="engineer", authorization=authorization(connection))
    refused("anna is signed in as engineer")
    refused("needs the role auditor", lambda: check_role(live, ["auditor"], "reading the audit"))
    with beyond() as connection:
        connection.execute(text("UPDATE session SET ended_at = now()"))
    refused("sign in")


def test_a_look_is_in_the_audit_before_it_is_allowed(live: Store, beyond: Beyond) -> None:
    with beyond() as connection:
        sign_in(connection, authorization=authorization(connection))
    with pytest.raises(NotAllowed, match="a search in d2 is not covered: the session covers d1/s1"):
        check_authorized(live, "d2", "a search")
    grant = check_authorized(live, "d1/s1/b1", "a search", Action.PEOPLE_SHOW, details={"n": 1})
    with beyond() as connection:
        row = read_audit(connection, last=1)[0]
    assert (row.actor, row.action, row.unit) == ("anna", Action.PEOPLE_SHOW, "d1/s1/b1")
    assert row.details == {"n": 1, "authorization": str(grant.authorization)}


def test_without_two_accounts_a_refusal_says_how_to_make_them(
    server: embedded.EmbeddedServer, settings: Settings, store: Store, city_files: Path
) -> None:
    store_city(store, read_city_file(city_files / "city.yaml"))
    become_live(superuser_of(server, settings))
    with pytest.raises(NotAllowed, match="it takes two people; make an administrator with `urban-reid accounts add"):
        check_authorized(store, "d1", "a search")


def test_what_nobody_signed_in_writes_says_so_and_is_no_rule(live: Store) -> None:
    live.settings = live.settings.model_copy(update={"token": None})
    with live.signed_in() as connection:
        audit(connection, "urban-reid", Action.CASE_LOCK, details={})
    with live.owning() as connection:
        assert read_audit(connection, last=1)[0].actor == "urban-reid (not signed in)"
    rule = "INSERT INTO retention (unit, level, hours, set_by, reason) VALUES ('', 'camera', NULL, 'ada', 'because')"
    with pytest.raises(NotAllowed, match="a rule of retention needs an account"), live.signed_in() as connection:
        connection.execute(text(rule))


def test_a_session_ends_also_within_a_transaction(
    server: embedded.EmbeddedServer, settings: Settings, live: Store, beyond: Beyond
) -> None:
    with beyond() as connection:
        sign_in(connection, authorization=authorization(connection))
    with live.signed_in() as connection:
        assert grant_of(connection) is not None
        with superuser_of(server, settings)() as other, other.cursor() as cursor:
            cursor.execute("UPDATE session SET expires_at = clock_timestamp()")
        assert grant_of(connection) is None


def test_a_live_home_stays_live_without_its_city(live: Store) -> None:
    with pytest.raises(StoreError, match="permission denied"), live.begin() as connection:
        connection.execute(text("DELETE FROM city"))
