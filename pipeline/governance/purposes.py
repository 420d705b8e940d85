"""The frame of all authorizations, set by administrators: purposes, impact assessment, and what may be asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, text

from pipeline.governance.audit import Action, audit
from pipeline.governance.deciding import actor_of, deciding
from pipeline.store import Store
from schemas.errors import InputError

_WHAT = "changing what may be asked for"


@dataclass(frozen=True)
class Limits:
    """What an authorization may ask for at most."""

    longest_period_h: int  # of what may be seen
    longest_open_h: int  # until it expires
    urgent: bool  # a search may begin before its approval, which must come within 48 hours
    standing: bool
    standing_searches: int = 3  # of one authorization at once
    standing_hits_h: int = 20  # hits that they raise within an hour, all together


def purposes(store: Store) -> Sequence[Row[Any]]:
    """All purposes (name, description, retired_at), by name."""
    with store.signed_in() as connection:
        return connection.execute(text("SELECT name, description, retired_at FROM purpose ORDER BY name")).all()


def add_purpose(store: Store, name: str, description: str, *, reason: str) -> None:
    """Adds a purpose for which authorizations may be asked. Raises InputError, NotAllowed."""
    with deciding(store, _WHAT) as connection:
        sql = (
            "INSERT INTO purpose (name, description) VALUES (:name, :description) ON CONFLICT DO NOTHING RETURNING name"
        )
        if not connection.execute(text(sql), {"name": name, "description": description}).all():
            raise InputError(f"there is a purpose {name} already, perhaps a retired one; choose another name")
        _note(store, connection, Action.PURPOSE_ADD, reason, {"purpose": name})


def retire_purpose(store: Store, name: str, *, reason: str) -> None:
    """Takes a purpose from the list; what was approved for it stays. Raises InputError, NotAllowed."""
    with deciding(store, _WHAT) as connection:
        sql = "UPDATE purpose SET retired_at = now() WHERE name = :name AND retired_at IS NULL RETURNING name"
        if not connection.execute(text(sql), {"name": name}).all():
            raise InputError(f"there is no purpose {name[:64]!r} on the list", do="see `urban-reid purposes list`")
        _note(store, connection, Action.PURPOSE_RETIRE, reason, {"purpose": name})


def state_assessment(store: Store, reference: str, *, reason: str) -> None:
    """States where the impact assessment is found; without one nothing is authorized. Raises NotAllowed."""
    with deciding(store, _WHAT) as connection:
        connection.execute(text("INSERT INTO impact_assessment (reference) VALUES (:text)"), {"text": reference})
        _note(store, connection, Action.ASSESSMENT_STATE, reason, {"reference": reference})


def assessment(store: Store) -> str | None:
    """The reference that counts; None if there is none."""
    with store.signed_in() as connection:
        sql = "SELECT reference FROM impact_assessment ORDER BY id DESC LIMIT 1"
        found: str | None = connection.scalar(text(sql))
        return found


def limits(store: Store) -> Limits:
    with store.signed_in() as connection:
        sql = (
            "SELECT longest_period_h, longest_open_h, urgent, standing, standing_searches, standing_hits_h "
            "FROM authorization_limits"
        )
        return Limits(**connection.execute(text(sql)).one()._mapping)


def change_limits(store: Store, new: Limits, *, reason: str) -> None:
    """Raises NotAllowed, and StoreError for numbers out of their ranges."""
    with deciding(store, _WHAT) as connection:
        sql = (
            "UPDATE authorization_limits SET longest_period_h = :longest_period_h, longest_open_h = :longest_open_h, "
            "urgent = :urgent, standing = :standing, standing_searches = :standing_searches, "
            "standing_hits_h = :standing_hits_h"
        )
        connection.execute(text(sql), vars(new))
        _note(store, connection, Action.LIMITS_CHANGE, reason, vars(new))


def _note(store: Store, connection: Any, action: Action, reason: str, details: dict[str, Any]) -> None:
    audit(connection, actor_of(store, connection), action, reason=reason, details=details)
