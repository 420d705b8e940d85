"""What resolve did, the newest first, and what waits to be resolved."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

#: Runs on a page.
A_PAGE = 50


@dataclass(frozen=True)
class RunShown:
    """A window of a unit as it was decided once. `superseded`: it was decided again later, and that counts."""

    id: int
    unit: str
    window_start: datetime
    window_end: datetime
    model: str
    finished_at: datetime
    children: int
    context: int
    joins: int
    reviews: int
    apart: int
    superseded: bool


@dataclass(frozen=True)
class Waiting:
    """A unit that has windows to resolve, from `dirty_from` on."""

    unit: str
    dirty_from: datetime


@dataclass(frozen=True)
class Runs:
    runs: Sequence[RunShown]
    waiting: Sequence[Waiting]  # at most 50, the oldest first
    next: int | None  # id before which the next page begins; None: there are no more


_RUNS = text(
    "SELECT r.id, r.unit, r.window_start, r.window_end, m.name AS model, r.finished_at, r.children, r.context, "
    "r.superseded_at IS NOT NULL AS superseded, d.joins, d.reviews, d.apart "
    "FROM run r JOIN model m ON m.id = r.model_id CROSS JOIN LATERAL (SELECT "
    "count(*) FILTER (WHERE verdict = 'join') AS joins, count(*) FILTER (WHERE verdict = 'review') AS reviews, "
    "count(*) FILTER (WHERE verdict = 'apart') AS apart FROM match_decision WHERE run_id = r.id) AS d "
    "WHERE (CAST(:unit AS text) IS NULL OR r.unit = :unit) AND (CAST(:before AS bigint) IS NULL OR r.id < :before) "
    "ORDER BY r.id DESC LIMIT :most"
)
_WAITING = text(
    "SELECT unit, dirty_from FROM watermark WHERE dirty_from IS NOT NULL ORDER BY dirty_from, unit LIMIT 50"
)


def read_runs(connection: Connection, unit: str | None = None, before: int | None = None, most: int = A_PAGE) -> Runs:
    """A page of the runs of a unit, or of all units."""
    asked = {"unit": unit, "before": before, "most": most + 1}
    runs = [RunShown(**row._mapping) for row in connection.execute(_RUNS, asked)]
    waiting = [Waiting(**row._mapping) for row in connection.execute(_WAITING)]
    return Runs(runs[:most], waiting, runs[most - 1].id if len(runs) > most else None)
