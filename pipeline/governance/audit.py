"""The audit trail: who did what, where and why, written in the transaction of what was done."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text


def audit(
    connection: Connection,
    actor: str,
    action: str,
    *,
    unit: str | None = None,
    reason: str | None = None,
    details: Mapping[str, Any],
) -> None:
    """Appends a row."""
    connection.execute(
        text(
            "INSERT INTO audit (actor, action, unit, reason, details) "
            "VALUES (:actor, :action, :unit, :reason, CAST(:details AS jsonb))"
        ),
        {"actor": actor, "action": action, "unit": unit, "reason": reason, "details": json.dumps(details)},
    )
