"""What has the names of erased rows outside of the database: pictures, reports and exports of ours, Prefect's runs."""

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path

from sqlalchemy import Connection, text

from pipeline.crops.context_frames import context_store
from pipeline.crops.crop_store import PROBES, CropStore, Picture, Place
from pipeline.crops.days import destroy_day
from pipeline.crops.held import parts, unheld
from pipeline.governance.verify_audit import ROWS
from pipeline.report.folder import MARKER
from pipeline.report.pages import PAGES
from pipeline.store import Store
from pipeline.store.locks import lock_crops
from schemas.disk import replacing, write_whole
from schemas.errors import HomeError
from schemas.settings import Settings

#: (kind, name, place) as in `erasure_name`.
Names = Sequence[tuple[str, str, str]]

#: Whether a row holds a picture of a day.
_HELD = {
    "crops": "SELECT FROM crop WHERE day = :day AND starts_with(camera, :owner || '/') AND withdrawn_at IS NULL",
    "context": "SELECT FROM context_frame WHERE day = :day AND starts_with(camera, :owner || '/')",
    PROBES: "SELECT FROM probe WHERE (uploaded_at AT TIME ZONE 'UTC')::date = :day",
}
_REMOVED = """<!doctype html><meta charset="utf-8"><title>Removed</title>
<p>This report was removed because people in it were erased. <code>urban-reid report</code> makes a new one.</p>
"""
#: Of answers to requests of access, of evidence, and of exports of the audit.
_PAGES = ("subject.md", "evidence.md", "audit.md")
#: Largest file that is read whole to look for names in it.
MOST_BYTES = 256 << 20


def remove_files(store: Store, names: Names) -> tuple[dict[str, int], list[str]]:
    """Removes all of it; returns what was removed, in counts, and what could not be reached, in words."""
    removed, left = {"pictures": remove_pictures(store, names)}, list[str]()
    for kind, name, camera in names:
        if kind == "state":
            (store.settings.look_states_dir / camera / name).unlink(missing_ok=True)
    words = {name for kind, name, _ in names if kind != "state"}
    if words:
        removed["files"] = 0
        for path in written_paths(store):
            changed, unreached = remove_from(path, words)
            removed["files"] += changed
            left += unreached
        removed["prefect_rows"] = remove_from_prefect(store.settings, words)
        if store.settings.prefect_url is not None:
            left.append("the Prefect server of URBAN_REID_PREFECT_URL is not ours: delete its runs of searches there")
    return removed, left


def remove_pictures(store: Store, names: Names) -> int:
    """Removes files of pictures that no row holds any more; of a day of which no row holds any, its key and all."""
    pictures = [(name, place) for kind, name, place in names if kind == "picture"]
    if not pictures:
        return 0
    stores = {"crops": CropStore(store.settings), "context": context_store(store.settings)}
    named: dict[tuple[str, str], list[Picture]] = {}
    for name, where in pictures:
        top, owner, day = where.split("/")
        by = PROBES if owner == PROBES else top
        named.setdefault((top, by), []).append((Place(owner, date.fromisoformat(day)), bytes.fromhex(name)))
    removed, days = 0, set[Place]()
    for (top, by), all_of_it in named.items():
        for part in parts(all_of_it):
            with store.begin() as connection:
                lock_crops(connection)  # nobody stores the same picture meanwhile
                gone = unheld(connection, by, part)
                removed += stores[top].remove(gone)
            days |= {place for place, _ in gone}
    for place in sorted(days):
        with store.begin() as connection:
            lock_crops(connection)
            if not _is_held_any(connection, place):
                removed += destroy_day(store.settings, place.owner, place.day)
    for one in stores.values():
        one.sweep()
    return removed


def _is_held_any(connection: Connection, place: Place) -> bool:
    """Whether a row holds a picture of that day."""
    by = (PROBES,) if place.owner == PROBES else ("crops", "context")
    at = {"day": place.day, "owner": place.owner}
    return any(connection.execute(text(f"{_HELD[one]} LIMIT 1"), at).one_or_none() is not None for one in by)


def written_paths(store: Store) -> list[Path]:
    """Where reports and exports were written, each once, with the newest reports that the home links to."""
    with store.begin() as connection:
        paths = connection.execute(text("SELECT DISTINCT path FROM written_file ORDER BY path")).scalars().all()
    links = store.settings.home / "reports"
    linked = [os.path.realpath(link) for link in links.iterdir()] if links.is_dir() else []
    return [Path(path) for path in sorted({*paths, *linked})]


def remove_from(path: Path, words: set[str]) -> tuple[int, list[str]]:
    """Removes the words from a report or an export: (files that were changed or removed, what could not be reached)."""
    try:
        if not path.exists():
            return 0, [f"{path}: not there any more; where it was copied or moved to is not known here"]
        if (path / MARKER).exists():
            return (_remove_report(path), []) if any(_holds(file, words) for file in files_below(path)) else (0, [])
        changed = sum(_remove_from_file(file, words) for file in files_below(path))
        if changed and path.is_dir():  # pages tell in words what the other files say by names
            changed += sum(_unlinked(path / page) for page in _PAGES)
        return changed, []
    except OSError as error:
        return 0, [f"{path}: {error.strerror or error}"]


def files_below(path: Path) -> Iterator[Path]:
    """The plain files at and below `path`, without following links."""
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            if not entry.is_symlink():
                yield from files_below(entry)
    elif path.is_file():
        yield path


def _remove_report(folder: Path) -> int:
    crops = [] if (folder / "crops").is_symlink() else folder.glob("crops/*.jpg")
    files = [*crops, *(folder / name for name in PAGES), *folder.glob("*.jsonl")]
    there = [file for file in files if file.exists()]
    for file in there:
        file.unlink()
    write_whole(folder / PAGES[0], _REMOVED)
    return len(there)


def _unlinked(file: Path) -> bool:
    if not file.is_file():
        return False
    file.unlink()
    return True


def _holds(file: Path, words: set[str]) -> bool:
    return not words.isdisjoint(words_of_file(file))


def words_of_file(file: Path) -> set[str]:
    """Names that a file has or holds: in its own name, in its text, and the SHA-256 of its content."""
    if file.stat().st_size > MOST_BYTES:
        content, digest = b"", _digest(file)
    else:
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
    return {digest, *words_in(file.name), *words_in(content.decode(errors="replace"))}


def _digest(file: Path) -> str:
    with file.open("rb") as reading:
        return hashlib.file_digest(reading, "sha256").hexdigest()


_WORDS = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?![0-9a-f])")


def words_in(said: str) -> Iterable[str]:
    """Keys and hashes in hex, and ids, that a text holds."""
    return _WORDS.findall(said)


def _remove_from_file(file: Path, words: set[str]) -> int:
    """Removes the lines of JSON Lines that hold one of the words, and any other file that does. Whether it did.

    A line of an exported audit stays, without reason and details, as its row does: the chain needs it.
    """
    if not _holds(file, words):
        return 0
    if file.suffix == ".jsonl" and words.isdisjoint(words_in(file.name)):
        mode = file.stat().st_mode & 0o777
        with replacing(file, mode=mode) as partial, partial.open("wb") as kept, file.open("rb") as lines:
            for line in lines:
                if words.isdisjoint(words_in(line.decode(errors="replace"))):
                    kept.write(line)
                elif file.name == ROWS:
                    kept.write(_without_text(line))
    else:
        file.unlink()
    return 1


def _without_text(line: bytes) -> bytes:
    """The line of a row of the audit whose text is erased; nothing where it is no such line."""
    try:
        row = json.loads(line)
    except ValueError:
        return b""
    if not isinstance(row, dict) or "commitment" not in row:
        return b""
    erased = {**row, "salt": None, "reason": None, "details": "{}"}
    return json.dumps(erased, ensure_ascii=False).encode() + b"\n"


def prefect_database(settings: Settings) -> Path:
    return settings.home / "prefect" / "prefect.db"


def remove_from_prefect(settings: Settings, words: set[str]) -> int:
    """Deletes the rows of Prefect's own database that hold one of the words; how many. Raises HomeError."""
    path = prefect_database(settings)
    if not path.exists():
        return 0
    deleted = 0
    try:
        with closing(sqlite3.connect(path, timeout=60)) as database, database:
            database.execute("PRAGMA secure_delete = ON")
            for table, rowid in list(prefect_rows(database, words)):
                deleted += database.execute(f'DELETE FROM "{table}" WHERE rowid = ?', (rowid,)).rowcount  # nosec B608
    except sqlite3.Error as error:  # such as one that Prefect has locked for long
        raise HomeError(f"{path}: nothing was removed from it: {error}") from None
    return deleted


def prefect_rows(database: sqlite3.Connection, words: set[str]) -> Iterator[tuple[str, int]]:
    """(table, rowid) of each row with one of the words in a text of it."""
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    for (table,) in tables.fetchall():
        for rowid, *values in database.execute(f'SELECT rowid, * FROM "{table}"'):  # nosec B608
            said = "\n".join(value for value in values if isinstance(value, str))
            if not words.isdisjoint(words_in(said)):
                yield table, rowid
