"""A camera's windows: those that hold other tracklets than they did are written, a chunk at a time."""

from datetime import datetime, timedelta

from pipeline.registry import hold_model_in_use
from pipeline.resolve.camera import first_window, read_crops, tracklets_by_window, versions
from pipeline.resolve.read import windows_from
from pipeline.resolve.runs import Job, UnitResult, chunks, identity_ids, in_period, read_current_runs, write
from pipeline.resolve.write import RunRows
from pipeline.store import Store
from schemas.keys import content_hash
from schemas.parameters import Period


def camera_windows(store: Store, job: Job, dirty_from: datetime, period: Period) -> tuple[UnitResult, datetime | None]:
    """Looks at the windows from `dirty_from` on that lie in `period`; also the first of those left for later."""
    total = UnitResult(job.unit)
    start = first_window(dirty_from, job.settings)
    calibration = None if job.calibration is None else job.calibration.value
    with store.begin() as connection:
        crops = read_crops(connection, job.unit, start, job.model.id, job.settings)
        tracklets = tracklets_by_window(crops, job.core, calibration, job.settings)
        had = windows_from(connection, job.unit, [], start)
        many = {**had, **{window: len(its) for window, its in tracklets.items() if window >= start}}
        windows, remaining = in_period(many, period, job.settings.window_s)
        parts = {w: content_hash("tracklets", [tracklet.key for tracklet in tracklets.get(w, ())]) for w in windows}
        end = max(windows, default=start) + timedelta(microseconds=1)
        runs = read_current_runs(connection, job.unit, start, end)
        # A window without tracklets has no run: what an earlier run made of it no longer counts.
        stand = {w for w in windows if (job.is_decided(runs.get(w), w, parts[w]) if w in tracklets else w not in runs)}
        anew = {window: tracklets.get(window, []) for window in windows if window not in stand}
        found = versions(connection, job.unit, crops, anew, job.settings, identity_ids(connection))
    for chunk in chunks(windows, many):
        with store.begin() as connection:
            hold_model_in_use(connection, job.model)
            written = [
                RunRows(job.run_key(window, parts[window]), window, sum(one.crops for one in found[window]), 0, its)
                for window in chunk
                if (its := found.get(window))
            ]
            emptied = [window for window in chunk if window in found and not found[window]]
            total += write(store, connection, job, chunk, written, emptied, runs)
    return total, remaining
