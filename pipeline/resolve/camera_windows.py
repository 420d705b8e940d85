"""A camera's windows: those whose tracklets changed are written, a chunk at a time."""

import itertools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from pipeline.resolve.camera import first_window, new_versions, read_crops, read_stretch, tracklets_by_window
from pipeline.resolve.read import read_windows
from pipeline.resolve.rows import RunRows, partition_days
from pipeline.resolve.runs import (
    Job,
    UnitResult,
    chunks,
    identity_ids,
    in_period,
    read_current_runs,
    settle,
    write_chunk,
    writing,
)
from pipeline.store import Store
from pipeline.store.partitions import ensure_partitions, missing_partitions
from schemas.keys import content_hash
from schemas.parameters import Period
from schemas.times import window_start

_NO_END = datetime.max.replace(tzinfo=UTC)


def camera_windows(
    store: Store, job: Job, period: Period, progress: Callable[[int, int], None] | None = None
) -> tuple[UnitResult, bool]:
    """Resolves the camera's windows from its mark on that lie in `period`.

    Returns the result, and whether the mark was moved to the first window outside `period`, which stays pending: not if
    the camera was marked again meanwhile, and not if only a stretch of many crops was resolved, behind which the mark
    is then. `progress`: windows done, windows in all of the stretch, after each chunk.
    """
    total = UnitResult(job.unit)
    start = first_window(job.mark.dirty_from, job.settings)
    calibration = None if job.calibration is None else job.calibration.value
    todo = None
    missing: set[date] = set()
    while todo is None or todo:
        if missing:  # in a transaction of its own, while this thread has no other: attaching one waits for writers
            with store.begin() as connection:
                ensure_partitions(connection, "prototype", job.model.id, missing)
            missing.clear()
        with writing(store, job) as connection:
            if todo is None:
                whole = job.core, job.model, job.settings
                if period.from_time is None:
                    crops, after = read_stretch(connection, job.unit, job.mark.dirty_from, period.to_time, *whole)
                else:  # windows before it stay pending, and with them the mark, which no stretch could move
                    crops, after = read_crops(connection, job.unit, start, *whole), None
                tracklets = tracklets_by_window(crops, job.core, calibration, job.settings)
                earlier = {} if job.is_first else read_windows(connection, job.unit, [], start)
                counts = {**earlier, **{window: len(its) for window, its in tracklets.items() if window >= start}}
                following = None if after is None else window_start(after, job.settings.window_s)
                counts = {window: many for window, many in counts.items() if following is None or window < following}
                windows, remaining = in_period(counts, period, job.settings.window_s)
                more = following is not None and remaining is None and following < (period.to_time or _NO_END)
                remaining = remaining or following
                parts = {w: content_hash("tracklets", [one.key for one in tracklets.get(w, ())]) for w in windows}
                end = max(windows, default=start) + timedelta(microseconds=1)
                current = {} if job.is_first else read_current_runs(connection, job.unit, start, end)
                # A window without tracklets has no run: an earlier run of it is superseded.
                standing = {
                    w
                    for w in windows
                    if (job.stands(current.get(w), w, parts[w]) if w in tracklets else w not in current)
                }
                changed = {window: tracklets.get(window, []) for window in windows if window not in standing}
                new_id = identity_ids(connection, sum(map(len, changed.values())))
                versions = new_versions(
                    connection, job.unit, crops, changed, job.settings, new_id, is_first=job.is_first
                )
                todo = [*chunks(windows, counts)][::-1]
                days = partition_days(itertools.chain(*versions.values()))
                missing = missing_partitions(connection, "prototype", job.model.id, days)
            if todo and not missing:
                chunk = todo.pop()
                written = [
                    RunRows(job.run_key(window, parts[window]), window, sum(one.crops for one in its), 0, its)
                    for window in chunk
                    if (its := versions.get(window))
                ]
                emptied = [window for window in chunk if window in versions and not versions[window]]
                total += write_chunk(connection, job, chunk, written, emptied, current)
            settled = not todo and settle(connection, job, remaining)
        if progress is not None and windows:
            progress(total.windows, len(windows))
    return total, settled and not more
