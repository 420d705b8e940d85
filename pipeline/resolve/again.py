"""Old windows decided anew with the model in use, and why a resolve finds nothing to do.

A promotion leaves decisions as they are: a run of an earlier model stands as long as its inputs are the same. Marked to
be decided again, it stands no longer, and the next resolve supersedes it and goes on as far as contexts change.
"""

from datetime import datetime

from sqlalchemy import Connection, text

from pipeline.city import watermarks
from pipeline.governance.audit import Action, audit
from pipeline.registry import model_in_use
from pipeline.store import Store
from schemas.parameters import Period
from schemas.times import window_start

_WITHIN = "(r.unit = :unit OR starts_with(r.unit, :unit || '/')) AND r.superseded_at IS NULL"
_PERIOD = (
    "(CAST(:start AS timestamptz) IS NULL OR r.window_start >= :start) "
    "AND (CAST(:end AS timestamptz) IS NULL OR r.window_start < :end)"
)
_FIRSTS = text(f"SELECT r.unit, min(r.window_start) AS first FROM run r WHERE {_WITHIN} AND {_PERIOD} GROUP BY 1")
_MARK = text(f"UPDATE run r SET decide_again = true WHERE {_WITHIN} AND {_PERIOD} AND r.model_id <> :model")
_EARLIER = text(f"SELECT count(*) FROM run r WHERE {_WITHIN} AND r.model_id <> (SELECT id FROM model WHERE in_use)")


def decide_again(store: Store, unit: str, period: Period, *, operator: str, reason: str) -> int:
    """Marks the windows of a unit and all below it in `period` to be decided again, with an audit row.

    Returns how many windows an earlier model decided. A resolve without a period must follow; windows whose run the
    model in use would make again exactly as it is stay as they are. Raises InputError when no model is in use.
    """
    start: datetime | None = None
    if period.from_time is not None:
        start = window_start(period.from_time, store.settings.association.window_s)
    at = {"unit": unit, "start": start, "end": period.to_time}
    with store.begin() as connection:
        model = model_in_use(connection)
        marked = connection.execute(_MARK, {**at, "model": model.id}).rowcount
        watermarks.mark_all(connection, {row.unit: row.first for row in connection.execute(_FIRSTS, at)})
        details = {"model": model.name, "windows": marked} | period.model_dump(mode="json")
        audit(connection, operator, Action.RESOLVE_AGAIN, unit=unit, reason=reason, details=details)
    return marked


def why_nothing(connection: Connection, unit: str) -> str:
    """Why a resolve of the unit that has just ended had no window to look at, in one line."""
    at = {"unit": unit}
    within = "(c.camera = :unit OR starts_with(c.camera, :unit || '/')) AND c.withdrawn_at IS NULL"
    if not connection.scalar(text(f"SELECT EXISTS (SELECT FROM crop c WHERE {within})"), at):
        return f"there are no crops in {unit}; see `urban-reid ingest --help`"
    pending = "dirty_from IS NOT NULL AND (unit = :unit OR starts_with(unit, :unit || '/'))"
    if connection.scalar(text(f"SELECT EXISTS (SELECT FROM watermark WHERE {pending})"), at):
        return "what is new lies outside --from and --to"
    line = f"nothing came in since {unit} was resolved last"
    if earlier := connection.execute(_EARLIER, at).scalar_one():
        line += (
            f"; {earlier} windows were decided with an earlier model, which "
            f"`urban-reid resolve --unit {unit} --again --reason TEXT` decides anew"
        )
    return line
