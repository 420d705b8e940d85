"""Statements of operators about identities: this identity is one person, or it is not.

A statement is about the version that was looked at. It is never changed; a later one counts instead.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from pipeline.city.named import current_identity
from pipeline.governance.audit import Action, audit
from pipeline.governance.deciding import actor_of, authorized_by, deciding
from pipeline.governance.doors import check_authorized
from pipeline.store import Store
from schemas.errors import InputError
from schemas.levels import Level, level_of

_WHAT = "a statement about an identity"


@dataclass(frozen=True)
class Confirmed:
    identity: UUID
    unit: str
    crops: int


def confirm(store: Store, identity: str, *, operator: str, reason: str, is_one_person: bool = True) -> Confirmed:
    """Writes the operator's statement about a district's identity as it is now, and the audit row.

    `identity`: its persistent id, or at least the first four digits of it. Only identities of a district can be
    confirmed: two identities of a lower level may be one person, and would teach a model that they are two. It shapes
    identities and confirms no lead. Raises InputError, and NotAllowed in a live home without an authorization.
    """
    with deciding(store, _WHAT) as connection:
        connection.execute(text("SELECT check_may_look(:what)"), {"what": _WHAT})
        row = current_identity(connection, identity)
        if level_of(row.unit) is not Level.DISTRICT:
            raise InputError(
                f"{row.persistent_id} is an identity of the {level_of(row.unit)} {row.unit}; confirm the identity of "
                "the district that holds it"
            )
    check_authorized(store, row.unit, _WHAT)
    with deciding(store, _WHAT) as connection:
        operator = actor_of(store, connection, operator)
        connection.execute(
            text(
                "INSERT INTO confirmation (identity_id, is_one_person, operator, reason) "
                "VALUES (:identity, :one, :operator, :reason)"
            ),
            {"identity": row.id, "one": is_one_person, "operator": operator, "reason": reason},
        )
        audit(
            connection,
            operator,
            Action.IDENTITY_CONFIRM if is_one_person else Action.IDENTITY_DENY,
            unit=row.unit,
            reason=reason,
            details={"identity": str(row.persistent_id), "crops": row.crops} | authorized_by(connection),
        )
    return Confirmed(row.persistent_id, row.unit, row.crops)
