"""Signing in and out. A session is a random token, which its owner keeps, and a row with its SHA-256, role and end."""

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from pipeline.governance import passwords
from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from pipeline.store.errors import not_allowed
from pipeline.store.session_file import forget_token, session_token
from schemas.errors import InputError, NotAllowed
from schemas.roles import Role
from schemas.text import said

#: How long a sign-in lasts at most: a shift.
SHIFT = timedelta(hours=12)
#: Wrong passwords in a row after which an account is locked, for how long, and for how long at most. Each further one
#: doubles the time.
FAILURES = 5
_LOCK, _LONGEST_LOCK = timedelta(minutes=15), timedelta(days=1)
#: One message, so that nobody learns which names there are.
_REFUSED = said(
    "signing in was refused: the name or the password is wrong, or the account is disabled, or it is locked after "
    f"{FAILURES} wrong passwords, which ends by itself; `urban-reid accounts unlock` ends it now"
)


@dataclass(frozen=True)
class Session:
    """Who is signed in, as what, where and for how long."""

    hash: bytes  # SHA-256 of its token
    account: str
    account_id: int
    role: Role
    units: tuple[str, ...]  # with all below them; "": the whole city
    authorization: UUID | None
    name: str | None  # of a token for scripts
    made_at: datetime
    expires_at: datetime


def sign_in(
    store: Store,
    name: str,
    password: str,
    *,
    role: Role | None = None,
    authorization: UUID | None = None,
    token: str | None = None,
    lasts: timedelta = SHIFT,
) -> tuple[str, Session]:
    """Makes a session; returns its token, which is stored nowhere, and the session.

    role: None: the account's only one. token: the name of a token for scripts, which lives beside sign-ins. The session
    ends after `lasts`, and no later than the grants of its role and its authorization. Raises NotAllowed after an audit
    row, which is committed whatever the caller does; InputError.
    """
    with store.signing_in() as connection:
        made, refused = None, _REFUSED
        account = authenticate(connection, store, name, password)
        if account is not None:
            made, refused = _open(connection, account, name, role, authorization, token, lasts)
            if made is None:
                details = {"account": name, "why": refused}
                audit(connection, store.settings.operator, Action.SESSION_REFUSE, details=details)
    if made is None:
        raise not_allowed(refused)
    return made


def authenticate(connection: Connection, store: Store, name: str, password: str) -> int | None:
    """The account's id if the password is right and it may sign in; else None, after audit rows.

    Wrong passwords are counted. The work is the same for names that there are and names that there are not. The caller
    commits in either case.
    """
    row = connection.execute(
        text(
            "SELECT id, password, failures, locked_until > clock_timestamp() AS locked, disabled_at FROM account "
            "WHERE name = :name FOR UPDATE"  # attempts at once are counted one after another
        ),
        {"name": name},
    ).one_or_none()
    is_right = passwords.matches(row.password if row else None, password)
    if row is None:
        why = "unknown name"  # which may be a password, and is written nowhere
    elif row.disabled_at is not None:
        why = "disabled"
    elif row.locked:
        why = "locked"
    elif not is_right:
        why = "wrong password"
    else:
        _note_success(connection, row, password)
        return int(row.id)
    operator = store.settings.operator
    details = {"account": name if row else None, "why": why}
    audit(connection, operator, Action.SESSION_REFUSE, details=details)
    if row is not None and why == "wrong password":
        _note_failure(connection, operator, name, row)
    return None


def _note_success(connection: Connection, row: Row[Any], password: str) -> None:
    connection.execute(
        text("UPDATE account SET failures = 0, locked_until = NULL, password = :password WHERE id = :id"),
        {"id": row.id, "password": passwords.renewed(row.password, password) or row.password},
    )


def _note_failure(connection: Connection, operator: str, name: str, row: Row[Any]) -> None:
    failures = row.failures + 1
    locks = failures >= FAILURES
    for_ = min(_LOCK * 2 ** min(failures - FAILURES, 20), _LONGEST_LOCK) if locks else None
    until: datetime | None = connection.execute(
        text(
            "UPDATE account SET failures = :failures, locked_until = clock_timestamp() + CAST(:for AS interval) "
            "WHERE id = :id RETURNING locked_until"
        ),
        {"id": row.id, "failures": failures, "for": for_},
    ).scalar_one()
    if until is not None:
        details = {"account": name, "failures": failures, "until": until.isoformat(timespec="seconds")}
        audit(connection, operator, Action.ACCOUNT_LOCK, details=details)


_ROLES = text(
    "SELECT role::text, array_agg(DISTINCT unit) AS units, min(to_time) FILTER (WHERE isfinite(to_time)) AS to_time "
    "FROM account_role WHERE account_id = :account AND revoked_at IS NULL AND from_time <= now() AND to_time > now() "
    "GROUP BY role ORDER BY role"
)
_UNDER = text("SELECT set_config('urban_reid.session', :token, true)")
_MAKE = text(
    "INSERT INTO session (hash, account_id, role, units, authorization_id, name, expires_at) VALUES (:hash, :account, "
    "CAST(:role AS account_role_kind), :units, :authorization, :name, LEAST(now() + :lasts, :role_ends, :ends))"
)
_FIND = (
    "SELECT s.hash, a.name AS account, a.id AS account_id, s.role::text AS role, s.units, s.authorization_id, s.name, "
    "s.made_at, s.expires_at FROM session s JOIN account a ON a.id = s.account_id WHERE s.ended_at IS NULL "
    "AND s.expires_at > now() AND a.disabled_at IS NULL AND {which} ORDER BY s.made_at, s.hash"
)


def _open(
    connection: Connection,
    account: int,
    name: str,
    role: Role | None,
    authorization: UUID | None,
    token_name: str | None,
    lasts: timedelta,
) -> tuple[tuple[str, Session] | None, str]:
    """Token and session, or None and why there is none."""
    held = {Role(row.role): row for row in connection.execute(_ROLES, {"account": account})}
    if not held:
        return None, said(f"{name} has no role now; `urban-reid accounts grant {name} ROLE` gives one")
    chosen = role or (next(iter(held)) if len(held) == 1 else None)
    if chosen is None:
        raise InputError(f"{name} has several roles", do=f"choose one with --role {' | '.join(held)}")
    if chosen not in held:
        return None, said(f"{name} does not have the role {chosen} now; there is {', '.join(held)}")
    ends = None
    if authorization is not None:
        ends, refused = _authorization(connection, authorization, account, chosen)
        if refused:
            return None, refused
    if token_name and _find(connection, "s.account_id = :account AND s.name = :name", account=account, name=token_name):
        raise InputError(
            f"there is a token {token_name} already", do=f"`urban-reid tokens revoke {token_name}` ends it"
        )
    token = secrets.token_hex(32)
    with connection.begin_nested() as made:
        values = {"account": account, "role": chosen, "units": held[chosen].units, "name": token_name, "lasts": lasts}
        values |= {
            "authorization": authorization,
            "hash": _hash(token),
            "role_ends": held[chosen].to_time,
            "ends": ends,
        }
        connection.execute(_MAKE, values)
        connection.execute(_UNDER, {"token": token})
        covered = connection.execute(text("SELECT (granted()).units")).scalar_one()
        if not covered:
            made.rollback()
            holds_not = said(f"the authorization {authorization} does not hold now")
            covers_not = said(f"the authorization {authorization} covers nothing of what {name} may see as {chosen}")
            return None, holds_not if covered is None else covers_not
    session = _of_token(connection, token)
    assert session is not None
    details = {"role": chosen, "units": list(session.units), "expires_at": session.expires_at.isoformat()}
    details |= {"authorization": str(authorization)} if authorization else {}
    details |= {"token": token_name} if token_name else {}
    audit(connection, name, Action.SESSION_START, details=details)
    return (token, session), ""


def _authorization(
    connection: Connection, authorization: UUID, account: int, role: Role
) -> tuple[datetime | None, str]:
    """When the authorization ends, and why this account may not work under it; empty where it may."""
    row = connection.execute(
        text("SELECT approved_by, expires_at FROM case_authorization WHERE id = :id"), {"id": authorization}
    ).one_or_none()
    if row is None:
        return None, said(f"there is no authorization {authorization}; `urban-reid cases list` shows those that exist")
    if role not in (Role.OPERATOR, Role.SUPERVISOR):
        return None, said(f"under an authorization works an operator or a supervisor, and not the role {role}")
    if row.approved_by == account:
        return None, said("whoever approved an authorization does not work under it")
    return row.expires_at, ""


@contextmanager
def acting(store: Store) -> Iterator[tuple[Connection, Session | None]]:
    """A transaction of `Store.signing_in` under the session of this program, which is its actor, and that session.

    None: nobody is signed in, or not any more. Unlike `granted()` it asks in open homes too.
    """
    token = session_token(store.settings)
    with store.signing_in() as connection:
        connection.execute(_UNDER, {"token": token})
        yield connection, _of_token(connection, token)


def current_session(store: Store) -> Session | None:
    """Who is signed in here, by the token of this program's settings or data directory."""
    with acting(store) as (_, session):
        return session


def end_session(store: Store) -> Session | None:
    """Ends the session that the store works under. Returns it, if it still held."""
    with acting(store) as (connection, session):
        if session is not None:
            _end(connection, session)
    return session


def sign_out(store: Store) -> Session | None:
    """Ends the command line's session and forgets its token. Returns it, if it still held."""
    session = end_session(store)
    forget_token(store.settings.home)
    return session


def list_tokens(store: Store) -> Sequence[Session]:
    """The tokens for scripts of whoever is signed in, that hold; an administrator sees everybody's.

    Raises NotAllowed if nobody is signed in.
    """
    with acting(store) as (connection, session):
        return _tokens(connection, session)


def revoke_token(store: Store, name: str, *, account: str | None = None) -> None:
    """Ends a token for scripts of whoever is signed in, or of the account that an administrator names.

    Raises InputError, NotAllowed.
    """
    with acting(store) as (connection, session):
        tokens = _tokens(connection, session)
        whose = account or (session.account if session else "")
        if session is not None and whose != session.account and session.role is not Role.ADMINISTRATOR:
            raise NotAllowed(f"tokens of others are ended by an administrator, and {session.account} is {session.role}")
        found = [one for one in tokens if (one.account, one.name) == (whose, name)]
        if not found:
            raise InputError(
                f"of {whose[:80]}'s tokens none is called {name[:80]!r}",
                do="`urban-reid tokens list` shows those that there are, and --account says whose it is",
            )
        for one in found:
            _end(connection, one, session)


def _tokens(connection: Connection, session: Session | None) -> Sequence[Session]:
    if session is None:
        raise NotAllowed("nobody is signed in, whose tokens these could be", do="sign in with `urban-reid login`")
    whose = "true" if session.role is Role.ADMINISTRATOR else "s.account_id = :account"
    return _find(connection, f"{whose} AND s.name IS NOT NULL", account=session.account_id)


def _end(connection: Connection, session: Session, by: Session | None = None) -> None:
    details = {"role": session.role} | ({"token": session.name} if session.name else {})
    details |= {"account": session.account} if by is not None and by.account_id != session.account_id else {}
    audit(connection, session.account, Action.SESSION_END, details=details)  # while it is still the actor
    connection.execute(text("UPDATE session SET ended_at = now() WHERE hash = :hash"), {"hash": session.hash})


def _of_token(connection: Connection, token: str) -> Session | None:
    if not re.fullmatch("[0-9a-f]{64}", token):
        return None
    return next(iter(_find(connection, "s.hash = :hash", hash=_hash(token))), None)


def _find(connection: Connection, which: str, **values: object) -> Sequence[Session]:
    rows = connection.execute(text(_FIND.format(which=which)), values)
    return [
        Session(
            bytes(row.hash),
            row.account,
            row.account_id,
            Role(row.role),
            tuple(row.units),
            row.authorization_id,
            row.name,
            row.made_at,
            row.expires_at,
        )
        for row in rows
    ]


def _hash(token: str) -> bytes:
    return sha256(bytes.fromhex(token)).digest()
