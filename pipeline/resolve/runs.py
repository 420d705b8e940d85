"""A unit's runs: what a run's key covers, whether a window's current run still stands, and how a chunk is written."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import groupby

from sqlalchemy import Connection, text

from pipeline.association.geometry import Geometry
from pipeline.association.transit import UnitTransit, max_lookback_s, prior_times, unit_transit
from pipeline.city import watermarks
from pipeline.city.watermarks import Watermark
from pipeline.registry import ModelRow, hold_model_in_use
from pipeline.resolve.calibrations import Calibrations, StoredCalibration, calibration_by_id
from pipeline.resolve.constraints import Constraints
from pipeline.resolve.rows import RunRows
from pipeline.resolve.window_nodes import Observer
from pipeline.resolve.withdrawn import forget_withdrawn
from pipeline.resolve.write import mark_parent, supersede, write_runs
from pipeline.store import Store
from pipeline.store.copy import new_ids
from reid_core.serving.core import ReIDCore
from schemas.association import Verdict
from schemas.errors import StoreUnavailable
from schemas.keys import content_hash
from schemas.levels import level_of
from schemas.parameters import Period
from schemas.settings import AssociationSettings
from schemas.times import to_us, window_start

#: Most windows, and most versions of children, that one chunk reads and writes.
_CHUNK = 2_000


@dataclass(frozen=True)
class UnitResult:
    """What resolving a unit did, in counts."""

    unit: str
    windows: int = 0  # looked at
    changed: int = 0  # resolved again or emptied
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
class CurrentRun:
    """A window's current run, with the model and calibration that it was resolved with."""

    key: bytes
    model_id: int
    model_digest: bytes
    calibration: StoredCalibration | None
    decide_again: bool


def read_current_runs(connection: Connection, unit: str, start: datetime, end: datetime) -> dict[datetime, CurrentRun]:
    """The current runs of the unit's windows in [start, end)."""
    rows = connection.execute(
        text(
            "SELECT r.window_start, r.run_key, r.model_id, m.digest, r.calibration_id, r.decide_again "
            "FROM run r "
            "JOIN model m ON m.id = r.model_id "
            "WHERE r.unit = :unit AND r.window_start >= :start AND r.window_start < :end AND r.superseded_at IS NULL"
        ),
        {"unit": unit, "start": start, "end": end},
    ).all()
    calibrations = {id_: calibration_by_id(connection, id_) for id_ in {row.calibration_id for row in rows} - {None}}
    return {
        row.window_start: CurrentRun(
            bytes(row.run_key),
            row.model_id,
            bytes(row.digest),
            calibrations.get(row.calibration_id),
            row.decide_again,
        )
        for row in rows
    }


@dataclass(frozen=True)
class Job:
    """What stays the same while a unit's windows are resolved."""

    unit: str
    core: ReIDCore
    model: ModelRow
    calibration: StoredCalibration | None
    settings: AssociationSettings
    geometry: Geometry
    geometry_digest: bytes  # the unit's mark, which changes with its geometry
    observe: Observer | None
    mark: Watermark
    is_first: bool  # the unit has no run yet, current or superseded
    timeline: int  # of the database when the mark was read
    versions: Calibrations = field(default_factory=Calibrations)
    constraints: Constraints = field(default_factory=Constraints)  # what people said

    def by_calibration(self, windows: Sequence[datetime]) -> Iterator[tuple["Job", list[datetime]]]:
        """The windows, in their order, in parts with one calibration each, and the job with it."""
        for _, part in groupby(windows, lambda window: None if (at := self.versions.at(window)) is None else at.id):
            its = list(part)
            yield replace(self, calibration=self.versions.at(its[0])), its

    @cached_property
    def numbers(self) -> dict[str, int]:
        """From a camera's code to its index in the geometry."""
        return {code: i for i, code in enumerate(self.geometry.cameras)}

    @cached_property
    def transit(self) -> UnitTransit:
        learned = None if self.calibration is None else self.calibration.value.transit
        lookback_s = max_lookback_s(self.settings.horizon_s(level_of(self.unit)))
        return unit_transit(learned or prior_times(lookback_s), self.geometry.children)

    @cached_property
    def settings_digest(self) -> bytes:
        return self.settings.digest()

    def run_key(self, window: datetime, *parts: bytes, by: CurrentRun | None = None) -> bytes:
        """The key of a run of `window` whose inputs have the hashes `parts`.

        Model and calibration are those of the job, or of the run `by` where one is given.
        """
        model, calibration = (self.model.digest, self.calibration) if by is None else (by.model_digest, by.calibration)
        calibrated = b"none" if calibration is None else calibration.digest
        fixed = (self.unit, to_us(window), model, calibrated, self.settings_digest, self.geometry_digest)
        return content_hash("run", (*fixed, *parts))

    def stands(self, run: CurrentRun | None, window: datetime, *parts: bytes) -> bool:
        """Whether the window's current run read exactly these inputs, so that the window is not resolved again.

        A run of an earlier model stands as long as nothing else changed, unless it was marked to be decided again:
        promoting a model rewrites no decision.
        """
        if run is None:
            return False
        by_model_in_use = run.model_id == self.model.id or run.decide_again
        return run.key == self.run_key(window, *parts, by=None if by_model_in_use else run)


def in_period(windows: Iterable[datetime], period: Period, window_s: int) -> tuple[list[datetime], datetime | None]:
    """The windows that lie in `period`, in time order, and the first of the others, None if there are no others."""
    windows = sorted(windows)
    start = None if period.from_time is None else window_start(period.from_time, window_s)
    now = [w for w in windows if (start is None or w >= start) and (period.to_time is None or w < period.to_time)]
    later = sorted(set(windows) - set(now))
    return now, later[0] if later else None


def chunks(windows: Sequence[datetime], counts: Mapping[datetime, int]) -> Iterator[list[datetime]]:
    """Splits consecutive windows into chunks of at most _CHUNK windows and, if possible, _CHUNK versions of children.

    `counts`: versions of children by window. A chunk is read at once and written together; its size bounds memory.
    """
    chunk: list[datetime] = []
    rows = 0
    for window in windows:
        if chunk and (rows + counts[window] > _CHUNK or len(chunk) >= _CHUNK):
            yield chunk
            chunk, rows = [], 0
        chunk.append(window)
        rows += counts[window]
    if chunk:
        yield chunk


_HOLD_GEOMETRY = text("SELECT FROM urban_unit WHERE code = :unit FOR SHARE")


@contextmanager
def writing(store: Store, job: Job) -> Iterator[Connection]:
    """A transaction that writes windows; the model stays in use until it ends. Raises ModelChanged.

    Its commit waits for the disk: the units above go on from what it wrote, without reading whether it is still there.
    Raises StoreUnavailable where a replica was promoted since the unit's mark was read: chunks that were written before
    may be missing, and the mark must not move past them.
    """
    with store.begin() as connection:
        if hold_model_in_use(connection, job.model) != job.timeline:
            raise StoreUnavailable(f"a replica took the database's place while {job.unit} was resolved; try again")
        yield connection


def settle(connection: Connection, job: Job, remaining: datetime | None) -> bool:
    """Moves the unit's mark to `remaining`, the first window not resolved.

    Returns False if a new mark or geometry came meanwhile. The unit has to be resolved once more then.
    """
    return watermarks.settle(connection, job.unit, job.mark, job.geometry_digest, remaining)


def identity_ids(connection: Connection, count: int) -> Callable[[], int]:
    """A function that returns an unused id for a row of identity; it fetches at least `count` at a time."""
    ids: list[int] = []

    def new_id() -> int:
        if not ids:
            ids.extend(reversed(new_ids(connection, "identity", max(count, 1))))
        return ids.pop()

    return new_id


def write_chunk(
    connection: Connection,
    job: Job,
    windows: Sequence[datetime],
    written: Sequence[RunRows],
    emptied: Sequence[datetime],
    current: Mapping[datetime, CurrentRun],
) -> UnitResult:
    """Writes the new runs of a chunk in the connection's transaction, supersedes earlier ones and marks the parent.

    The partitions of their prototypes exist: an identity above cameras was last seen when one of its children was.

    `windows`: all windows looked at. `written`: new runs. `emptied`: windows whose run is superseded without a new one.
    `current`: the current runs before.
    """
    changed = sorted([*emptied, *(rows.window_start for rows in written)])
    if earlier := [window for window in changed if window in current]:
        supersede(connection, job.unit, earlier)
    if written:
        calibration_id = None if job.calibration is None else job.calibration.id
        write_runs(connection, job.unit, job.settings.window_s, job.model.id, calibration_id, written)
    if changed:
        if not job.is_first:
            forget_withdrawn(connection, job.unit, changed)
        # Whoever changes the geometry from here on waits, and then sees these runs and marks them.
        connection.execute(_HOLD_GEOMETRY, {"unit": job.unit})
        mark_parent(connection, job.unit, changed[0])  # last: the parent's other children wait for it until the commit
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
