"""Accounts: the first one, who may change them, what a change ends, and its row of the audit."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from pipeline.governance.accounts import (
    add_account,
    change_password,
    disable_account,
    grant_role,
    list_accounts,
    revoke_role,
    set_password,
    unlock_account,
)
from pipeline.governance.audit import Action, read_audit
from pipeline.governance.sessions import current_session, sign_in
from pipeline.store import Store
from schemas.errors import CityError, InputError, NotAllowed
from schemas.roles import Role
from tests.helpers.people import PASSWORD, add_people, become
from tests.helpers.rows import insert_city

NEW = "battery staple horse"


@pytest.fixture
def people(store: Store) -> Store:
    """One account a role; the administrator, zoe, is signed in."""
    with store.begin() as connection:
        insert_city(connection)
    add_people(store)
    become(store, "zoe")
    return store


def actions(store: Store) -> list[tuple[str, str, str | None]]:
    """(actor, action, unit) of all rows since people were there."""
    with store.signed_in() as connection:
        return [(row.actor, row.action, row.unit) for row in read_audit(connection)]


def test_whoever_runs_the_program_makes_the_first_administrator_and_nobody_else(store: Store) -> None:
    for role in (Role.OPERATOR, Role.AUDITOR):
        with pytest.raises(NotAllowed, match="there is none: `urban-reid accounts add NAME --role administrator`"):
            add_account(store, "eve", PASSWORD, role)
    assert list_accounts(store) == []
    add_account(store, "zoe", PASSWORD, Role.ADMINISTRATOR)
    for call in (lambda: add_account(store, "eve", PASSWORD, Role.ADMINISTRATOR), lambda: list_accounts(store)):
        with pytest.raises(NotAllowed, match="needs an administrator: sign in with `urban-reid login`"):
            call()
    operator = store.settings.operator
    assert actions(store) == [
        *[(operator, Action.ACCESS_REFUSE, None)] * 2,
        (operator, Action.ACCOUNT_ADD, None),
        (operator, Action.ACCOUNT_GRANT, None),
        *[(operator, Action.ACCESS_REFUSE, None)] * 2,
    ]


def test_where_every_administrator_is_gone_another_can_be_made(people: Store) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    with people.signing_in() as connection:
        connection.execute(text("UPDATE account SET disabled_at = now() WHERE name = 'zoe'"))
    add_account(people, "eve", PASSWORD, Role.ADMINISTRATOR, to_time=until)
    become(people, "eve")
    assert [account.name for account in list_accounts(people) if account.disabled_at] == ["zoe"]


CHANGES: dict[str, Callable[[Store], object]] = {
    "add": lambda store: add_account(store, "eve", PASSWORD, Role.OPERATOR),
    "grant": lambda store: grant_role(store, "anna", Role.AUDITOR),
    "revoke": lambda store: revoke_role(store, "anna", Role.OPERATOR),
    "disable": lambda store: disable_account(store, "anna"),
    "unlock": lambda store: unlock_account(store, "anna"),
    "password": lambda store: set_password(store, "anna", NEW),
    "list": list_accounts,
}


def test_only_an_administrator_changes_accounts_in_an_open_home_too(people: Store) -> None:
    def stored() -> object:
        with people.signing_in() as connection:
            return connection.execute(
                text("SELECT a, r FROM account a JOIN account_role r ON true ORDER BY a, r")
            ).all()

    before = stored()
    for name, said in (
        ("ben", "needs the role administrator, and ben is signed in as supervisor"),
        (None, "needs an administrator: sign in"),
    ):
        become(people, name)
        for change in CHANGES.values():
            with pytest.raises(NotAllowed, match=said):
                change(people)
    assert stored() == before
    assert [action for _, action, _ in actions(people)].count(Action.ACCESS_REFUSE) == 2 * len(CHANGES)


def test_each_change_is_audited_with_the_administrator_as_its_actor(people: Store) -> None:
    for change in ("add", "grant", "unlock", "password", "revoke", "disable"):
        CHANGES[change](people)
    grant_role(people, "ben", Role.AUDITOR, units=["d1/s1", "d1/s1/b1"])
    assert actions(people) == [
        ("zoe", Action.ACCOUNT_ADD, None),
        ("zoe", Action.ACCOUNT_GRANT, None),
        ("zoe", Action.ACCOUNT_GRANT, None),
        ("zoe", Action.ACCOUNT_UNLOCK, None),
        ("zoe", Action.ACCOUNT_CHANGE, None),
        ("zoe", Action.ACCOUNT_REVOKE, None),
        ("zoe", Action.ACCOUNT_DISABLE, None),
        ("zoe", Action.ACCOUNT_GRANT, "d1/s1"),
        ("zoe", Action.ACCOUNT_GRANT, "d1/s1/b1"),
    ]


def test_grants_are_listed_with_their_units_and_times(people: Store) -> None:
    start, end = datetime.now(UTC) + timedelta(days=1), datetime.now(UTC) + timedelta(days=2)
    grant_role(people, "anna", Role.AUDITOR, units=["d1/s1"], from_time=start, to_time=end)
    revoke_role(people, "ben", Role.SUPERVISOR)
    accounts = {account.name: account for account in list_accounts(people)}
    assert [(g.role, g.unit, g.to_time, g.granted_by) for g in accounts["anna"].grants] == [
        (Role.AUDITOR, "d1/s1", end, "zoe"),
        (Role.OPERATOR, "", None, "tests"),
    ]
    assert accounts["anna"].grants[0].from_time == start and accounts["ben"].grants == ()
    assert sign_in(people, "anna", PASSWORD)[1].role is Role.OPERATOR  # the other one is not yet given


def test_what_ends_the_sessions_of_an_account(people: Store) -> None:
    administrator = people.settings
    for change in ("password", "revoke", "disable"):
        people.settings = administrator
        if change == "disable":
            grant_role(people, "anna", Role.OPERATOR)
        become(people, "anna")
        operator, people.settings = people.settings, administrator
        CHANGES[change](people)
        people.settings = operator
        assert current_session(people) is None, change


def test_the_only_administrator_stays(people: Store) -> None:
    with pytest.raises(InputError, match="zoe is the only administrator: make another one first"):
        disable_account(people, "zoe")
    with pytest.raises(InputError, match="zoe is the only administrator: make another one first"):
        revoke_role(people, "zoe", Role.ADMINISTRATOR)
    assert current_session(people) is not None
    grant_role(people, "ben", Role.ADMINISTRATOR)
    revoke_role(people, "zoe", Role.ADMINISTRATOR)
    assert current_session(people) is None
    assert actions(people)[-1] == ("zoe", Action.ACCOUNT_REVOKE, None)


def test_nobody_gives_a_role_to_himself(people: Store) -> None:
    with pytest.raises(InputError, match="nobody gives a role to himself"):
        grant_role(people, "zoe", Role.OPERATOR)


def test_requests_that_cannot_be(people: Store) -> None:
    now = datetime.now(UTC)
    for name in ("Anna", "", "a b", "1a", "a" * 65, "anna\n", "ann\u00e4"):
        with pytest.raises(InputError, match="is no account's name"):
            add_account(people, name, PASSWORD, Role.OPERATOR)
    with pytest.raises(InputError, match="there is an account anna already"):
        add_account(people, "anna", PASSWORD, Role.OPERATOR)
    with pytest.raises(InputError, match="15 to 256 characters"):
        add_account(people, "eve", "short", Role.OPERATOR)
    with pytest.raises(CityError, match="d9"):
        grant_role(people, "anna", Role.AUDITOR, units=["d9"])
    with pytest.raises(InputError, match="--to: lies before now"):
        grant_role(people, "anna", Role.AUDITOR, to_time=now - timedelta(hours=1))
    with pytest.raises(InputError, match="--to: lies before now or before --from"):
        grant_role(people, "anna", Role.AUDITOR, from_time=now + timedelta(days=2), to_time=now + timedelta(days=1))
    with pytest.raises(InputError, match="there is no account 'eve' that is in use"):
        grant_role(people, "eve", Role.AUDITOR)
    with pytest.raises(InputError, match="anna has no role engineer"):
        revoke_role(people, "anna", Role.ENGINEER)
    with pytest.raises(InputError, match="anna has no role operator at d1"):
        revoke_role(people, "anna", Role.OPERATOR, "d1")
    disable_account(people, "anna")
    with pytest.raises(InputError, match="there is no account 'anna' that is in use"):
        unlock_account(people, "anna")
    with pytest.raises(InputError, match="there is an account anna already"):
        add_account(people, "anna", PASSWORD, Role.OPERATOR)


def test_a_locked_account_is_listed_so_and_unlocked(people: Store) -> None:
    with people.signing_in() as connection:
        connection.execute(text("UPDATE account SET failures = 5, locked_until = now() + interval '1 h' WHERE id = 2"))
    assert [account.name for account in list_accounts(people) if account.locked_until] == ["anna"]
    unlock_account(people, "anna")
    assert not [account.name for account in list_accounts(people) if account.locked_until]
    sign_in(people, "anna", PASSWORD)


def test_a_password_that_an_administrator_set_counts(people: Store) -> None:
    CHANGES["password"](people)
    with pytest.raises(NotAllowed):
        sign_in(people, "anna", PASSWORD)
    assert sign_in(people, "anna", NEW)[1].account == "anna"


def test_somebody_changes_the_own_password_with_the_old_one(people: Store) -> None:
    become(people, "anna")
    with pytest.raises(NotAllowed, match="the password of now is wrong"):
        change_password(people, "wrong horse battery", NEW)
    with people.signing_in() as connection:
        assert connection.execute(text("SELECT failures FROM account WHERE name = 'anna'")).scalar_one() == 1
    assert change_password(people, PASSWORD, NEW) == "anna"
    assert current_session(people) is None
    assert actions(people)[-1] == ("anna", Action.ACCOUNT_CHANGE, None)
    with pytest.raises(NotAllowed, match="nobody is signed in"):
        change_password(people, NEW, PASSWORD)
    assert sign_in(people, "anna", NEW)[1].account == "anna"
