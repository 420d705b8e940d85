"""A period of the audit for a regulator: counts and a page to read, without the names of those who were sought.

All of it comes from the audit's rows. Reasons are not read: they may name persons; `urban-reid audit export` has them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from pipeline.governance.audit import LEAVING, Action, audit
from pipeline.store import Store
from schemas.text import one_line

_IN = "a.at >= coalesce(:start, '-infinity'::timestamptz) AND a.at < coalesce(:end, 'infinity'::timestamptz)"
_SEARCHES = text(
    "SELECT extract(year FROM a.at AT TIME ZONE 'UTC')::int AS year, "
    "coalesce(asked.details->>'purpose', '') AS purpose, coalesce(a.unit, '') AS unit, count(*) AS many, "
    "count(DISTINCT a.actor) AS people FROM audit a "
    "LEFT JOIN (SELECT DISTINCT ON (details->>'authorization') details FROM audit WHERE action = 'case.ask' "
    "  ORDER BY details->>'authorization', id) AS asked "
    "ON asked.details->>'authorization' = a.details->>'authorization' "
    f"WHERE a.action = ANY(:actions) AND {_IN} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
)
_REFUSALS = text(
    "SELECT extract(year FROM a.at AT TIME ZONE 'UTC')::int AS year, coalesce(a.details->>'what', 'erased') AS what, "
    f"count(*) AS many FROM audit a WHERE a.action = :action AND {_IN} GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2"
)
_ACTIONS = text(
    "SELECT extract(year FROM a.at AT TIME ZONE 'UTC')::int AS year, a.action, count(*) AS many, "
    f"count(DISTINCT a.actor) AS people FROM audit a WHERE {_IN} GROUP BY 1, 2 ORDER BY 1, 2"
)
_EXPORTS = text(
    "SELECT a.at, a.actor, a.action, coalesce(a.unit, '') AS unit FROM audit a "
    f"WHERE (a.action = ANY(:exports) OR a.action LIKE '%.erase' OR a.action LIKE 'erase.%') AND {_IN} ORDER BY a.id"
)
_ACCOUNTS = text(
    "SELECT a.at, a.actor, a.action, coalesce(a.details ->> 'account', '') AS account, "
    "coalesce(a.details ->> 'role', '') AS role, coalesce(a.details ->> 'given_by', '') AS given_by FROM audit a "
    f"WHERE a.action LIKE 'account.%' AND {_IN} ORDER BY a.id"
)
_SEARCH_SPELLINGS = [Action.SEARCH_START.value, "search"]
_EXPORT_ACTIONS = ["report", *(action.value for action in LEAVING)]


@dataclass(frozen=True)
class Searches:
    """Searches of one year for one purpose ("": in an open home, without an authorization) in one unit."""

    year: int
    purpose: str
    unit: str
    many: int
    people: int  # who asked


@dataclass(frozen=True)
class Refusals:
    year: int
    what: str  # was asked for
    many: int


@dataclass(frozen=True)
class Counted:
    year: int
    action: str
    many: int
    people: int


@dataclass(frozen=True)
class Left:
    """Something that left the system, or was erased from it."""

    at: datetime
    actor: str
    action: str
    unit: str


@dataclass(frozen=True)
class AccountChange:
    """A change of an account. given_by: of a role: one administrator, or the two who agreed on it."""

    at: datetime
    actor: str
    action: str
    account: str
    role: str
    given_by: str


@dataclass(frozen=True)
class Period:
    """What the audit says of [start, end); None: from its first row, to its last."""

    start: datetime | None
    end: datetime | None
    searches: tuple[Searches, ...]
    refusals: tuple[Refusals, ...]
    actions: tuple[Counted, ...]
    left: tuple[Left, ...]
    accounts: tuple[AccountChange, ...]

    def counts(self) -> dict[str, dict[str, object]]:
        """By year: searches in all and by purpose, refusals, and rows by action. Nothing says who or where."""
        found: dict[str, dict[str, object]] = {}
        for year in sorted({one.year for one in self.actions}):
            purposes: dict[str, int] = {}
            for one in (one for one in self.searches if one.year == year):
                purposes[one.purpose or "open home"] = purposes.get(one.purpose or "open home", 0) + one.many
            found[str(year)] = {
                "searches": sum(purposes.values()),
                "searches_by_purpose": purposes,
                "refusals": sum(one.many for one in self.refusals if one.year == year),
                "actions": {one.action: one.many for one in self.actions if one.year == year},
            }
        return found

    def as_json(self) -> dict[str, object]:
        rows: Mapping[str, tuple[object, ...]] = {
            "searches": self.searches, "refusals": self.refusals, "actions": self.actions, "left": self.left,
            "accounts": self.accounts,
        }  # fmt: skip
        ends = {"from": self.start and self.start.isoformat(), "to": self.end and self.end.isoformat()}
        listed = {name: [_plain(one) for one in found] for name, found in rows.items()}
        return ends | listed | {"counts": self.counts()}

    def page(self) -> str:
        """The page, in Markdown."""
        start, end = (f"{one:%Y-%m-%d %H:%M}" if one else f"the {name} row" for one, name in
                      ((self.start, "first"), (self.end, "last")))  # fmt: skip
        years = sorted({one.year for one in self.actions})
        by_action = {(one.action, one.year): one.many for one in self.actions}
        lines = [
            "# What the audit says",
            "",
            f"From {start} to {end}, all times UTC. `urban-reid audit verify` says whether its rows are as they were "
            "written; `urban-reid audit export` gives them, with a program that verifies them.",
            "",
            *_table("Searches", ("year", "purpose", "unit", "searches", "people who asked"),
                    [(s.year, s.purpose or "(open home)", s.unit, s.many, s.people) for s in self.searches]),
            *_table("Refused", ("year", "what was asked for", "times"),
                    [(r.year, r.what, r.many) for r in self.refusals]),
            *_table("Exports, reports, pictures with faces, leads, backups and erasures",
                    ("time", "who", "what", "unit"),
                    [(f"{one.at:%Y-%m-%d %H:%M:%S}", one.actor, one.action, one.unit) for one in self.left]),
            *_table("Accounts", ("time", "who", "what", "account", "role", "given by"),
                    [(f"{one.at:%Y-%m-%d %H:%M:%S}", one.actor, one.action, one.account, one.role, one.given_by)
                     for one in self.accounts]),
            *_table("All that was done", ("action", *years),
                    [(name, *(by_action.get((name, year), 0) for year in years))
                     for name in sorted({one.action for one in self.actions})]),
        ]  # fmt: skip
        return "\n".join(lines).rstrip("\n") + "\n"


def report(store: Store, start: datetime | None, end: datetime | None) -> Period:
    """What the audit says of a period, after a row of it that says who looked."""
    said = {"from": start and start.isoformat(), "to": end and end.isoformat()}
    note_reading(store, Action.AUDIT_REPORT, said)
    with store.signed_in() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        return _read(connection, start, end)


def note_reading(store: Store, action: Action, asked: Mapping[str, object]) -> None:
    """Commits the row of a look at the audit, before anything of it is shown."""
    with store.signed_in() as connection:
        details = {name: value for name, value in asked.items() if value is not None}
        audit(connection, store.settings.operator, action, details=details)


def _read(connection: Connection, start: datetime | None, end: datetime | None) -> Period:
    within = {"start": start, "end": end}
    searches = connection.execute(_SEARCHES, within | {"actions": _SEARCH_SPELLINGS})
    refusals = connection.execute(_REFUSALS, within | {"action": Action.ACCESS_REFUSE.value})
    actions = connection.execute(_ACTIONS, within)
    left = connection.execute(_EXPORTS, within | {"exports": _EXPORT_ACTIONS})
    return Period(
        start,
        end,
        tuple(Searches(**row._mapping) for row in searches),
        tuple(Refusals(**row._mapping) for row in refusals),
        tuple(Counted(**row._mapping) for row in actions),
        tuple(Left(**row._mapping) for row in left),
        tuple(AccountChange(**row._mapping) for row in connection.execute(_ACCOUNTS, within)),
    )


def _plain(row: object) -> dict[str, object]:
    values = asdict(row)  # type: ignore[call-overload]
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def _table(title: str, head: tuple[object, ...], rows: list[tuple[object, ...]]) -> list[str]:
    cells = [head, ("---",) * len(head), *rows] if rows else []
    written = ["| " + " | ".join(one_line(str(cell)).replace("|", "\\|") for cell in row) + " |" for row in cells]
    return [f"## {title}", "", *(written or ["None."]), ""]
