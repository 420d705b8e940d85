"""Signing in: what a session is, what ends it, lock-outs, tokens for scripts, and who the audit says has acted."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from pipeline.governance.accounts import add_account, grant_role
from pipeline.governance.audit import Action, audit, read_audit
from pipeline.governance.sessions import (
    SHIFT,
    current_session,
    list_tokens,
    revoke_token,
    sign_in,
    sign_out,
)
from pipeline.store import Store, embedded
from pipeline.store.session_file import FILE, keep_token
from schemas.errors import InputError, NotAllowed
from schemas.roles import Role
from tests.helpers.homes import superuser_of
from tests.helpers.people import PASSWORD, add_people, become
from tests.helpers.rows import insert_city

Superuser = Callable[..., None]


@pytest.fixture
def superuser(server: embedded.EmbeddedServer, store: Store) -> Superuser:
    """Runs SQL as a superuser, for what only time would bring."""

    def run(statement: str, *values: Any) -> None:
        connection = superuser_of(server, store.settings)()
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
        connection.close()

    return run


@pytest.fixture
def people(store: Store) -> Store:
    add_people(store)
    return store


def rows(store: Store, action: Action) -> list[tuple[str, dict[str, Any]]]:
    with store.signed_in() as connection:
        return [(row.actor, row.details) for row in read_audit(connection, action=action)]


def test_a_session_has_the_role_the_units_and_the_end_of_its_grants(store: Store) -> None:
    with store.begin() as connection:
        insert_city(connection)
    add_people(store)
    become(store, "zoe")
    ends = datetime.now(UTC) + timedelta(hours=1)
    add_account(store, "eve", PASSWORD, Role.OPERATOR, units=["d1/s1/b1", "d1/s1/b2"], to_time=ends)
    become(store, None)
    token, session = sign_in(store, "eve", PASSWORD)
    assert (session.account, session.role, session.units) == ("eve", Role.OPERATOR, ("d1/s1/b1", "d1/s1/b2"))
    assert session.expires_at == ends and session.authorization is None
    store.settings = store.settings.model_copy(update={"token": SecretStr(token)})
    assert current_session(store) == session
    _, session = sign_in(store, "anna", PASSWORD)
    assert session.units == ("",) and timedelta(0) < session.expires_at - datetime.now(UTC) <= SHIFT


def test_the_token_is_stored_nowhere(people: Store) -> None:
    token, _ = sign_in(people, "anna", PASSWORD)
    with people.signing_in() as connection:
        stored = (
            connection.execute(text("SELECT encode(hash, 'hex') FROM session WHERE account_id = 2")).scalars().all()
        )
    assert stored and token not in stored
    with people.signed_in() as connection:
        assert token not in str(read_audit(connection))


@pytest.mark.parametrize(
    ("name", "password", "why"),
    [
        ("anna", "wrong horse battery", {"account": "anna", "why": "wrong password"}),
        ("nobody", PASSWORD, {"account": None, "why": "unknown name"}),
        ("correct horse battery", "anna", {"account": None, "why": "unknown name"}),  # typed into the wrong field
    ],
)
def test_a_refusal_says_nothing_of_the_name_and_is_audited(
    people: Store, name: str, password: str, why: dict[str, Any]
) -> None:
    with pytest.raises(NotAllowed, match="the name or the password is wrong") as refused:
        sign_in(people, name, password)
    assert name not in str(refused.value)
    assert rows(people, Action.SESSION_REFUSE) == [(people.settings.operator, why)]


def test_wrong_passwords_lock_an_account_for_longer_and_longer(people: Store, superuser: Superuser) -> None:
    def locked_for() -> timedelta:
        with people.signing_in() as connection:
            found: timedelta = connection.execute(
                text("SELECT locked_until - now() FROM account WHERE name = 'anna'")
            ).scalar_one()
        return found

    def fail(times: int) -> None:
        for _ in range(times):
            with pytest.raises(NotAllowed):
                sign_in(people, "anna", "wrong horse battery")

    def put(failures: int) -> None:
        superuser("UPDATE account SET locked_until = NULL, failures = %s WHERE name = 'anna'", failures)

    fail(1)
    assert rows(people, Action.ACCOUNT_LOCK) == []
    put(4)
    fail(1)
    assert timedelta(minutes=14) < locked_for() <= timedelta(minutes=15)
    with pytest.raises(NotAllowed, match="or it is locked"):
        sign_in(people, "anna", PASSWORD)  # also the right one
    fail(1)  # no attempt counts while it is locked, or others could keep somebody out for ever
    assert timedelta(minutes=14) < locked_for() <= timedelta(minutes=15)
    put(5)
    fail(1)
    assert timedelta(minutes=29) < locked_for() <= timedelta(minutes=30)
    put(4000)
    fail(1)
    assert timedelta(hours=23) < locked_for() <= timedelta(days=1)
    put(4)
    sign_in(people, "anna", PASSWORD)
    fail(1)  # the first again
    assert [details["failures"] for _, details in rows(people, Action.ACCOUNT_LOCK)] == [5, 6, 4001]
    assert {details["why"] for _, details in rows(people, Action.SESSION_REFUSE)} == {"wrong password", "locked"}


def test_attempts_at_once_are_counted_one_by_one(people: Store) -> None:
    def attempt() -> None:
        with pytest.raises(NotAllowed):
            sign_in(people, "anna", "wrong horse battery")

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with people.signing_in() as connection:
        assert connection.execute(text("SELECT failures FROM account WHERE name = 'anna'")).scalar_one() == 4


def test_a_hash_of_earlier_parameters_is_made_new_at_a_sign_in(people: Store) -> None:
    def stored() -> str:
        with people.signing_in() as connection:
            return str(connection.execute(text("SELECT password FROM account WHERE name = 'anna'")).scalar_one())

    assert "m=8,t=1,p=1" in stored()
    sign_in(people, "anna", PASSWORD)
    assert "m=65536,t=3,p=4" in (made := stored())
    sign_in(people, "anna", PASSWORD)
    assert stored() == made


def test_one_of_several_roles_is_chosen_and_none_that_is_not_held(people: Store, superuser: Superuser) -> None:
    become(people, "zoe")
    grant_role(people, "anna", Role.AUDITOR)
    become(people, None)
    with pytest.raises(InputError, match=r"anna has several roles; choose one with --role auditor \| operator"):
        sign_in(people, "anna", PASSWORD)
    assert sign_in(people, "anna", PASSWORD, role=Role.AUDITOR)[1].role is Role.AUDITOR
    with pytest.raises(NotAllowed, match="anna does not have the role engineer now"):
        sign_in(people, "anna", PASSWORD, role=Role.ENGINEER)
    superuser("UPDATE account_role SET from_time = now() - interval '2 h', to_time = now() - interval '1 h'")
    with pytest.raises(NotAllowed, match="anna has no role now"):
        sign_in(people, "anna", PASSWORD)
    assert [details["why"].split(" now")[0] for _, details in rows(people, Action.SESSION_REFUSE)] == [
        "anna does not have the role engineer",
        "anna has no role",
    ]


def test_what_ends_a_session(people: Store, superuser: Superuser) -> None:
    for ending in (
        "UPDATE session SET expires_at = now() WHERE role = 'operator'",
        "UPDATE session SET ended_at = now() WHERE role = 'operator'",
        "UPDATE account SET disabled_at = now() WHERE name = 'anna'",
    ):
        become(people, "anna")
        assert current_session(people) is not None
        superuser(ending)
        assert current_session(people) is None, ending


def test_a_forged_token_is_nobodys(people: Store) -> None:
    become(people, "anna")
    for token in ("", "0" * 64, "nonsense", "AB" * 32, "ab" * 33, "' OR true --"):
        people.settings = people.settings.model_copy(update={"token": SecretStr(token)})
        assert current_session(people) is None, token


def test_signing_out_ends_the_session_and_forgets_the_token(people: Store) -> None:
    token, _ = sign_in(people, "anna", PASSWORD)
    keep_token(people.settings.home, token)
    ended = sign_out(people)
    assert ended is not None and ended.account == "anna" and not (people.settings.home / FILE).exists()
    assert sign_out(people) is None
    keep_token(people.settings.home, token)
    assert current_session(people) is None
    assert rows(people, Action.SESSION_END) == [("anna", {"role": "operator"})]


def test_the_account_of_a_session_is_the_actor_whatever_the_caller_says(people: Store) -> None:
    token, session = sign_in(people, "anna", PASSWORD)
    people.settings = people.settings.model_copy(update={"token": SecretStr(token)})
    with people.signed_in() as connection:
        audit(connection, "ben", Action.PERSON_SHOW, unit="d1", details={})
    with people.begin() as connection:  # a program that works alone, and one that claims to be somebody
        audit(connection, "nightly", Action.PERSON_SHOW, details={})
        audit(connection, "ben", Action.PERSON_SHOW, details={})
    assert [actor for actor, _ in rows(people, Action.PERSON_SHOW)] == ["anna", "nightly", "ben (not signed in)"]
    sign_out(people)
    with people.signed_in() as connection:
        audit(connection, "anna", Action.REPORT_WRITE, details={})
    assert [actor for actor, _ in rows(people, Action.REPORT_WRITE)] == ["anna (not signed in)"]
    assert rows(people, Action.SESSION_START)[-1] == (
        "anna",
        {"role": "operator", "units": [""], "expires_at": session.expires_at.isoformat()},
    )


def test_tokens_for_scripts_have_names_and_outlive_a_shift(people: Store) -> None:
    token, session = sign_in(people, "cleo", PASSWORD, token="nightly", lasts=timedelta(days=30))
    assert session.name == "nightly" and session.expires_at - datetime.now(UTC) > timedelta(days=29)
    with pytest.raises(InputError, match="there is a token nightly already"):
        sign_in(people, "cleo", PASSWORD, token="nightly")
    with pytest.raises(NotAllowed, match="nobody is signed in, whose tokens"):
        list_tokens(people)
    become(people, "anna")
    assert list_tokens(people) == []
    with pytest.raises(InputError, match=r"of .*'s tokens none is called 'nightly'"):
        revoke_token(people, "nightly")
    become(people, "cleo")
    assert list_tokens(people) == [session]
    revoke_token(people, "nightly")
    people.settings = people.settings.model_copy(update={"token": SecretStr(token)})
    assert current_session(people) is None
    assert rows(people, Action.SESSION_END)[-1] == ("cleo", {"role": "auditor", "token": "nightly"})


def authorization(superuser: Superuser, **changed: Any) -> UUID:
    """An authorization that anna asked for and ben approved, for an hour."""
    case, made = uuid4(), uuid4()
    for table in ("case_file", "case_authorization"):  # past the rules: who asks and approves is not the matter here
        superuser(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    superuser("INSERT INTO case_file (id, name, opened_by) VALUES (%s, %s, 2)", str(case), str(case))
    values: dict[str, Any] = {
        "id": str(made),
        "case_id": str(case),
        "purpose": "missing person",
        "legal_basis": "law 1",
        "sought": "a child",
        "units": ["d1/s1"],
        "from_time": datetime.now(UTC) - timedelta(days=1),
        "to_time": datetime.now(UTC),
        "expires_at": datetime.now(UTC) + timedelta(hours=1),
        "asked_by": 2,
        "approved_by": 3,
        "approved_at": datetime.now(UTC),
    }
    values |= changed
    marks = ", ".join(["%s"] * len(values))
    superuser(f"INSERT INTO case_authorization ({', '.join(values)}) VALUES ({marks})", *values.values())
    return made


def test_a_session_under_an_authorization_ends_with_it(people: Store, superuser: Superuser) -> None:
    made = authorization(superuser)
    _, session = sign_in(people, "anna", PASSWORD, authorization=made)
    assert session.authorization == made
    assert timedelta(0) < session.expires_at - datetime.now(UTC) <= timedelta(hours=1)
    assert rows(people, Action.SESSION_START)[-1][1]["authorization"] == str(made)


def test_who_may_not_work_under_an_authorization(people: Store, superuser: Superuser) -> None:
    made = authorization(superuser)
    for name, said in (
        ("ben", "whoever approved an authorization does not work under it"),
        ("cleo", "an operator or a supervisor, and not the role auditor"),
    ):
        with pytest.raises(NotAllowed, match=said):
            sign_in(people, name, PASSWORD, authorization=made)
    with pytest.raises(NotAllowed, match="there is no authorization"):
        sign_in(people, "anna", PASSWORD, authorization=uuid4())
    assert rows(people, Action.SESSION_START) == []


def test_an_administrator_sees_and_ends_everybodys_tokens_and_nobody_else_does(people: Store) -> None:
    _, token = sign_in(people, "cleo", PASSWORD, token="nightly", lasts=timedelta(days=30))
    become(people, "anna")
    with pytest.raises(NotAllowed, match="tokens of others are ended by an administrator, and anna is operator"):
        revoke_token(people, "nightly", account="cleo")
    become(people, "zoe")
    assert list_tokens(people) == [token]
    with pytest.raises(InputError, match="of zoe's tokens none is called 'nightly'"):
        revoke_token(people, "nightly")
    revoke_token(people, "nightly", account="cleo")
    assert list_tokens(people) == []
    with people.owning() as connection:
        row = read_audit(connection, last=1)[0]
    assert (row.actor, row.action, row.details["account"]) == ("zoe", Action.SESSION_END, "cleo")
