"""Backups and dumps that were made before now, which still hold what is erased today."""

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from pipeline.backup.manifest import read_manifest
from pipeline.store import Store
from schemas.errors import InputError

_FOLDERS = text("SELECT folder, at FROM backup_folders()")


def earlier_backups(store: Store) -> list[str]:
    """A line for each backup that is known of and for each dump of the home, with what to do about it."""
    with store.begin() as connection:
        rows = connection.execute(_FOLDERS).all()
    lines = []
    for row in rows:
        try:
            taken = f"of {read_manifest(Path(row.folder)).taken_at:%Y-%m-%d %H:%M} UTC"
        except InputError:
            taken = f"begun {row.at:%Y-%m-%d %H:%M} UTC, which is not reached from here"
        lines.append(f"backup {row.folder} {taken}: back up into it again, or remove it and its copies")
    for dump in sorted((store.settings.home / "backups").glob("*.dump")):
        at = datetime.fromtimestamp(dump.stat().st_mtime, UTC)
        lines.append(f"dump {dump} of {at:%Y-%m-%d %H:%M} UTC: remove it")
    return lines
