"""write_report: what the pages show is read, its thumbnails and files are written, and the pages last."""

import json
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from pipeline.city.assignments import write_assignments
from pipeline.crops.crop_store import CropStore
from pipeline.governance.audit import Action, audit
from pipeline.report.contents import read_contents
from pipeline.report.folder import open_folder, remove_stale, write_whole, writing
from pipeline.report.pages import render
from pipeline.report.thumbnails import write_thumbnails
from pipeline.store import Store

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
    """Writes the report on `district` into the folder `out`; its first page.

    Beside the pages lie their thumbnails in `crops/`, all current decisions in `decisions.jsonl` and who every crop
    belongs to in `assignments.jsonl`. The same store gives the same files. `progress` is told of the thumbnails.
    An earlier report in `out` is written anew. Raises CityError for what is no district, and InputError where `out`
    is a file or holds other files, or cannot be written. That a report was made is written to the audit.
    """
    contents = read_contents(store, district)
    thumbnails = open_folder(out)
    with store.begin() as connection:
        details = {"digest": contents.digest}
        audit(connection, store.settings.operator, Action.REPORT_WRITE, unit=district, details=details)
    with writing(out):
        shown = list(contents.all_pictures())
        missing = write_thumbnails(crops, shown, thumbnails, progress)
        write_assignments(store, district, out / "assignments.jsonl")
        decisions = _write_decisions(store, district, out / "decisions.jsonl")
        for name, page in render(contents, missing, decisions).items():
            write_whole(out / name, page)
        remove_stale(thumbnails, {picture.name for picture in shown} - missing)
    return out / "index.html"


def _write_decisions(store: Store, district: str, path: Path) -> int:
    """All current decisions of the district as JSON Lines, whole or not at all; how many."""
    part = path.with_name(f"{path.name}.part")
    count = 0
    with store.begin() as connection, part.open("w", encoding="utf-8") as file:
        rows = connection.execution_options(yield_per=5_000).execute(_DECISIONS, {"district": district})
        for row in rows:
            file.write(json.dumps({**row._mapping, "window_start": row.window_start.isoformat()}) + "\n")
            count += 1
    part.replace(path)
    return count
