"""Identities as people name them, and which version of one counts."""

import re
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from schemas.errors import InputError

#: Of a row `i` of identity: whether a newer version counts that this session does not see, it may be. Beside the
#: question for those that it sees, as in identity_now (migration 0052).
OUTDATED_UNSEEN = "CASE WHEN (SELECT sees_in_part()) THEN is_outdated(i.id, i.key) ELSE false END"

# A range and no prefix of the text, so that an index finds it among all versions of a city.
_IDENTITY = text(
    "SELECT id, persistent_id, unit, tracklets, crops FROM identity_now "
    "WHERE persistent_id BETWEEN :first AND :last ORDER BY persistent_id LIMIT 3"
)


def current_identity(connection: Connection, name: str) -> Any:
    """The row (id, persistent_id, unit, tracklets, crops) of an identity of now.

    name: its persistent id, or at least the first four digits of it. Raises InputError.
    """
    digits = name.lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{4,32}", digits):
        raise InputError(f"{name[:40]!r}: give at least the first four digits of an identity's id")
    between = {"first": UUID(digits.ljust(32, "0")), "last": UUID(digits.ljust(32, "f"))}
    found = connection.execute(_IDENTITY, between).all()
    if len(found) != 1:
        what = "more than one identity's id begins" if found else "no identity's id begins"
        raise InputError(f"{what} with {name[:40]!r}; the report and `urban-reid search --json` show ids")
    return found[0]
