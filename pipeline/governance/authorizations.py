"""Cases and authorizations: asked for by one, approved by another who sees what it would open, ended by anyone of them.

The rules themselves are the database's (migration 0030): whoever writes these tables otherwise meets the same ones.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from pipeline.governance.audit import Action, audit
from pipeline.governance.deciding import actor_of, deciding
from pipeline.governance.doors import check_role
from pipeline.store import Store
from schemas.errors import InputError
from schemas.parameters import AuthorizationParameters

_STATE = (
    "CASE WHEN a.locked_at IS NOT NULL THEN 'locked' WHEN a.refused_at IS NOT NULL THEN 'refused' "
    "WHEN a.revoked_at IS NOT NULL THEN 'revoked' WHEN a.expires_at <= now() THEN 'expired' "
    "WHEN a.approved_at IS NOT NULL THEN 'approved' ELSE 'asked' END"
)
#: Whether one may work under it, as `granted()` says: urgent use is approved while it goes on.
_HOLDS = (
    f"{_STATE} = 'approved' OR ({_STATE} = 'asked' AND a.kind = 'urgent' AND a.asked_at > now() - interval '48 hours')"
)
_AUTHORIZATIONS = (
    "SELECT a.id, c.id AS case_id, c.name AS case_name, a.kind::text AS kind, a.purpose, a.legal_basis, a.sought, "
    "a.units, a.from_time, a.to_time, a.asked_at, a.approved_at, a.expires_at, a.opens, "
    f"account_name(a.asked_by) AS asked_by, account_name(a.approved_by) AS approved_by, {_STATE} AS state, "
    f"{_HOLDS} AS holds "
    "FROM case_authorization a JOIN case_file c ON c.id = a.case_id WHERE {which} ORDER BY a.asked_at, a.id"
)
_CASES = (
    "SELECT c.id, c.name, account_name(c.opened_by) AS opened_by, c.opened_at, c.closed_at, c.hold, "
    "(SELECT count(*) FROM case_authorization a WHERE a.case_id = c.id) AS authorizations "
    "FROM case_file c WHERE {which} ORDER BY c.opened_at DESC, c.id DESC LIMIT :most"
)


#: As far as the database counts (migration 0050).
MOST_COUNTED = 100_000


def is_more(count: int) -> bool:
    """Whether a count stands for more than MOST_COUNTED. Rows of before were counted to their end, and are larger."""
    return count == MOST_COUNTED + 1


@dataclass(frozen=True)
class Opens:
    """What an authorization would open, or opens: in its units and its period.

    More than MOST_COUNTED crops or identities are not counted: there are MOST_COUNTED + 1 then.
    """

    crops: int
    cameras: int  # with crops
    identities: int  # of the units themselves


_OPENS = text("SELECT crops, cameras, identities FROM opens_now(:id)")


def open_case(store: Store, name: str, *, reason: str) -> UUID:
    """Opens a case; returns its id. Raises InputError, NotAllowed."""
    with deciding(store, "opening a case") as connection:
        sql = "INSERT INTO case_file (name) VALUES (:name) ON CONFLICT (name) DO NOTHING RETURNING id"
        made: UUID | None = connection.scalar(text(sql), {"name": name})
        if made is None:
            raise InputError(f"there is a case {name[:80]!r} already")
        _note(store, connection, Action.CASE_OPEN, made, reason=reason, details={"name": name})
    return made


def close_case(store: Store, case: str, *, reason: str) -> UUID:
    """Closes a case, which revokes its authorizations. Raises InputError, NotAllowed."""
    return _change_case(store, case, "closed_at = now()", Action.CASE_CLOSE, reason)


def hold_case(store: Store, case: str, *, hold: bool, reason: str) -> UUID:
    """What the case names is kept beyond its retention, or no longer. Raises InputError, NotAllowed."""
    return _change_case(store, case, f"hold = {hold}", Action.CASE_HOLD if hold else Action.CASE_RELEASE, reason)


def _change_case(store: Store, case: str, change: str, action: Action, reason: str) -> UUID:
    with deciding(store, "changing a case") as connection:
        found: UUID = case_of(connection, case).id
        connection.execute(text(f"UPDATE case_file SET {change} WHERE id = :id"), {"id": found})  # nosec B608
        _note(store, connection, action, found, reason=reason)
    return found


def ask(store: Store, case: str, asked: AuthorizationParameters) -> UUID:
    """Asks for an authorization; returns its id. Of kind `urgent` it holds at once, for 48 hours without approval.

    Raises InputError, NotAllowed.
    """
    with deciding(store, "asking for an authorization") as connection:
        of_case: UUID = case_of(connection, case).id
        values = asked.model_dump(exclude={"units"}) | {"units": list(asked.units), "case": of_case}
        made: UUID = connection.execute(
            text(
                "INSERT INTO case_authorization (case_id, kind, purpose, legal_basis, sought, units, from_time, "
                "to_time, expires_at) VALUES (:case, CAST(:kind AS authorization_kind), :purpose, :legal_basis, "
                ":sought, :units, :from_time, :to_time, :expires_at) RETURNING id"
            ),
            values,
        ).scalar_one()
        details = asked.model_dump(mode="json", exclude={"sought"})
        _note(
            store, connection, Action.CASE_ASK, of_case, made, unit=asked.units[0], reason=asked.sought, details=details
        )
    return made


def what_it_opens(store: Store, authorization: str) -> tuple[Row[Any], Opens]:
    """An authorization, and the counts of what it would open now. Raises InputError, NotAllowed."""
    with _reading(store) as connection:
        found = authorization_of(connection, authorization)
        return found, _opens(connection, found.id)


def _opens(connection: Connection, authorization: UUID) -> Opens:
    return Opens(**connection.execute(_OPENS, {"id": authorization}).one()._mapping)


def pending(store: Store) -> list[tuple[Row[Any], Opens]]:
    """What waits for a decision, with what it would open. Raises NotAllowed."""
    with _reading(store) as connection:
        waiting = connection.execute(text(_AUTHORIZATIONS.format(which=f"{_STATE} = 'asked'"))).all()
        return [(row, _opens(connection, row.id)) for row in waiting]


def approve(store: Store, authorization: str, seen: Opens, *, reason: str) -> UUID:
    """Approves it. `seen`: what the approver was shown (`what_it_opens`). Raises InputError, NotAllowed.

    The database counts again: where it opens more by now, it is refused, and has to be looked at anew.
    """
    change = "approved_at = now(), opens = CAST(:opens AS jsonb)"
    return _decide(store, authorization, change, Action.CASE_APPROVE, reason, seen)


def refuse(store: Store, authorization: str, *, reason: str) -> UUID:
    """Refuses it. Raises InputError, NotAllowed."""
    return _decide(store, authorization, "refused_at = now()", Action.CASE_REFUSE, reason)


def revoke(store: Store, authorization: str, *, reason: str) -> UUID:
    """Ends it now, for every session under it. Raises InputError, NotAllowed."""
    return _decide(store, authorization, "revoked_at = now()", Action.CASE_REVOKE, reason)


def _decide(
    store: Store, authorization: str, change: str, action: Action, reason: str, seen: Opens | None = None
) -> UUID:
    with deciding(store, what := "deciding on an authorization") as connection:
        connection.execute(text("SELECT acting_in_a_case(:what, 'operator', 'supervisor')"), {"what": what})
        found = authorization_of(connection, authorization)
        sql = text(f"UPDATE case_authorization SET {change} WHERE id = :id RETURNING opens")  # nosec B608
        shown = {"opens": json.dumps(asdict(seen))} if seen else {}
        opens = connection.execute(sql, {"id": found.id, **shown}).scalar_one()
        details = {"opens": opens} if seen else {}
        _note(store, connection, action, found.case_id, found.id, unit=found.units[0], reason=reason, details=details)
    made: UUID = found.id
    return made


def lock_overdue(store: Store) -> int:
    """Locks urgent use that was not approved in time, or was refused, and erases its results; how many.

    The database writes the audit rows, with the hash of each row that it erased.
    """
    with store.begin() as connection:
        return int(connection.execute(text("SELECT lock_overdue()")).scalar_one())


@contextmanager
def _reading(store: Store) -> Iterator[Connection]:
    """A transaction of whoever may read who is sought, and why. Raises NotAllowed."""
    check_role(store, ("operator", "supervisor", "auditor"), "looking at cases")
    with store.signed_in() as connection:
        yield connection


def cases(store: Store, before: UUID | None = None, most: int | None = None) -> Sequence[Row[Any]]:
    """Cases (id, name, opened_by, opened_at, closed_at, hold, authorizations), the newest first.

    before, most: a page of them, which begins after that case. Raises NotAllowed.
    """
    which = "(c.opened_at, c.id) < (SELECT b.opened_at, b.id FROM case_file b WHERE b.id = :before)"
    with _reading(store) as connection:
        query = text(_CASES.format(which=which if before else "true"))
        return connection.execute(query, {"most": most} | ({"before": before} if before else {})).all()


def show_case(store: Store, case: str) -> tuple[Row[Any], Sequence[Row[Any]]]:
    """A case and its authorizations. Raises InputError, NotAllowed."""
    with _reading(store) as connection:
        found = case_of(connection, case)
        which = text(_AUTHORIZATIONS.format(which="a.case_id = :case"))
        return found, connection.execute(which, {"case": found.id}).all()


def case_of(connection: Connection, case: str) -> Row[Any]:
    """The case of that name, or of an id that begins so. Raises InputError."""
    which = "c.name = :case OR (length(:case) >= 4 AND starts_with(c.id::text, :case))"
    rows = connection.execute(text(_CASES.format(which=which)), {"case": case, "most": 2}).all()
    return _only(rows, "case", case)


def authorization_of(connection: Connection, authorization: str) -> Row[Any]:
    """The authorization whose id begins so. Raises InputError."""
    which = "length(:id) >= 4 AND starts_with(a.id::text, :id)"
    rows = connection.execute(text(_AUTHORIZATIONS.format(which=which)), {"id": authorization.lower()}).all()
    return _only(rows, "authorization", authorization)


def _only(rows: Sequence[Row[Any]], what: str, asked: str) -> Row[Any]:
    if len(rows) != 1:
        many = f"more than one {what} begins with" if rows else f"there is no {what}"
        raise InputError(f"{many} {asked[:80]!r}", do="`urban-reid cases list` and `cases show` name them")
    return rows[0]


def _note(
    store: Store,
    connection: Connection,
    action: Action,
    case: UUID,
    authorization: UUID | None = None,
    *,
    unit: str | None = None,
    reason: str,
    details: dict[str, Any] | None = None,
) -> None:
    named = {"case": str(case)} | ({"authorization": str(authorization)} if authorization else {})
    audit(connection, actor_of(store, connection), action, unit=unit, reason=reason, details=named | (details or {}))
