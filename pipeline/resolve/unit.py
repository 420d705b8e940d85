"""resolve_unit: a unit over all its pending windows, in time order, alone (an advisory lock keeps others out)."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline import watermarks
from pipeline.association.geometry import Geometry, geometry
from pipeline.association.transit import UnitTransit, bind, prior
from pipeline.city import read_city
from pipeline.models import ModelRow, hold_model_in_use
from pipeline.resolve.camera import KnownTracklets, first_window, read_crops, tracklets_by_window
from pipeline.resolve.level import Inputs, LevelRun, Observer, resolve_level
from pipeline.resolve.memory import Heirs, UnitMemory
from pipeline.resolve.read import Identity, read_versions, windows_from
from pipeline.resolve.write import NewIdentity, RunRows, leaf_days, mark_parent, new_ids, supersede, write_runs
from pipeline.store import Store
from pipeline.store.leaves import ensure_leaves
from pipeline.store.locks import unit_lock
from reid_core.core import ReIDCore
from schemas.association import Verdict
from schemas.calibration import LevelCalibration
from schemas.city import City
from schemas.keys import content_hash
from schemas.levels import UPWARD, Level, is_within, level_of
from schemas.parameters import Period
from schemas.settings import AssociationSettings
from schemas.times import to_us, window_start

#: Versions of children, or windows, that are read and written at once.
_CHUNK = 2_000
#: As far back as strangers' gaps are thought to reach where nothing is learned of them yet, seconds.
_DAY_S = 86_400.0


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

    @cached_property
    def digest(self) -> bytes:
        return content_hash("calibration", (self.value.model_dump_json(),))


@dataclass(frozen=True)
class RunModel:
    """What a window's current run was decided with."""

    key: bytes
    model_id: int
    digest: bytes  # of the model
    calibration: StoredCalibration | None


def read_current_runs(connection: Connection, unit: str, start: datetime, end: datetime) -> dict[datetime, RunModel]:
    """The current runs of the unit's windows in [start, end)."""
    rows = connection.execute(
        text(
            "SELECT r.window_start, r.run_key, r.model_id, m.digest, r.calibration_id FROM run r "
            "JOIN model m ON m.id = r.model_id "
            "WHERE r.unit = :unit AND r.window_start >= :start AND r.window_start < :end AND r.superseded_at IS NULL"
        ),
        {"unit": unit, "start": start, "end": end},
    ).all()
    used = {row.calibration_id for row in rows} - {None}
    known = {own: _stored_calibration(connection, "id = :id", {"id": own}) for own in used}
    return {
        row.window_start: RunModel(bytes(row.run_key), row.model_id, bytes(row.digest), known.get(row.calibration_id))
        for row in rows
    }


def current_calibration(connection: Connection, model_id: int, level: Level) -> StoredCalibration | None:
    """The newest of (model, level)."""
    at = {"model": model_id, "level": level.value}
    return _stored_calibration(connection, "model_id = :model AND level = :level ORDER BY id DESC LIMIT 1", at)


def _stored_calibration(connection: Connection, which: str, at: Mapping[str, object]) -> StoredCalibration | None:
    row = connection.execute(text(f"SELECT id, parameters FROM calibration WHERE {which}"), at).one_or_none()
    return None if row is None else StoredCalibration(row.id, LevelCalibration.model_validate(row.parameters))


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
    observe: Observer | None
    days: set[date] = field(default_factory=set)  # whose leaves are known to be there

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {code: i for i, code in enumerate(self.world.cameras)}

    @cached_property
    def transit(self) -> UnitTransit:
        learned = None if self.calibration is None else self.calibration.value.transit
        looked_s = min(self.settings.horizon_s(level_of(self.unit)), _DAY_S)
        return bind(learned or prior(looked_s), self.world.children)

    @cached_property
    def settings_digest(self) -> bytes:
        return self.settings.digest()

    def run_key(self, window: datetime, *parts: bytes, by: RunModel | None = None) -> bytes:
        """Of a run in which these parts are read; with the model and calibration of `by`, or else those of the job."""
        model, calibration = (self.model.digest, self.calibration) if by is None else (by.digest, by.calibration)
        calibrated = b"none" if calibration is None else calibration.digest
        fixed = (self.unit, to_us(window), model, calibrated, self.settings_digest, self.city_digest)
        return content_hash("run", (*fixed, *parts))

    def is_decided(self, run: RunModel | None, window: datetime, *parts: bytes) -> bool:
        """Whether the window's current run read these very parts: it is not run again.

        A run of an earlier model stands for as long as nothing else changed: promoting a model rewrites no decision.
        """
        if run is None:
            return False
        return run.key == self.run_key(window, *parts, by=None if run.model_id == self.model.id else run)


def units_within(store: Store, unit: str) -> list[str]:
    """`unit` and all units below it, cameras first, each before its parent."""
    codes = [u.code for u in read_city(store).units if is_within(u.code, unit)]
    return sorted(codes, key=lambda code: (UPWARD.index(level_of(code)), code))


def resolve_unit(
    store: Store,
    core: ReIDCore,
    model: ModelRow,
    unit: str,
    *,
    settings: AssociationSettings,
    period: Period | None = None,
    on_wait: Callable[[str], None] | None = None,
    city: City | None = None,
    observe: Observer | None = None,
) -> UnitResult:
    """Resolves the unit's pending windows that lie in `period` (all, if None).

    `on_wait` is told for whom this one waits when another process resolves the same unit. `city`: the store's, where
    the caller has it read. `observe` hears of the pairs that were compared, above camera level. Raises
    StoreUnavailable, CoreUnavailable, and ModelChanged when another model than `model` is in use; after each it can be
    called again, with the model that is in use then: windows that were written stay.
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
            world = world or geometry(city or read_city(store), unit, settings)
            job = _Job(unit, core, model, calibration, settings, world, digest, observe)
            steps = _camera_windows if level is Level.CAMERA else _level_windows
            result, remaining = steps(store, job, pending.dirty_from, period or Period())
            total += result
            with store.begin() as connection:
                if watermarks.settle(connection, unit, pending, remaining):
                    return total


def _in_period(windows: Iterable[datetime], period: Period, window_s: int) -> tuple[list[datetime], datetime | None]:
    """The windows to look at now, and the first of those left for later."""
    windows = sorted(windows)
    start = None if period.from_time is None else window_start(period.from_time, window_s)
    now = [w for w in windows if (start is None or w >= start) and (period.to_time is None or w < period.to_time)]
    later = sorted(set(windows) - set(now))
    return now, later[0] if later else None


def _chunks(windows: Sequence[datetime], many: Mapping[datetime, int]) -> Iterator[list[datetime]]:
    """Neighbouring windows that are read and written together: so many that what they read stays small."""
    chunk: list[datetime] = []
    rows = 0
    for window in windows:
        if chunk and (rows + many[window] > _CHUNK or len(chunk) >= _CHUNK):
            yield chunk
            chunk, rows = [], 0
        chunk.append(window)
        rows += many[window]
    if chunk:
        yield chunk


def _level_windows(store: Store, job: _Job, dirty_from: datetime, period: Period) -> tuple[UnitResult, datetime | None]:
    total = UnitResult(job.unit)
    with store.begin() as connection:
        many = windows_from(connection, job.unit, job.world.children, dirty_from)
    windows, remaining = _in_period(many, period, job.settings.window_s)
    memory: UnitMemory | None = None
    for chunk in _chunks(windows, many):
        with store.begin() as connection:
            hold_model_in_use(connection, job.model)
            if memory is None:
                horizon_s = job.settings.horizon_s(level_of(job.unit))
                memory = UnitMemory(job.unit, job.model.id, job.numbers, horizon_s)
                memory.read(connection, chunk[0])
            total += _level_chunk(store, connection, job, memory, chunk)
            memory.forget_members(chunk[-1])
    return total, remaining


def _level_chunk(
    store: Store, connection: Connection, job: _Job, memory: UnitMemory, chunk: Sequence[datetime]
) -> UnitResult:
    """Neighbouring windows, one after the other, with what each needs read at once; their runs are written together."""
    end = chunk[-1] + timedelta(microseconds=1)
    children = read_versions(connection, job.world.children, chunk[0], end, job.model.id, job.numbers)
    runs = read_current_runs(connection, job.unit, chunk[0], end)
    stored = read_versions(connection, [job.unit], chunk[0], end, job.model.id, job.numbers) if runs else {}
    heirs = Heirs(connection, memory, (child.persistent_id for its in children.values() for child in its))
    run = LevelRun(
        job.unit,
        job.world,
        job.core,
        None if job.calibration is None else job.calibration.value,
        job.transit,
        job.settings,
        _identity_ids(connection),
        lambda identities: memory.members(connection, identities),
        heirs,
        job.observe,
    )
    written: list[RunRows] = []
    emptied: list[datetime] = []
    for window in chunk:
        inputs = _inputs(connection, memory, window, children.get(window, []))
        parts = (
            content_hash("children", _named((child.persistent_id, child.key) for child in inputs.children)),
            content_hash("gone", _named(sorted(inputs.gone.items(), key=lambda its: its[::-1]))),
            content_hash("context", _named((identity.persistent_id, identity.key) for identity in inputs.context)),
        )
        if not inputs.children and not inputs.gone:
            # All that was seen in it moved elsewhere: what an earlier run made of it no longer counts.
            if window in runs:
                emptied.append(window)
        elif job.is_decided(runs.get(window), window, *parts) and _keeps_names(
            connection, memory, inputs, stored.get(window, [])
        ):
            memory.apply(connection, stored.get(window, []))
        else:
            result = resolve_level(run, inputs)
            memory.add(result.identities)
            heirs.add(result.identities)
            counts = len(inputs.children), len(inputs.context)
            written.append(
                RunRows(
                    job.run_key(window, *parts), window, *counts, result.identities, result.events, result.decisions
                )
            )
    return _write(store, connection, job, chunk, written, emptied, runs)


def _inputs(connection: Connection, memory: UnitMemory, window: datetime, versions: Sequence[Identity]) -> Inputs:
    """What the window's run reads. Of whom the model knows nothing, it can say nothing: he is no input."""
    context = memory.context(window)
    children = [version for version in versions if not version.retired and version.prototypes is not None]
    gone = {version.persistent_id: version.key for version in versions if version.retired}
    held = memory.holders([*(child.persistent_id for child in children), *gone])
    touched = [identity.persistent_id for identity in context if identity.persistent_id in held]
    return Inputs(children, gone, context, memory.members(connection, touched))


def _named(identities: Iterable[tuple[UUID, bytes]]) -> list[bytes]:
    """Keys and persistent ids: a run stands only as long as those whom it names by their ids are the same."""
    return [part for own, key in identities for part in (key, own.bytes)]


def _keeps_names(connection: Connection, memory: UnitMemory, inputs: Inputs, made: Sequence[Identity]) -> bool:
    """Whether nobody bears by now an id that the window's run gave to somebody new."""
    before = {identity.persistent_id for identity in inputs.context}
    new = [identity.persistent_id for identity in made if identity.persistent_id not in before]
    return not memory.borne(connection, new)


def _identity_ids(connection: Connection) -> Callable[[], int]:
    """Numbers for rows of identity, fetched some hundreds at a time."""
    ids: list[int] = []

    def new_id() -> int:
        if not ids:
            ids.extend(reversed(new_ids(connection, "identity", 500)))
        return ids.pop()

    return new_id


def _write(
    store: Store,
    connection: Connection,
    job: _Job,
    windows: Sequence[datetime],
    written: Sequence[RunRows],
    emptied: Sequence[datetime],
    runs: Mapping[datetime, RunModel],
) -> UnitResult:
    """Writes what became of `windows` in the connection's transaction: runs in place of earlier ones, or of none."""
    changed = sorted([*emptied, *(rows.window_start for rows in written)])
    if changed:
        if earlier := [window for window in changed if window in runs]:
            supersede(connection, job.unit, earlier)
        mark_parent(connection, job.unit, changed[0])
    if written:
        _make_leaves(store, job, written)
        calibration_id = None if job.calibration is None else job.calibration.id
        write_runs(connection, job.unit, job.settings.window_s, job.model.id, calibration_id, written)
    verdicts = Counter(decision.verdict for rows in written for decision in rows.decisions)
    return UnitResult(
        job.unit,
        windows=len(windows),
        changed=len(changed),
        written=sum(rows.rows for rows in written),
        identities=sum(len(rows.identities) for rows in written),
        joins=verdicts[Verdict.JOIN.value],
        reviews=verdicts[Verdict.REVIEW.value],
    )


def _make_leaves(store: Store, job: _Job, written: Sequence[RunRows]) -> None:
    """In a transaction of its own, before anything is written to a leaf: attaching one locks what writers write."""
    missing = leaf_days(written) - job.days
    if missing:
        with store.begin() as connection:
            ensure_leaves(connection, "prototype", job.model.id, missing)
        job.days.update(missing)


def _camera_windows(
    store: Store, job: _Job, dirty_from: datetime, period: Period
) -> tuple[UnitResult, datetime | None]:
    total = UnitResult(job.unit)
    start = first_window(dirty_from, job.settings)
    calibration = None if job.calibration is None else job.calibration.value
    with store.begin() as connection:
        crops = read_crops(connection, job.unit, start, job.model.id, job.settings)
        known = KnownTracklets(connection, crops.ids)
        ids = _identity_ids(connection)
        found = tracklets_by_window(crops, job.core, calibration, job.settings, known, ids)
        had = windows_from(connection, job.unit, [], start)
    many = {**had, **{window: len(its) for window, its in found.items() if window >= start}}
    windows, remaining = _in_period(many, period, job.settings.window_s)
    for chunk in _chunks(windows, many):
        with store.begin() as connection:
            hold_model_in_use(connection, job.model)
            total += _camera_chunk(store, connection, job, chunk, found)
    return total, remaining


def _camera_chunk(
    store: Store,
    connection: Connection,
    job: _Job,
    chunk: Sequence[datetime],
    found: Mapping[datetime, Sequence[NewIdentity]],
) -> UnitResult:
    runs = read_current_runs(connection, job.unit, chunk[0], chunk[-1] + timedelta(microseconds=1))
    written: list[RunRows] = []
    emptied: list[datetime] = []
    for window in chunk:
        tracklets = found.get(window, [])
        part = content_hash("tracklets", [tracklet.key for tracklet in tracklets])
        if not tracklets:
            emptied.append(window)
        elif not job.is_decided(runs.get(window), window, part):
            crops = sum(tracklet.crops for tracklet in tracklets)
            written.append(RunRows(job.run_key(window, part), window, crops, 0, tracklets))
    return _write(store, connection, job, chunk, written, [window for window in emptied if window in runs], runs)
