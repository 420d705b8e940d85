"""Versions of a unit's calibration without labels: learned at marks of event time, or on request.

A version is learned from the crops before its mark and holds for the windows from the mark on; the first one holds for
the windows before it, too, which have nothing else. Crops that come late change no version, nor do answers of operators
after its mark. What was learned, and why not, is a row of `learning`; the calibrations name it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text
from threadpoolctl import threadpool_limits

from pipeline.calibration.unlabeled.learn import MAX_FALSE_MERGE_RATE, Learned, learn
from pipeline.calibration.unlabeled.outcome import Outcome
from pipeline.city import watermarks
from pipeline.city.units import find_city, read_city
from pipeline.crops.crop_store import CropStore
from pipeline.governance.audit import Action, audit
from pipeline.registry import ModelRow, insert_calibration
from pipeline.resolve.embed import any_missing, embed_camera
from pipeline.store import Store
from pipeline.store.locks import unit_lock
from reid_core.serving.core import ReIDCore
from schemas.city_file import unknown_unit
from schemas.errors import InputError
from schemas.levels import Level, is_within, level_of
from schemas.times import window_start

_LABELED = text(
    "SELECT EXISTS (SELECT FROM calibration WHERE model_id = :model AND purpose = 'pair' AND learning_id IS NULL)"
)
_LEARNED = text(
    "SELECT mark_s, learned_from, learned_to, EXISTS (SELECT FROM calibration c WHERE c.learning_id = l.id) AS any "
    "FROM learning l WHERE model_id = :model AND unit = :unit ORDER BY id"
)
_CROPS = text(
    "SELECT min(first.captured_at) AS first, max(last.captured_at) AS last "
    "FROM unnest(CAST(:cameras AS text[])) AS u (code) "
    "CROSS JOIN LATERAL (SELECT captured_at FROM crop WHERE camera = u.code AND timed AND withdrawn_at IS NULL "
    "  ORDER BY captured_at LIMIT 1) AS first "
    "CROSS JOIN LATERAL (SELECT captured_at FROM crop WHERE camera = u.code AND timed AND withdrawn_at IS NULL "
    "  ORDER BY captured_at DESC LIMIT 1) AS last"
)


@dataclass(frozen=True)
class _Due:
    """A version to learn."""

    mark_s: int | None
    start: datetime
    before: datetime
    first: bool  # whether no version holds for any window yet


def ensure_calibrations(
    store: Store,
    core: ReIDCore,
    crops: CropStore,
    model: ModelRow,
    unit: str,
    until: datetime | None = None,
    *,
    on_step: Callable[[str], None] = lambda _: None,
    on_wait: Callable[[str], None] | None = None,
) -> int:
    """Learns the versions whose marks have passed in the district of `unit`; returns how many.

    Cheap where none is due. Nothing is learned for a model that has calibrations with labels. until: windows from
    there on are still open, so that marks after it are not due.
    """
    district = unit.split("/")[0]
    with store.begin() as connection:
        if not _due(store, connection, model, district, until):
            return 0
    count = 0
    with unit_lock(store, f"calibration of {district}", on_wait):
        while True:
            with store.begin() as connection:
                due = _due(store, connection, model, district, until)
            if not due:
                return count
            _learn(store, core, crops, model, district, due[0], on_step)
            count += 1


def learn_now(
    store: Store,
    core: ReIDCore,
    crops: CropStore,
    model: ModelRow,
    unit: str,
    *,
    max_false_merge_rate: float = MAX_FALSE_MERGE_RATE,
    on_step: Callable[[str], None] = lambda _: None,
    on_wait: Callable[[str], None] | None = None,
) -> tuple[Outcome, Learned]:
    """Learns the next version from all crops of the unit, to hold for all windows.

    Raises InputError for a unit that is a camera, or has no crops with times, and CityError for an unknown one.
    """
    if level_of(unit) is Level.CAMERA:
        raise InputError(f"--on-city {unit}: that is a camera; name a building, a street or a district")
    known = {one.code for one in read_city(store).units}
    if unit not in known:
        raise unknown_unit(unit, known)
    with unit_lock(store, f"calibration of {unit}", on_wait):
        with store.begin() as connection:
            first, last = _span(store, connection, unit)
        if first is None or last is None:
            raise InputError(f"--on-city {unit}: there are no crops with times in it to learn from")
        due = _Due(None, first, last + timedelta(microseconds=1), first=True)
        return _learn(store, core, crops, model, unit, due, on_step, max_false_merge_rate)


def _due(store: Store, connection: Connection, model: ModelRow, district: str, until: datetime | None) -> list[_Due]:
    """The versions to learn, in order of their marks."""
    marks = sorted(set(store.settings.learning_marks_s))
    if not marks or connection.scalar(_LABELED, {"model": model.id}):
        return []
    rows = connection.execute(_LEARNED, {"model": model.id, "unit": district}).all()
    start, last = _span(store, connection, district)
    if start is None or last is None:
        return []
    if rows:
        start = rows[0].learned_from
    learned_to = max((row.learned_to for row in rows), default=start)
    end = last if until is None else min(last, until)
    passed = [(mark, start + timedelta(seconds=mark)) for mark in marks]
    first = not any(row.any for row in rows)
    return [_Due(mark, start, at, first) for mark, at in passed if learned_to < at <= end]


def _span(store: Store, connection: Connection, unit: str) -> tuple[datetime | None, datetime | None]:
    """When the first and the last timed crop of the unit was captured."""
    cameras = [one.code for one in read_city(store).cameras(unit)]
    row = connection.execute(_CROPS, {"cameras": cameras}).one()
    return row.first, row.last


def _learn(
    store: Store,
    core: ReIDCore,
    crops: CropStore,
    model: ModelRow,
    unit: str,
    due: _Due,
    on_step: Callable[[str], None],
    max_false_merge_rate: float = MAX_FALSE_MERGE_RATE,
) -> tuple[Outcome, Learned]:
    cameras = [one.code for one in read_city(store).cameras(unit)]
    with store.begin() as connection:
        missing = any_missing(connection, model, cameras)
    if missing:
        for camera in cameras:
            embed_camera(store, core, crops, model, camera)
    with threadpool_limits(limits=1, user_api="blas"):  # the sums are small: threads make them twice as slow
        learned = learn(
            store,
            core,
            model,
            unit,
            due.start,
            due.before,
            on_step,
            answers_before=None if due.mark_s is None else due.before,
            max_false_merge_rate=max_false_merge_rate,
        )
    outcome = Outcome(
        tracklets=learned.tracklets,
        levels=tuple(level for level in learned.levels if level not in learned.why_not),
        why_not=learned.why_not,
        crops_since=learned.crops_since,
        answers=learned.answers.used,
        newest_answer=learned.answers.newest,
        likely_overlaps=learned.likely_overlaps,
    )
    window_s = store.settings.association.window_s
    holds_from: datetime | None = None
    if not due.first:
        holds_from = window_start(due.before - timedelta(microseconds=1), window_s) + timedelta(seconds=window_s)
    with store.begin() as connection:
        row: dict[str, Any] = {
            "model": model.id,
            "unit": unit,
            "mark": due.mark_s,
            "from": due.start,
            "to": due.before,
            "holds": holds_from,
            "outcome": outcome.model_dump_json(),
        }
        learning = connection.execute(
            text(
                "INSERT INTO learning (model_id, unit, mark_s, learned_from, learned_to, holds_from, outcome) "
                "VALUES (:model, :unit, :mark, :from, :to, :holds, CAST(:outcome AS jsonb)) RETURNING id"
            ),
            row,
        ).scalar_one()
        for calibration in learned.levels.values():
            insert_calibration(connection, model.id, calibration, learning)
        if learned.levels:
            units = [one.code for one in read_city(store).units if is_within(one.code, unit)]
            above = [code for code in units if level_of(code) in learned.levels]
            watermarks.mark_all(connection, {code: window_start(holds_from or due.start, window_s) for code in above})
        details = {"model": model.name, "mark_s": due.mark_s, "levels": [level.value for level in learned.levels]}
        audit(connection, store.settings.operator, Action.MODEL_CALIBRATE, unit=unit, details=details)
    return outcome, learned


def before_first_mark(store: Store, connection: Connection, model: ModelRow) -> dict[str, str]:
    """Of each district whose crops end before the first mark, so that nothing is learned by itself: what to do."""
    marks = store.settings.learning_marks_s
    city = find_city(store)
    if city is None or not marks or connection.scalar(_LABELED, {"model": model.id}):
        return {}
    found = {}
    for district in (one.code for one in city.units if one.level is Level.DISTRICT):
        start, last = _span(store, connection, district)
        learned = connection.execute(_LEARNED, {"model": model.id, "unit": district}).first()
        if start is None or last is None or learned is not None or last >= start + timedelta(seconds=min(marks)):
            continue
        covered_s = (last - start).total_seconds()
        found[district] = (
            f"nothing was learned yet: its crops cover {covered_s:.0f} s, and the first calibration is learned after "
            f"{min(marks)} s; `urban-reid models calibrate {model.name} --on-city {district}` learns from what is there"
        )
    return found
