"""Roles and passwords that one administrator gives and another agrees to, in homes with more than one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, text

from pipeline.governance.administering import administering, write_grant, write_password
from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from schemas.errors import InputError, NotAllowed
from schemas.roles import Role

_WAITING = (
    "SELECT c.id, c.account_id, a.name AS account, c.role::text AS role, c.unit, c.from_time, c.to_time, c.password, "
    "b.name AS asked_by, c.asked_at FROM account_change c JOIN account a ON a.id = c.account_id "
    "JOIN account b ON b.id = c.asked_by WHERE c.decided_at IS NULL {which} ORDER BY c.id"
)
_DECIDE = text(
    "UPDATE account_change SET decided_by = a.id, decided_at = now(), is_agreed = :agreed, password = NULL "
    "FROM account a WHERE a.name = :actor AND account_change.id = :id"
)


@dataclass(frozen=True)
class Change:
    """A change of an account that waits. role: None: a new password."""

    id: int
    account: str
    role: Role | None
    unit: str | None  # "": the whole city
    from_time: datetime | None
    to_time: datetime | None
    asked_by: str
    asked_at: datetime


def waiting_changes(store: Store) -> Sequence[Change]:
    """What waits for another administrator's agreement, the oldest first. Raises NotAllowed."""
    with administering(store, "listing changes of accounts") as (connection, _):
        return [
            Change(
                row.id,
                row.account,
                Role(row.role) if row.role else None,
                row.unit,
                row.from_time,
                row.to_time,
                row.asked_by,
                row.asked_at,
            )
            for row in connection.execute(text(_WAITING.format(which="")))
        ]


def agree(store: Store, change: int) -> str:
    """Does what another administrator asked for; the account's name. Raises InputError, NotAllowed."""
    with administering(store, "agreeing to a change of an account") as (connection, actor):
        row = _waiting(connection, change)
        if row.asked_by == actor:
            raise NotAllowed(f"{actor} asked for it: another administrator agrees")
        if row.account == actor and row.role is not None:
            raise NotAllowed("nobody agrees to a role of his own: another administrator does")
        audit(connection, actor, Action.ACCOUNT_AGREE, unit=row.unit or None, details=_details(row))
        both = f"{row.asked_by} and {actor}"
        if row.role is None:
            write_password(connection, actor, row.account_id, row.account, row.password)
        else:
            role = Role(row.role)
            write_grant(connection, both, row.account_id, row.account, role, row.unit, row.from_time, row.to_time)
        connection.execute(_DECIDE, {"id": row.id, "actor": actor, "agreed": True})
    return str(row.account)


def decline(store: Store, change: int) -> str:
    """Ends a change that waits, also one's own; the account's name. Raises InputError, NotAllowed."""
    with administering(store, "declining a change of an account") as (connection, actor):
        row = _waiting(connection, change)
        audit(connection, actor, Action.ACCOUNT_DECLINE, unit=row.unit or None, details=_details(row))
        connection.execute(_DECIDE, {"id": row.id, "actor": actor, "agreed": False})
    return str(row.account)


def _waiting(connection: Connection, change: int) -> Row[tuple[object, ...]]:
    which = "AND c.id = :id AND a.disabled_at IS NULL"
    row = connection.execute(text(_WAITING.format(which=which) + " FOR UPDATE OF c"), {"id": change}).one_or_none()
    if row is None:
        raise InputError(
            f"no change {change} of an account waits", do="`urban-reid accounts pending` shows those that do"
        )
    return row


def _details(row: Row[tuple[object, ...]]) -> dict[str, object]:
    return {"account": row.account, "role": row.role, "change": row.id, "asked_by": row.asked_by}
