"""Reads the audit with its chain, verifies it, and signs checkpoints of how far it has come."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, text

from pipeline.governance.verify_audit import Entry, Verdict, checked_fingerprint, fingerprint, payload, verify
from pipeline.store import Store
from schemas.disk import alone, make_folders, write_whole
from schemas.errors import HomeError, InputError
from schemas.settings import Settings

#: Rows read at a time.
_BATCH = 5_000

_ENTRIES = (
    "SELECT c.district, c.position, c.hash, coalesce(a.id, c.audit_id) AS id, "
    "(extract(epoch FROM a.at) * 1000000)::bigint AS at_us, a.actor, a.action, a.unit, a.commitment, a.salt, a.reason, "
    "CAST(a.details AS text) AS details FROM audit_chain c {join} JOIN audit a ON a.id = c.audit_id {where} "
    'ORDER BY c.district COLLATE "C" NULLS LAST, c.position, a.id'
)
_HEADS = text(
    "SELECT DISTINCT ON (district) district, position, hash FROM audit_chain ORDER BY district, position DESC"
)


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement of how far each district's chain has come."""

    at: datetime
    rows: int
    path: Path
    key: str  # the public key's fingerprint, hex SHA-256


def read_entries(connection: Connection, since: datetime | None = None) -> Iterator[Entry]:
    """All entries of the chain in order of district and position, then the rows that are in no chain.

    since: from each district's first row at this time or later on; None: from its first.
    """
    where, parameters = "", {}
    if since is not None:
        where = (
            "WHERE c.position >= (SELECT min(d.position) FROM audit_chain d JOIN audit b ON b.id = d.audit_id "
            "WHERE d.district = c.district AND b.at >= :since)"
        )
        parameters = {"since": since}
    query = text(_ENTRIES.format(join="FULL" if since is None else "LEFT", where=where))
    with connection.execution_options(yield_per=_BATCH).execute(query, parameters) as rows:
        for row in rows:
            values: dict[str, Any] = dict(row._mapping)
            for name in ("hash", "commitment", "salt"):
                values[name] = None if values[name] is None else bytes(values[name])
            yield Entry(**values)


def read_heads(connection: Connection) -> dict[str, tuple[int, bytes]]:
    """Position and hash of each district's last entry."""
    return {row.district: (row.position, bytes(row.hash)) for row in connection.execute(_HEADS)}


def verify_city(store: Store, key: str | None = None) -> Verdict:
    """Verifies the audit of a city against its chain and the checkpoints of `checkpoints_path`.

    key: the fingerprint of the key that must have signed them; None: that of this data directory, if it has one and
    there are checkpoints. Raises InputError for a key that is none, or a file that cannot be read.
    """
    lines = _lines(checkpoints_path(store.settings))
    try:
        wanted = checked_fingerprint(key) if key is not None else own_fingerprint(store.settings) if lines else None
    except ValueError as error:
        raise InputError(str(error)) from None
    with store.owning() as connection:  # all rows, whoever asks: a row that is hidden would be a row that is gone
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        return verify(read_entries(connection), lines, wanted)


def checkpoints_path(settings: Settings) -> Path:
    """The file of checkpoints: `URBAN_REID_AUDIT_CHECKPOINTS`, else a file of the data directory."""
    return settings.audit_checkpoints or settings.home / "audit" / "checkpoints.jsonl"


def own_fingerprint(settings: Settings) -> str | None:
    """The fingerprint of the key that signs here; None if nothing was signed yet. Raises HomeError."""
    path = _key_path(settings)
    return fingerprint(_read_key(path).public_key().public_bytes_raw()) if path.exists() else None


def sign_checkpoint(store: Store) -> Checkpoint:
    """Appends a checkpoint to the file. Raises InputError, HomeError.

    Where the last checkpoint states more than the chain holds, a new one would hide a cut and is refused.
    """
    settings = store.settings
    path = checkpoints_path(settings)
    busy = InputError(f"another program is writing a checkpoint to {path}")
    with _writing(path):
        make_folders(path.parent)
    with _writing(path), alone(path.with_name(f"{path.name}.lock"), busy):
        lines = _lines(path)
        with store.begin() as connection:
            heads = read_heads(connection)
            for district, position in _last_heads(path, lines).items():
                if heads.get(district, (0,))[0] < position:
                    raise InputError(
                        f"the last checkpoint of {path} states {position} rows of {district or 'no district'} and the "
                        "database has fewer",
                        do="look with `urban-reid audit verify`, then name another file in "
                        "URBAN_REID_AUDIT_CHECKPOINTS",
                    )
        key = own_key(settings)
        public = key.public_key().public_bytes_raw()
        at = datetime.now(UTC)
        checkpoint: dict[str, object] = {
            "at": at.isoformat(timespec="seconds"),
            "before": hashlib.sha256(lines[-1].strip().encode()).hexdigest() if lines else "",
            "heads": {district: [position, found.hex()] for district, (position, found) in heads.items()},
            "key": public.hex(),
        }
        signed = checkpoint | {"signature": key.sign(payload(checkpoint)).hex()}
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as file:
            file.write(json.dumps(signed, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
    return Checkpoint(at, sum(position for position, _ in heads.values()), path, fingerprint(public))


def _last_heads(path: Path, lines: list[str]) -> dict[str, int]:
    """The positions that the last checkpoint states. Raises InputError."""
    try:
        return {name: int(position) for name, (position, _) in json.loads(lines[-1])["heads"].items()} if lines else {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"the last line of {path} is no checkpoint", do="`urban-reid audit verify` names all such"
        ) from None


def _lines(path: Path) -> list[str]:
    """The checkpoints in the file; none where there is none. Raises InputError."""
    try:
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the checkpoints in {path} cannot be read: {error}") from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns an error of the disk into InputError: the file may lie on another machine's."""
    try:
        yield
    except OSError as error:
        raise InputError(f"a checkpoint cannot be written to {path}: {error.strerror or error}") from None


def _key_path(settings: Settings) -> Path:
    return settings.home / "audit" / "signing-key"


def own_key(settings: Settings) -> Ed25519PrivateKey:
    """The key that signs here, made on first use. Raises HomeError."""
    path = _key_path(settings)
    if not path.exists():
        make_folders(path.parent)
        write_whole(path, Ed25519PrivateKey.generate().private_bytes_raw().hex() + "\n", mode=0o600, sync=True)
    return _read_key(path)


def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii")))
    except (OSError, ValueError, InvalidKey) as error:
        raise HomeError(f"{path} holds no signing key: {error}; remove it, and a new one is made") from None
