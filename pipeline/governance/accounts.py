"""Accounts and their roles: made, changed and ended by administrators, each change with its row of the audit."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from pipeline.governance.administering import (
    END_SESSIONS,
    HAS_ADMINISTRATOR,
    Given,
    account_of,
    administering,
    give_password,
    give_role,
    write_password,
)
from pipeline.governance.audit import Action, audit
from pipeline.governance.passwords import new_password
from pipeline.governance.sessions import acting, authenticate
from pipeline.store import Store
from schemas.city_file import unknown_unit
from schemas.errors import InputError, NotAllowed
from schemas.roles import Role

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Grant:
    """A role at a unit and all below it ("": the whole city), from a time on, to another or without an end."""

    role: Role
    unit: str
    from_time: datetime
    to_time: datetime | None
    granted_by: str


@dataclass(frozen=True)
class Account:
    name: str
    made_at: datetime
    locked_until: datetime | None  # None: it is not locked now
    disabled_at: datetime | None
    grants: tuple[Grant, ...]  # that hold, or will


def add_account(
    store: Store,
    name: str,
    password: str,
    role: Role,
    *,
    units: Sequence[str] = (),
    from_time: datetime | None = None,
    to_time: datetime | None = None,
) -> tuple[int, ...]:
    """Makes an account with its first role, at `units` (none: the whole city) and in [from_time, to_time).

    Where there is no administrator, whoever runs the program makes one. Where there are several, the role waits until
    another one agrees: returns the changes that do, for `agree`. Raises InputError, NotAllowed.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:80]!r} is no account's name: write at most 64 lower-case letters, digits, dots and dashes, "
            "a letter first"
        )
    _check_grant(store, units, from_time, to_time)
    hashed = new_password(password, name)
    with administering(store, "making an account", first=role is Role.ADMINISTRATOR) as (connection, actor):
        account = connection.execute(
            text("INSERT INTO account (name, password) VALUES (:name, :password) ON CONFLICT DO NOTHING RETURNING id"),
            {"name": name, "password": hashed},
        ).scalar_one_or_none()
        if account is None:
            raise InputError(
                f"there is an account {name} already; names are not given twice, because the audit has them"
            )
        audit(connection, actor, Action.ACCOUNT_ADD, details={"account": name})
        return give_role(connection, actor, account, name, Given(role, units, from_time, to_time))


def grant_role(
    store: Store,
    name: str,
    role: Role,
    *,
    units: Sequence[str] = (),
    from_time: datetime | None = None,
    to_time: datetime | None = None,
) -> tuple[int, ...]:
    """Gives an account a role, at `units` (none: the whole city) and in [from_time, to_time).

    Nobody gives a role to himself. Returns what waits for another administrator, as `add_account`. Raises InputError,
    NotAllowed.
    """
    _check_grant(store, units, from_time, to_time)
    with administering(store, "giving a role") as (connection, actor):
        if actor == name:
            raise InputError("nobody gives a role to himself: ask another administrator")
        account = account_of(connection, name)
        return give_role(connection, actor, account, name, Given(role, units, from_time, to_time))


def revoke_role(store: Store, name: str, role: Role, unit: str | None = None) -> None:
    """Ends a role of an account, at one unit ("": its grant of the whole city) or everywhere, and its sessions.

    Raises InputError, NotAllowed.
    """
    with administering(store, "ending a role") as (connection, actor):
        values = {"account": account_of(connection, name), "role": role, "unit": unit}
        ended = connection.execute(_REVOKE, values).rowcount
        if not ended:
            raise InputError(
                f"{name} has no role {role}" + (f" at {unit or 'the whole city'}" if unit is not None else "")
            )
        _check_administrators(connection, name)
        audit(connection, actor, Action.ACCOUNT_REVOKE, unit=unit or None, details={"account": name, "role": role})
        connection.execute(END_SESSIONS, values)  # the actor's own, it may be


def disable_account(store: Store, name: str) -> None:
    """Ends an account for good, with its sessions; its name stays taken. Raises InputError, NotAllowed."""
    with administering(store, "disabling an account") as (connection, actor):
        values = {"account": account_of(connection, name), "role": None}
        audit(connection, actor, Action.ACCOUNT_DISABLE, details={"account": name})
        connection.execute(text("UPDATE account SET disabled_at = now() WHERE id = :account"), values)
        _check_administrators(connection, name)
        connection.execute(END_SESSIONS, values)


def unlock_account(store: Store, name: str) -> None:
    """Forgets the wrong passwords of an account. Raises InputError, NotAllowed."""
    with administering(store, "unlocking an account") as (connection, actor):
        values = {"account": account_of(connection, name)}
        connection.execute(text("UPDATE account SET failures = 0, locked_until = NULL WHERE id = :account"), values)
        audit(connection, actor, Action.ACCOUNT_UNLOCK, details={"account": name})


def set_password(store: Store, name: str, password: str) -> tuple[int, ...]:
    """Gives somebody else's account a new password, and ends its sessions. Raises InputError, NotAllowed.

    Returns what waits for another administrator, as `add_account`; until then the old password holds.
    """
    hashed = new_password(password, name)
    with administering(store, "setting another's password") as (connection, actor):
        return give_password(connection, actor, account_of(connection, name), name, hashed)


def recover_administrator(store: Store, name: str, password: str) -> None:
    """Gives an administrator a new password, by whoever runs the program: when nobody else is left who could.

    Raises InputError for an account that is no administrator's.
    """
    hashed = new_password(password, name)
    with store.signing_in() as connection:
        account = account_of(connection, name)
        if not connection.execute(_IS_ADMINISTRATOR, {"account": account}).scalar_one():
            raise InputError(f"{name} is no administrator: an administrator gives it a password, `accounts password`")
        audit(connection, store.settings.operator, Action.ACCOUNT_RECOVER, details={"account": name})
        write_password(connection, store.settings.operator, account, name, hashed)


def change_password(store: Store, old: str, new: str) -> str:
    """Changes the password of whoever is signed in, and ends all sessions of the account. Returns its name.

    Raises InputError, NotAllowed; a wrong old password counts like one at a sign-in.
    """
    with acting(store) as (connection, session):
        if session is None:
            raise NotAllowed(
                "nobody is signed in, whose password could be changed", do="sign in with `urban-reid login`"
            )
        hashed = new_password(new, session.account)
        is_right = authenticate(connection, store, session.account, old) is not None
        if is_right:
            write_password(connection, session.account, session.account_id, session.account, hashed)
    if not is_right:
        raise NotAllowed("the password of now is wrong, or the account is locked; nothing was changed")
    return session.account


def list_accounts(store: Store) -> Sequence[Account]:
    """All accounts by name. For administrators, and for whoever runs the program while there is none."""
    with administering(store, "listing accounts", first=True) as (connection, _):
        grants: dict[int, list[Grant]] = {}
        for row in connection.execute(_GRANTS):
            grant = Grant(Role(row.role), row.unit, row.from_time, row.to_time, row.granted_by)
            grants.setdefault(row.account_id, []).append(grant)
        return [
            Account(row.name, row.made_at, row.locked_until, row.disabled_at, tuple(grants.get(row.id, ())))
            for row in connection.execute(_ACCOUNTS)
        ]


_IS_ADMINISTRATOR = text(
    "SELECT EXISTS (SELECT FROM account_role WHERE account_id = :account AND role = 'administrator' "
    "AND revoked_at IS NULL AND from_time <= now() AND to_time > now())"
)
_REVOKE = text(
    "UPDATE account_role SET revoked_at = now() WHERE account_id = :account AND role::text = :role "
    "AND revoked_at IS NULL AND to_time > now() AND (CAST(:unit AS text) IS NULL OR unit = :unit)"
)
_GRANTS = text(
    "SELECT account_id, role::text AS role, unit, from_time, CASE WHEN isfinite(to_time) THEN to_time END AS to_time, "
    "granted_by FROM account_role WHERE revoked_at IS NULL AND to_time > now() ORDER BY role, unit, from_time, id"
)
_ACCOUNTS = text(
    "SELECT id, name, made_at, disabled_at, CASE WHEN locked_until > now() THEN locked_until END AS locked_until "
    "FROM account ORDER BY name"
)


def _check_administrators(connection: Connection, name: str) -> None:
    """Raises InputError, which takes the change back, where nobody is left who could administer."""
    if not connection.execute(HAS_ADMINISTRATOR).scalar_one():
        raise InputError(f"{name} is the only administrator: make another one first")


def _check_grant(store: Store, units: Sequence[str], from_time: datetime | None, to_time: datetime | None) -> None:
    now = datetime.now(UTC)
    if to_time is not None and to_time <= max(from_time or now, now):
        raise InputError("--to: lies before now or before --from; a role without an end has none")
    if units:
        with store.begin() as connection:
            known = set(connection.scalars(text("SELECT code FROM urban_unit")))
        for unit in units:
            if unit not in known:
                raise unknown_unit(unit, known)
