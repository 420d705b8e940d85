"""What whoever is signed in may see, asked before anything is shown.

Each look that says so, and each refusal, is a row of the audit.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from schemas.errors import NotAllowed
from schemas.text import said

_GRANTED = text("SELECT * FROM granted()")


@dataclass(frozen=True)
class Grant:
    """What holds now for whoever is signed in; in an open home, for whoever runs the program."""

    account: int | None
    name: str | None
    role: str | None  # operator, supervisor, auditor, engineer or administrator; None: all, in an open home
    units: tuple[str, ...]  # with all below them; "": the whole city
    from_time: datetime | None  # of what may be seen, by the authorization
    to_time: datetime | None
    authorization: UUID | None
    is_open: bool

    def covers(self, unit: str) -> bool:
        return any(not one or f"{unit}/".startswith(f"{one}/") for one in self.units)

    def covers_time(self, at: datetime) -> bool:
        return (self.from_time is None or self.from_time <= at) and (self.to_time is None or at < self.to_time)

    def shows(self, unit: str, at: datetime) -> bool:
        """Whether persons of `unit` at that time may be seen, as `check_authorized` asks."""
        return not _missing(self, unit, "a look", at)


def grant_of(connection: Connection) -> Grant | None:
    """The grant of a transaction of `Store.signed_in`; None if nobody is signed in to a live home."""
    row = connection.execute(_GRANTED).one()
    if row.is_open is None:
        return None
    return Grant(
        row.account, row.name, row.role, tuple(row.units), row.from_time, row.to_time, row.authorization_id, row.is_open
    )


def is_live(store: Store) -> bool:
    """Whether the home holds people of real cameras, which only an authorization shows."""
    with store.begin() as connection:
        return connection.execute(text("SELECT kind = 'live' FROM city")).scalar() is True


def check_role(store: Store, roles: Collection[str], what: str, *, otherwise: str = "") -> Grant:
    """The grant of whoever is signed in with one of `roles`. `what`: what is wanted, such as "reading the audit".

    otherwise: what else helps, at the end of the refusal.
    Raises NotAllowed, after an audit row of its own.
    """
    with store.signed_in() as connection:
        grant = grant_of(connection)
    if grant is not None and (grant.is_open or grant.role in roles):
        return grant
    missing = said(f"{what} needs the role {' or '.join(sorted(roles))}")
    if grant is not None:
        missing = said(f"{missing}, and {grant.name} is signed in as {grant.role}")
    raise refused(store, grant, what, f"{missing}{otherwise}", "")


def check_authorized(
    store: Store,
    unit: str,
    what: str,
    action: Action | None = None,
    *,
    reason: str | None = None,
    details: Mapping[str, Any] | None = None,
    at: datetime | None = None,
) -> Grant:
    """The grant of whoever may see persons of `unit`: in a live home, a session under an authorization that holds.

    With an `action`, its audit row is committed before this returns, so that nothing is shown without one. at: when
    what is looked at was, where no row of the database says so; it must lie in the authorization's period. Raises
    NotAllowed, after an audit row of its own.
    """
    with store.signed_in() as connection:
        grant = grant_of(connection)
        missing = _missing(grant, unit, what, at)
        if grant is not None and not missing:
            if action is not None:
                actor = grant.name or store.settings.operator
                said = {"authorization": str(grant.authorization)} if grant.authorization else {}
                audit(connection, actor, action, unit=unit, reason=reason, details=said | dict(details or {}))
            return grant
    asks = grant is not None and grant.authorization is None and grant.role in ("operator", "supervisor")
    do = "ask for one with `urban-reid cases ask`" if asks else ""
    raise refused(store, grant, what, missing, unit, do)


def _missing(grant: Grant | None, unit: str, what: str, at: datetime | None) -> str:
    """What is missing for a look at the persons of a unit, in words; empty for nothing."""
    if grant is None:
        return said(f"{what} needs an account and an authorization in a home with people of real cameras")
    if grant.is_open:
        return ""
    if grant.role not in ("operator", "supervisor"):
        return said(f"{what} needs the role operator or supervisor, and {grant.name} is signed in as {grant.role}")
    if grant.authorization is None:
        return said(f"{what} needs an authorization")
    if not grant.covers(unit):
        return said(f"{what} in {unit} is not covered: the session covers {_units(grant)}")
    if at is not None and not grant.covers_time(at):
        return said(f"{what} of {at:%Y-%m-%d %H:%M} UTC is not within the period of the authorization")
    return ""


def _units(grant: Grant) -> str:
    return ", ".join(one or "the whole city" for one in grant.units) or "no unit"


def refused(store: Store, grant: Grant | None, what: str, missing: str, unit: str, do: str = "") -> NotAllowed:
    """The error for a refusal, whose audit row is committed. do: as of errors."""
    actor, details = store.settings.operator, {"what": what, "missing": missing}
    with store.signed_in() as connection:  # whose account the database writes as the actor
        audit(connection, actor, Action.ACCESS_REFUSE, unit=unit or None, details=details)
    if grant is not None:
        return NotAllowed(missing, do=do)
    with store.signing_in() as connection:
        accounts: int = connection.execute(text("SELECT count(*) FROM account")).scalar_one()
    if accounts < 2:
        return NotAllowed(
            f"{missing}; it takes two people",
            do="make an administrator with `urban-reid accounts add NAME --role administrator`, then `urban-reid "
            "login`, then theirs; docs/guides/accounts.md tells the way",
        )
    return NotAllowed(missing, do="sign in with `urban-reid login`")
