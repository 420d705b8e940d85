"""resolve_unit: a unit over all its pending windows, in time order, alone (an advisory lock keeps others out)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from sqlalchemy import Connection, text

from pipeline import watermarks
from pipeline.association.geometry import Geometry, geometry
from pipeline.city import read_city
from pipeline.models import ModelRow, hold_model_in_use
from pipeline.resolve.camera import KnownTracklets, first_window, read_crops, tracklets_by_window
from pipeline.resolve.level import WindowResult, resolve_level
from pipeline.resolve.read import read_inputs, windows_from
from pipeline.resolve.write import NewIdentity, RunRows, days_of, supersede, write_run
from pipeline.store import Store
from pipeline.store.leaves import ensure_leaves
from pipeline.store.locks import unit_lock
from reid_core.core import ReIDCore
from schemas.association import Verdict
from schemas.cards import LevelCalibration
from schemas.keys import content_hash
from schemas.levels import UPWARD, Level, is_within, level_of
from schemas.parameters import Period
from schemas.settings import AssociationSettings
from schemas.times import to_us, window_start


@dataclass(frozen=True)
class UnitResult:
    unit: str
    windows: int = 0  # looked at
    changed: int = 0  # of those, resolved anew
    written: int = 0  # rows
    identities: int = 0  # versions written
    joins: int = 0
    reviews: int = 0

    def __add__(self, other: "UnitResult") -> "UnitResult":
        numbers = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("windows", "changed", "written", "identities", "joins", "reviews")
        }
        return UnitResult(self.unit, **numbers)


@dataclass(frozen=True)
class StoredCalibration:
    id: int
    value: LevelCalibration

    def digest(self) -> bytes:
        return content_hash("calibration", (self.value.model_dump_json(),))


@dataclass(frozen=True)
class RunModel:
    """What a window's current run was decided with."""

    key: bytes
    model_id: int
    digest: bytes  # of the model
    calibration: StoredCalibration | None


def read_current_run(connection: Connection, unit: str, window: datetime) -> RunModel | None:
    row = connection.execute(
        text(
            "SELECT r.run_key, r.model_id, m.digest, r.calibration_id, c.parameters FROM run r "
            "JOIN model m ON m.id = r.model_id LEFT JOIN calibration c ON c.id = r.calibration_id "
            "WHERE r.unit = :unit AND r.window_start = :window AND r.superseded_at IS NULL"
        ),
        {"unit": unit, "window": window},
    ).one_or_none()
    if row is None:
        return None
    calibration = None
    if row.calibration_id is not None:
        calibration = StoredCalibration(row.calibration_id, LevelCalibration.model_validate(row.parameters))
    return RunModel(bytes(row.run_key), row.model_id, bytes(row.digest), calibration)


@dataclass(frozen=True)
class _Job:
    """What stays the same over a unit's windows."""

    unit: str
    core: ReIDCore
    model: ModelRow
    calibration: StoredCalibration | None
    settings: AssociationSettings
    world: Geometry
    city_digest: bytes
    days: set[date] = field(default_factory=set)  # whose leaves are known to be there

    def run_key(self, window: datetime, *parts: bytes, by: RunModel | None = None) -> bytes:
        """Of a run in which these parts are read; with the model and calibration of `by`, or else those of the job."""
        model, calibration = (self.model.digest, self.calibration) if by is None else (by.digest, by.calibration)
        calibrated = b"none" if calibration is None else calibration.digest()
        fixed = (self.unit, to_us(window), model, calibrated, self.settings.digest(), self.city_digest)
        return content_hash("run", (*fixed, *parts))

    def is_decided(self, connection: Connection, window: datetime, *parts: bytes) -> bool:
        """Whether the window's current run read these very parts: it is not run again.

        A run of an earlier model stands for as long as nothing else changed: promoting a model rewrites no decision.
        """
        run = read_current_run(connection, self.unit, window)
        if run is None:
            return False
        return run.key == self.run_key(window, *parts, by=None if run.model_id == self.model.id else run)


def units_within(store: Store, unit: str) -> list[str]:
    """`unit` and all units below it, cameras first, each before its parent."""
    codes = [u.code for u in read_city(store).units if is_within(u.code, unit)]
    return sorted(codes, key=lambda code: (UPWARD.index(level_of(code)), code))


def current_calibration(connection: Connection, model_id: int, level: Level) -> StoredCalibration | None:
    """The newest of (model, level)."""
    row = connection.execute(
        text(
            "SELECT id, parameters FROM calibration WHERE model_id = :model AND level = :level ORDER BY id DESC LIMIT 1"
        ),
        {"model": model_id, "level": level.value},
    ).one_or_none()
    return None if row is None else StoredCalibration(row.id, LevelCalibration.model_validate(row.parameters))


def resolve_unit(
    store: Store,
    core: ReIDCore,
    model: ModelRow,
    unit: str,
    *,
    settings: AssociationSettings,
    period: Period | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> UnitResult:
    """Resolves the unit's pending windows that lie in `period` (all, if None).

    `on_wait` is told for whom this one waits when another process resolves the same unit. Raises StoreUnavailable,
    CoreUnavailable, and ModelChanged when another model than `model` is in use; after each it can be called again, with
    the model that is in use then: windows that were finished stay finished.
    """
    total = UnitResult(unit)
    level = level_of(unit)
    with unit_lock(store, unit, on_wait):
        world: Geometry | None = None
        while True:
            with store.begin() as connection:
                pending = watermarks.read(connection, unit)
                if pending is None:
                    return total
                asked = Level.BUILDING if level is Level.CAMERA else level  # a camera links loose crops as a building
                calibration = current_calibration(connection, model.id, asked)
                digest = bytes(connection.execute(text("SELECT digest FROM city")).scalar_one())
            world = world or geometry(read_city(store), unit, settings)
            job = _Job(unit, core, model, calibration, settings, world, digest)
            steps = _camera_windows if level is Level.CAMERA else _level_windows
            result, remaining = steps(store, job, pending.dirty_from, period or Period())
            total += result
            with store.begin() as connection:
                if watermarks.settle(connection, unit, pending, remaining):
                    return total


def _in_period(windows: list[datetime], period: Period, window_s: int) -> tuple[list[datetime], datetime | None]:
    """The windows to look at now, and the first of those left for later."""
    start = None if period.from_time is None else window_start(period.from_time, window_s)
    now = [w for w in windows if (start is None or w >= start) and (period.to_time is None or w < period.to_time)]
    later = sorted(set(windows) - set(now))
    return now, later[0] if later else None


def _make_leaves(store: Store, job: _Job, identities: Sequence[NewIdentity]) -> None:
    """In a transaction of its own, while the window's has only read: attaching a leaf locks what writers write."""
    missing = days_of(identities) - job.days
    if missing:
        with store.begin() as connection:
            ensure_leaves(connection, "prototype", job.model.id, missing)
        job.days.update(missing)


def _level_windows(store: Store, job: _Job, dirty_from: datetime, period: Period) -> tuple[UnitResult, datetime | None]:
    total = UnitResult(job.unit)
    with store.begin() as connection:
        windows, remaining = _in_period(windows_from(connection, job.unit, dirty_from), period, job.settings.window_s)
    for window in windows:
        with store.begin() as connection:
            hold_model_in_use(connection, job.model)
            total += _level_window(store, connection, job, window)
    return total, remaining


def _level_window(store: Store, connection: Connection, job: _Job, window: datetime) -> UnitResult:
    looked = UnitResult(job.unit, windows=1)
    inputs = read_inputs(
        connection,
        job.unit,
        window,
        horizon_s=job.settings.horizon_s(level_of(job.unit)),
        model_id=job.model.id,
        children_codes=job.world.children,
    )
    if not inputs.children and not inputs.gone:
        # All that was seen in it moved elsewhere: what an earlier run made of it no longer counts.
        had_run = supersede(connection, job.unit, window)
        return looked + UnitResult(job.unit, changed=int(had_run))
    parts = (
        content_hash("children", [child.key for child in inputs.children]),
        content_hash("gone", sorted(inputs.gone.values())),
        content_hash("context", [identity.key for identity in inputs.context]),
        inputs.transit.digest(),
    )
    if job.is_decided(connection, window, *parts):
        return looked
    run_key = job.run_key(window, *parts)
    calibration = None if job.calibration is None else job.calibration.value
    result = resolve_level(connection, job.unit, inputs, job.world, job.core, calibration, job.model.id, job.settings)
    children, context = len(inputs.children), len(inputs.context)
    return looked + _write(store, connection, job, window, run_key, children, context, result)


def _write(
    store: Store,
    connection: Connection,
    job: _Job,
    window: datetime,
    run_key: bytes,
    children: int,
    context: int,
    result: WindowResult,
) -> UnitResult:
    _make_leaves(store, job, result.identities)
    rows = RunRows(
        run_key,
        job.unit,
        window,
        job.settings.window_s,
        job.model.id,
        None if job.calibration is None else job.calibration.id,
        children,
        context,
        result.identities,
        result.events,
        result.decisions,
    )
    verdicts = [decision.verdict for decision in result.decisions]
    return UnitResult(
        job.unit,
        changed=1,
        written=write_run(connection, rows),
        identities=len(result.identities),
        joins=verdicts.count(Verdict.JOIN.value),
        reviews=verdicts.count(Verdict.REVIEW.value),
    )


def _camera_windows(
    store: Store, job: _Job, dirty_from: datetime, period: Period
) -> tuple[UnitResult, datetime | None]:
    total = UnitResult(job.unit)
    start = first_window(dirty_from, job.settings)
    calibration = None if job.calibration is None else job.calibration.value
    with store.begin() as connection:
        crops = read_crops(connection, job.unit, start, job.model.id, job.settings)
        known = KnownTracklets(connection, crops.ids)
        found = tracklets_by_window(crops, job.core, calibration, job.settings, known)
        had = windows_from(connection, job.unit, start)
    every = sorted({*had, *(window for window in found if window >= start)})
    windows, remaining = _in_period(every, period, job.settings.window_s)
    for window in windows:
        with store.begin() as connection:
            hold_model_in_use(connection, job.model)
            total += _camera_window(store, connection, job, window, found.get(window, []))
    return total, remaining


def _camera_window(
    store: Store, connection: Connection, job: _Job, window: datetime, tracklets: list[NewIdentity]
) -> UnitResult:
    looked = UnitResult(job.unit, windows=1)
    if not tracklets:
        return looked + UnitResult(job.unit, changed=int(supersede(connection, job.unit, window)))
    part = content_hash("tracklets", [tracklet.key for tracklet in tracklets])
    if job.is_decided(connection, window, part):
        return looked
    run_key = job.run_key(window, part)
    crops = sum(tracklet.crops for tracklet in tracklets)
    return looked + _write(store, connection, job, window, run_key, crops, 0, WindowResult(tracklets, [], []))
