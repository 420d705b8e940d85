"""write_report: reads what the pages show, then writes thumbnails and data files, and the pages last."""

import json
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from pipeline.city.assignments import write_assignments
from pipeline.crops.context_frames import context_store
from pipeline.crops.crop_store import CropStore
from pipeline.crops.privacy import shows_people
from pipeline.governance.audit import Action
from pipeline.governance.deciding import check_may_export
from pipeline.governance.doors import check_authorized
from pipeline.governance.written import record_written
from pipeline.report.folder import check_folder, open_folder, remove_stale, writing
from pipeline.report.pages import render
from pipeline.report.read_contents import read_contents
from pipeline.report.thumbnails import write_thumbnails
from pipeline.store import Store
from schemas.disk import replacing, write_whole

_WHAT = "a report"
_DECISIONS = text(
    "SELECT r.unit, r.level, r.window_start, d.verdict, encode(d.left_key, 'hex') AS left, "
    "encode(d.right_key, 'hex') AS right, d.distance, d.appearance_log_odds, d.transit_log_odds, d.probability, "
    "d.operating_point, d.gap_s, d.left_at, d.right_at, encode(d.runner_up_key, 'hex') AS runner_up, "
    "d.runner_up_distance FROM match_decision d JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NULL "
    "AND (r.unit = :district OR starts_with(r.unit, :district || '/')) "
    'ORDER BY r.unit COLLATE "C", r.window_start, d.left_key, d.right_key'
)


def write_report(
    store: Store, crops: CropStore, district: str, out: Path, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Writes the report on `district` into the folder `out`; returns its first page.

    Beside the pages are their thumbnails (`crops/`), all current decisions (`decisions.jsonl`), and the identities of
    every crop (`assignments.jsonl`). Pictures of people are shown without faces. The same store gives the same files.
    An earlier report in `out` is replaced.
    `progress`: thumbnails done, and in all. The audit records that the report was made.

    Raises CityError if `district` is no district of the city, InputError if `out` is a file, holds other files or
    cannot be written, and NotAllowed in a live home without an authorization, whose period the report then shows.
    """
    check_may_export(store, _WHAT)
    check_authorized(store, district, _WHAT)
    check_folder(out)  # before the district is read, which may take long
    contents = read_contents(store, district)
    thumbnails = open_folder(out)
    check_authorized(store, district, _WHAT, Action.REPORT_WRITE, details={"digest": contents.digest})
    with store.begin() as connection:
        blurred = shows_people(connection)
        record_written(connection, "report", out, unit=district)
    with writing(out):
        contexts = context_store(store.settings)
        shown = [(crops, picture) for picture in contents.all_pictures()]
        shown += [(contexts, picture) for picture in contents.all_contexts()]
        missing = write_thumbnails(shown, thumbnails, progress, blurred=blurred)
        write_assignments(store, district, out / "assignments.jsonl")
        decisions = _write_decisions(store, district, out / "decisions.jsonl")
        for name, page in render(contents, missing, decisions).items():
            write_whole(out / name, page)
        remove_stale(thumbnails, {picture.name for _, picture in shown} - missing)
    return out / "index.html"


def _write_decisions(store: Store, district: str, path: Path) -> int:
    """Writes all current decisions of the district as JSON Lines; returns their number."""
    count = 0
    with store.signed_in() as connection, replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        rows = connection.execution_options(yield_per=5_000).execute(_DECISIONS, {"district": district})
        for row in rows:
            file.write(json.dumps({**row._mapping, "window_start": row.window_start.isoformat()}) + "\n")
            count += 1
    return count
