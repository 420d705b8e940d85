"""The list of erasures, HOME/erasures.jsonl: it outlives the database, and has a restored one forget the same people.

Its first line holds the salt, each other one an erasure with its hashes. Whoever has the list, and a picture with its
camera and its time to the microsecond, can find out that this crop was erased; nobody else reads anything from it.
"""

import json
from pathlib import Path

from sqlalchemy import text

from pipeline.store import Store
from schemas.disk import replacing
from schemas.errors import InputError
from schemas.settings import Settings

_FORMAT = "urban-reid erasures 1"
_ERASURES = text(
    "SELECT e.id, e.kind, e.asked_at, array_agg(encode(d.hash, 'hex') ORDER BY d.hash) AS hashes FROM erasure e "
    "JOIN erased d ON d.erasure_id = e.id GROUP BY e.id ORDER BY e.asked_at, e.id"
)


def list_path(settings: Settings) -> Path:
    return settings.home / "erasures.jsonl"


def write_list(store: Store) -> None:
    """Writes the list anew, whole or not at all, readable by this user only."""
    with store.begin() as connection:
        salt = bytes(connection.execute(text("SELECT salt FROM erasure_salt")).scalar_one())
        rows = connection.execute(_ERASURES).all()
    with replacing(list_path(store.settings), mode=0o600) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"format": _FORMAT, "salt": salt.hex()}) + "\n")
        for row in rows:
            line = {"erasure": str(row.id), "kind": row.kind, "at": row.asked_at.isoformat(), "hashes": row.hashes}
            file.write(json.dumps(line) + "\n")


def read_list(path: Path) -> tuple[bytes, set[bytes]]:
    """(salt, hashes) of a list. Raises InputError."""
    try:
        with path.open(encoding="utf-8") as lines:
            head = json.loads(next(lines, "null"))
            if not isinstance(head, dict) or head.get("format") != _FORMAT:
                raise InputError(f"{path} is no list of erasures of urban-reid")
            hashes = {bytes.fromhex(one) for line in lines for one in json.loads(line)["hashes"]}
            return bytes.fromhex(head["salt"]), hashes
    except OSError as error:
        raise InputError(f"{path}: the list of erasures cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: the list of erasures is damaged; take an earlier copy of it") from None
