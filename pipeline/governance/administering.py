"""What the changes of accounts share: who administers, whether a second administrator has to agree, what is written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from pipeline.governance.audit import Action, audit
from pipeline.governance.sessions import Session, acting
from pipeline.store import Store
from schemas.errors import InputError, NotAllowed
from schemas.roles import Role

#: For so long after an administrator was ended, the only one who is left gives no roles and passwords, hours.
SECOND_H = 72

_GRANT = text(
    "INSERT INTO account_role (account_id, role, unit, from_time, to_time, granted_by) VALUES (:account, "
    "CAST(:role AS account_role_kind), :unit, coalesce(CAST(:from AS timestamptz), now()), "
    "coalesce(CAST(:to AS timestamptz), 'infinity'), :actor)"
)
END_SESSIONS = text(
    "UPDATE session SET ended_at = now() WHERE account_id = :account AND ended_at IS NULL "
    "AND (CAST(:role AS text) IS NULL OR role::text = :role)"
)
HAS_ADMINISTRATOR = text(
    "SELECT EXISTS (SELECT FROM account_role r JOIN account a ON a.id = r.account_id WHERE r.role = 'administrator' "
    "AND r.revoked_at IS NULL AND r.to_time > now() AND a.disabled_at IS NULL)"
)
# Another administrator is in use, or was until a short time ago: whoever ends the other one is not alone at once.
_NEEDS_SECOND = text(
    "SELECT (granted()).is_open IS NOT TRUE AND EXISTS (SELECT FROM account WHERE name = :actor) AND EXISTS ("
    "SELECT FROM account_role r JOIN account a ON a.id = r.account_id WHERE r.role = 'administrator' "
    "AND a.name <> :actor AND r.from_time <= now() "
    "AND least(r.revoked_at, r.to_time, a.disabled_at) > now() - make_interval(hours => :hours))"
)
_ASK = text(
    "INSERT INTO account_change (account_id, role, unit, from_time, to_time, password, asked_by) SELECT :account, "
    "CAST(:role AS account_role_kind), :unit, :from, :to, :password, a.id FROM account a WHERE a.name = :actor "
    "RETURNING id"
)


@dataclass(frozen=True)
class Given:
    """A role as it is given. units: none: the whole city. from_time None: from now on; to_time None: without an end."""

    role: Role
    units: Sequence[str]
    from_time: datetime | None
    to_time: datetime | None


@contextmanager
def administering(store: Store, what: str, *, first: bool = False) -> Iterator[tuple[Connection, str]]:
    """A transaction of an administrator, and his name.

    first: also for whoever runs the program, while there is no administrator. Raises NotAllowed, after an audit row.
    """
    with acting(store) as (connection, session):
        has_administrator: bool = connection.execute(HAS_ADMINISTRATOR).scalar_one()
        if session is not None and session.role is Role.ADMINISTRATOR:
            yield connection, session.account
            return
        if first and not has_administrator:
            yield connection, store.settings.operator
            return
        missing = _missing(what, session, has_administrator)
        audit(connection, store.settings.operator, Action.ACCESS_REFUSE, details={"what": what, "missing": missing})
    raise NotAllowed(missing)


def _missing(what: str, session: Session | None, has_administrator: bool) -> str:
    if not has_administrator:
        return f"{what} needs an administrator, and there is none: `urban-reid accounts add NAME --role administrator`"
    if session is None:
        return f"{what} needs an administrator: sign in with `urban-reid login`"
    return f"{what} needs the role administrator, and {session.account} is signed in as {session.role}"


def account_of(connection: Connection, name: str) -> int:
    """The id of an account in use. Raises InputError."""
    found: int | None = connection.execute(
        text("SELECT id FROM account WHERE name = :name AND disabled_at IS NULL"), {"name": name}
    ).scalar_one_or_none()
    if found is None:
        raise InputError(
            f"there is no account {name[:80]!r} that is in use", do="`urban-reid accounts list` shows them"
        )
    return found


def give_role(connection: Connection, actor: str, account: int, name: str, given: Given) -> tuple[int, ...]:
    """Gives an account a role, or asks another administrator to agree; the changes that wait for that."""
    if not _needs_second(connection, actor):
        for unit in given.units or ("",):
            write_grant(connection, actor, account, name, given.role, unit, given.from_time, given.to_time)
        return ()
    period = {"from": given.from_time, "to": given.to_time}
    values = {"account": account, "role": given.role, "password": None, "actor": actor, **period}  # nosec B105
    waiting = []
    for unit in given.units or ("",):
        waiting.append(int(connection.execute(_ASK, values | {"unit": unit}).scalar_one()))
        details = {"account": name, "role": given.role, "change": waiting[-1]}
        audit(connection, actor, Action.ACCOUNT_ASK, unit=unit or None, details=details)
    return tuple(waiting)


def give_password(connection: Connection, actor: str, account: int, name: str, hashed: str) -> tuple[int, ...]:
    """The same for a password that an administrator sets."""
    if not _needs_second(connection, actor):
        write_password(connection, actor, account, name, hashed)
        return ()
    values = {"account": account, "role": None, "unit": None, "from": None, "to": None}
    change = int(connection.execute(_ASK, values | {"password": hashed, "actor": actor}).scalar_one())
    details = {"account": name, "changed": "password", "change": change}
    audit(connection, actor, Action.ACCOUNT_ASK, details=details)
    return (change,)


def _needs_second(connection: Connection, actor: str) -> bool:
    return bool(connection.execute(_NEEDS_SECOND, {"actor": actor, "hours": SECOND_H}).scalar_one())


def write_grant(
    connection: Connection,
    actor: str,
    account: int,
    name: str,
    role: Role,
    unit: str,
    from_time: datetime | None,
    to_time: datetime | None,
) -> None:
    """Gives the role at a unit now, with its row of the audit. actor: who did, or the two who did."""
    values = {"account": account, "role": role, "unit": unit, "from": from_time, "to": to_time, "actor": actor}
    connection.execute(_GRANT, values)
    period = {"from": from_time and from_time.isoformat(), "to": to_time and to_time.isoformat()}
    details = {"account": name, "role": role, "given_by": actor, **period}
    audit(connection, actor, Action.ACCOUNT_GRANT, unit=unit or None, details=details)


def write_password(connection: Connection, actor: str, account: int, name: str, hashed: str) -> None:
    """Changes the password now, and ends the account's sessions."""
    values = {"account": account, "password": hashed, "role": None}
    connection.execute(
        text("UPDATE account SET password = :password, failures = 0, locked_until = NULL WHERE id = :account"), values
    )
    audit(connection, actor, Action.ACCOUNT_CHANGE, details={"account": name, "changed": "password"})
    connection.execute(END_SESSIONS, values)
