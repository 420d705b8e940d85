"""Identities as people name them."""

import re
from typing import Any

from sqlalchemy import Connection, text

from schemas.errors import InputError

_IDENTITY = text(
    "SELECT persistent_id, unit, tracklets FROM identity_now WHERE starts_with(CAST(persistent_id AS text), :id) "
    "ORDER BY persistent_id LIMIT 3"
)


def current_identity(connection: Connection, name: str) -> Any:
    """The row (persistent_id, unit, tracklets) of an identity of now. Raises InputError."""
    if not re.fullmatch(r"[0-9a-f-]{4,36}", name.lower()):
        raise InputError(f"{name[:40]!r}: give at least the first four digits of an identity's id")
    found = connection.execute(_IDENTITY, {"id": name.lower()}).all()
    if len(found) != 1:
        what = "more than one identity's id begins" if found else "no identity's id begins"
        raise InputError(f"{what} with {name[:40]!r}; the report and `urban-reid search --json` show ids")
    return found[0]
