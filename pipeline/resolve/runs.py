"""A unit's runs: what they are decided with, whether a window's still stands, and how those of a chunk are written."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property

from sqlalchemy import Connection, text

from pipeline.association.geometry import Geometry
from pipeline.association.transit import UnitTransit, bind, prior
from pipeline.registry import ModelRow
from pipeline.resolve.level import Observer
from pipeline.resolve.write import RunRows, leaf_days, mark_parent, new_ids, supersede, write_runs
from pipeline.store import Store
from pipeline.store.partitions import ensure_partitions
from reid_core.serving.core import ReIDCore
from schemas.association import Verdict
from schemas.calibration import LevelCalibration
from schemas.keys import content_hash
from schemas.levels import level_of
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
    known = {own: stored_calibration(connection, "id = :id", {"id": own}) for own in used}
    return {
        row.window_start: RunModel(bytes(row.run_key), row.model_id, bytes(row.digest), known.get(row.calibration_id))
        for row in rows
    }


def stored_calibration(connection: Connection, which: str, at: Mapping[str, object]) -> StoredCalibration | None:
    row = connection.execute(text(f"SELECT id, parameters FROM calibration WHERE {which}"), at).one_or_none()
    return None if row is None else StoredCalibration(row.id, LevelCalibration.model_validate(row.parameters))


@dataclass(frozen=True)
class Job:
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


def in_period(windows: Iterable[datetime], period: Period, window_s: int) -> tuple[list[datetime], datetime | None]:
    """The windows to look at now, and the first of those left for later."""
    windows = sorted(windows)
    start = None if period.from_time is None else window_start(period.from_time, window_s)
    now = [w for w in windows if (start is None or w >= start) and (period.to_time is None or w < period.to_time)]
    later = sorted(set(windows) - set(now))
    return now, later[0] if later else None


def chunks(windows: Sequence[datetime], many: Mapping[datetime, int]) -> Iterator[list[datetime]]:
    """Neighboring windows that are read and written together: so many that what they read stays small."""
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


def identity_ids(connection: Connection) -> Callable[[], int]:
    """Numbers for rows of identity, fetched some hundreds at a time."""
    ids: list[int] = []

    def new_id() -> int:
        if not ids:
            ids.extend(reversed(new_ids(connection, "identity", 500)))
        return ids.pop()

    return new_id


def write(
    store: Store,
    connection: Connection,
    job: Job,
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


def _make_leaves(store: Store, job: Job, written: Sequence[RunRows]) -> None:
    """In a transaction of its own, before anything is written to a leaf: attaching one locks what writers write."""
    missing = leaf_days(written) - job.days
    if missing:
        with store.begin() as connection:
            ensure_partitions(connection, "prototype", job.model.id, missing)
        job.days.update(missing)
