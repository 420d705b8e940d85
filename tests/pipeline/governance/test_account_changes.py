"""In a live home with several administrators, what one gives holds once another agrees; and the way back in."""

import pytest
from sqlalchemy import text

from pipeline.governance.account_changes import agree, decline, waiting_changes
from pipeline.governance.accounts import (
    add_account,
    disable_account,
    grant_role,
    list_accounts,
    recover_administrator,
    revoke_role,
    set_password,
)
from pipeline.governance.audit import Action, read_audit
from pipeline.governance.audit_report import report
from pipeline.governance.sessions import sign_in
from pipeline.store import Store, embedded
from schemas.errors import InputError, NotAllowed
from schemas.roles import Role
from tests.helpers.homes import become_live, superuser_of
from tests.helpers.people import PASSWORD, add_people, become
from tests.helpers.rows import insert_city

NEW = "battery staple horse"


@pytest.fixture
def people(server: embedded.EmbeddedServer, store: Store) -> Store:
    """A live home; zoe is signed in, and eve and rex are administrators too."""
    with store.begin() as connection:
        connection.execute(text("INSERT INTO city (timezone, digest) VALUES ('UTC', sha256('city'))"))
        insert_city(connection)
    add_people(store)
    become(store, "zoe")
    for other in ("eve", "rex"):
        assert add_account(store, other, PASSWORD, Role.ADMINISTRATOR) == ()  # open homes ask nobody
    become_live(superuser_of(server, store.settings))
    return store


def roles(store: Store, name: str) -> list[tuple[str, str]]:
    (account,) = (one for one in list_accounts(store) if one.name == name)
    return [(grant.role, grant.granted_by) for grant in account.grants]


def test_a_role_holds_once_another_administrator_agrees(people: Store) -> None:
    (change,) = add_account(people, "ida", PASSWORD, Role.SUPERVISOR)
    assert roles(people, "ida") == [] and [one.id for one in waiting_changes(people)] == [change]
    with pytest.raises(NotAllowed, match="ida has no role now"):
        sign_in(people, "ida", PASSWORD)
    with pytest.raises(NotAllowed, match="zoe asked for it: another administrator agrees"):
        agree(people, change)
    for stranger in ("anna", "ben", None):
        become(people, stranger)
        with pytest.raises(NotAllowed, match="needs "):
            agree(people, change)
    become(people, "eve")
    assert agree(people, change) == "ida" and waiting_changes(people) == []
    assert roles(people, "ida") == [("supervisor", "zoe and eve")]
    with pytest.raises(InputError, match=f"no change {change} of an account waits"):
        agree(people, change)
    sign_in(people, "ida", PASSWORD)
    become(people, "cleo")
    roles_given = [one for one in report(people, None, None).accounts if one.action == Action.ACCOUNT_GRANT]
    last = (roles_given[-1].account, roles_given[-1].role, roles_given[-1].given_by)
    assert last == ("ida", "supervisor", "zoe and eve")
    assert "| eve | account.grant | ida | supervisor | zoe and eve |" in report(people, None, None).page()
    with people.signed_in() as connection:
        said = [(row.actor, row.action) for row in read_audit(connection) if row.details.get("account") == "ida"]
    assert said == [
        ("zoe", Action.ACCOUNT_ADD),
        ("zoe", Action.ACCOUNT_ASK),
        (people.settings.operator, Action.SESSION_REFUSE),
        ("eve", Action.ACCOUNT_AGREE),
        ("eve", Action.ACCOUNT_GRANT),
    ]


def test_a_password_holds_once_another_administrator_agrees(people: Store) -> None:
    (change,) = set_password(people, "anna", NEW)
    sign_in(people, "anna", PASSWORD)
    become(people, "eve")
    agree(people, change)
    sign_in(people, "anna", NEW)
    with people.signing_in() as connection:
        assert connection.scalar(text("SELECT count(password) FROM account_change")) == 0
    become(people, "zoe")
    (change,) = set_password(people, "eve", NEW)  # who lost it can ask nobody else
    become(people, "rex")
    assert decline(people, change) == "eve" and waiting_changes(people) == []
    sign_in(people, "eve", PASSWORD)


def test_whoever_ends_the_other_administrators_is_not_alone_at_once(people: Store) -> None:
    disable_account(people, "eve")
    revoke_role(people, "rex", Role.ADMINISTRATOR)
    (change,) = grant_role(people, "anna", Role.SUPERVISOR)
    with pytest.raises(NotAllowed, match="zoe asked for it"):
        agree(people, change)
    with people.signing_in() as connection:
        connection.execute(text("UPDATE account SET disabled_at = now() - interval '73 h' WHERE name = 'eve'"))
        earlier = "UPDATE account_role SET revoked_at = now() - interval '73 h' WHERE revoked_at IS NOT NULL"
        connection.execute(text(earlier))
    assert grant_role(people, "anna", Role.SUPERVISOR) == ()
    assert (Role.SUPERVISOR, "zoe") in roles(people, "anna")


def test_nobody_agrees_to_a_role_of_his_own(people: Store) -> None:
    (change,) = grant_role(people, "eve", Role.AUDITOR)
    become(people, "eve")
    with pytest.raises(NotAllowed, match="nobody agrees to a role of his own"):
        agree(people, change)
    become(people, "rex")
    agree(people, change)


def test_whoever_runs_the_program_gives_an_administrator_a_new_password(people: Store) -> None:
    token = become(people, "zoe")
    become(people, None)
    for name in ("anna", "nobody"):
        with pytest.raises(InputError, match=r"anna is no administrator|there is no account 'nobody'"):
            recover_administrator(people, name, NEW)
    recover_administrator(people, "zoe", NEW)
    sign_in(people, "zoe", NEW)
    with pytest.raises(NotAllowed):
        sign_in(people, "zoe", PASSWORD)
    with people.signing_in() as connection:
        ended = "SELECT ended_at IS NOT NULL FROM session WHERE hash = sha256(decode(:token, 'hex'))"
        assert connection.scalar(text(ended), {"token": token})
    become(people, "cleo")
    with people.signed_in() as connection:
        (row,) = read_audit(connection, action=Action.ACCOUNT_RECOVER)
    assert (row.actor, row.details) == (people.settings.operator, {"account": "zoe"})
