"""The audit for somebody who checks it: its rows, its checkpoints, a page to read, and the program that verifies."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, text

from pipeline.governance import verify_audit
from pipeline.governance.audit import LEAVING, Action, audit
from pipeline.governance.audit_chain import checkpoints_path, own_fingerprint, read_entries, read_heads
from pipeline.governance.verify_audit import CHECKPOINTS, ROWS, Entry
from pipeline.governance.written import record_written
from pipeline.store import Store
from schemas.disk import make_folders, write_whole
from schemas.errors import InputError
from schemas.text import one_line
from schemas.times import from_us

#: Actions that the page lists row by row, with their reasons; of the others it gives counts.
_LISTED = (Action.SEARCH_START, Action.IDENTITY_CONFIRM, Action.IDENTITY_DENY, *LEAVING)


def export(store: Store, folder: Path, *, operator: str, reason: str, since: datetime | None = None) -> int:
    """Writes the audit into an empty or new folder, and returns the number of rows. The export is itself a row of it.

    since: only each district's rows from the first at this time on; they verify all the same.
    Raises InputError, OSError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder; choose a new one")
    try:
        make_folders(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}") from None
    with store.signed_in() as connection:
        details = {"since": None if since is None else since.isoformat()}
        audit(connection, operator, Action.AUDIT_EXPORT, reason=reason, details=details)
    with store.begin() as connection:
        record_written(connection, "audit", folder)
    with store.signed_in() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        starts = _starts(connection, since)
        ends = {district: (position, found.hex()) for district, (position, found) in read_heads(connection).items()}
        head = {"format": "urban-reid audit 1", "starts": starts, "ends": ends}
        page = _Page(datetime.now(UTC))
        with (folder / ROWS).open("w", encoding="utf-8") as file:
            file.write(json.dumps(head, sort_keys=True) + "\n")
            for entry in page.counting(read_entries(connection, since)):
                file.write(_line(entry) + "\n")
    checkpoints = checkpoints_path(store.settings)
    if checkpoints.exists():
        shutil.copyfile(checkpoints, folder / CHECKPOINTS)
    program = Path(verify_audit.__file__)
    shutil.copyfile(program, folder / program.name)
    write_whole(folder / "audit.md", page.written(own_fingerprint(store.settings)))
    return page.rows


def _line(entry: Entry) -> str:
    row = {name: getattr(entry, name) for name in Entry.__dataclass_fields__}
    return json.dumps(
        {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}, ensure_ascii=False
    )


def _starts(connection: Connection, since: datetime | None) -> dict[str, tuple[int, str]]:
    """Position and hash before each district's first exported row."""
    if since is None:
        return {}
    rows = connection.execute(
        text(
            "SELECT DISTINCT ON (c.district) c.district, c.position, c.hash FROM audit_chain c "
            "WHERE c.position < coalesce((SELECT min(d.position) FROM audit_chain d JOIN audit b ON b.id = d.audit_id "
            "WHERE d.district = c.district AND b.at >= :since), c.position + 1) ORDER BY c.district, c.position DESC"
        ),
        {"since": since},
    )
    return {row.district: (row.position, bytes(row.hash).hex()) for row in rows}


class _Page:
    """Gathers what the page says while the rows pass."""

    def __init__(self, at: datetime) -> None:
        self.at, self.rows = at, 0
        self.first: int | None = None
        self.last: int | None = None
        self.actions: Counter[tuple[int, str]] = Counter()  # by year
        self.actors: Counter[str] = Counter()
        self.listed: list[str] = []

    def counting(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if entry.at_us is not None:
                self._count(entry, entry.at_us)
            yield entry

    def _count(self, entry: Entry, at_us: int) -> None:
        self.rows += 1
        self.first = at_us if self.first is None else min(self.first, at_us)
        self.last = at_us if self.last is None else max(self.last, at_us)
        self.actions[from_us(at_us).year, str(entry.action)] += 1
        self.actors[str(entry.actor)] += 1
        if entry.action in {action.value for action in _LISTED}:
            why = "erased" if entry.salt is None else entry.reason or ""
            cells = (_time(at_us), entry.actor, entry.action, entry.unit or "", why)
            self.listed.append(_row(*cells))

    def written(self, key: str | None) -> str:
        """The page, in Markdown."""
        years = sorted({year for year, _ in self.actions})
        names = sorted({action for _, action in self.actions})
        period = f"{_time(self.first)} to {_time(self.last)}" if self.first and self.last else "no time"
        lines = [
            "# Audit",
            "",
            f"{self.rows} rows of {period}, exported {self.at:%Y-%m-%d %H:%M} UTC. All times are UTC.",
            f"Key of the checkpoints: {key or 'none; nothing was signed here'}.",
            "`python verify_audit.py .` in this folder verifies all of it; its first lines say how.",
            "",
            "## What was done, by year",
            "",
            _row("action", *map(str, years)),
            _row("---", *["---:"] * len(years)),
            *(_row(name, *(str(self.actions[year, name]) for year in years)) for name in names),
            "",
            "## By whom",
            "",
            _row("actor", "rows"),
            _row("---", "---:"),
            *(_row(actor, str(many)) for actor, many in sorted(self.actors.items())),
            "",
            "## Searches, statements about identities, and what left the system",
            "",
            _row("time", "actor", "action", "unit", "reason"),
            _row("---", "---", "---", "---", "---"),
            *sorted(self.listed),
        ]
        return "\n".join(lines) + "\n"


def _row(*cells: str | None) -> str:
    return "| " + " | ".join(one_line(cell or "").replace("|", "\\|") for cell in cells) + " |"


def _time(at_us: int) -> str:
    return f"{from_us(at_us):%Y-%m-%d %H:%M:%S}"
