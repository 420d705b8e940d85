"""The windows of a building, street or district: read by chunks, resolved one after the other, and written together."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from pipeline.registry import hold_model_in_use
from pipeline.resolve.level import Inputs, LevelRun, resolve_level
from pipeline.resolve.memory import Heirs, UnitMemory
from pipeline.resolve.read import Identity, read_versions, windows_from
from pipeline.resolve.runs import Job, UnitResult, chunks, identity_ids, in_period, read_current_runs, write
from pipeline.resolve.write import RunRows
from pipeline.store import Store
from schemas.keys import content_hash
from schemas.levels import level_of
from schemas.parameters import Period


def level_windows(store: Store, job: Job, dirty_from: datetime, period: Period) -> tuple[UnitResult, datetime | None]:
    """Looks at the windows from `dirty_from` on that lie in `period`; also the first of those left for later."""
    total = UnitResult(job.unit)
    with store.begin() as connection:
        many = windows_from(connection, job.unit, job.world.children, dirty_from)
    windows, remaining = in_period(many, period, job.settings.window_s)
    memory: UnitMemory | None = None
    for chunk in chunks(windows, many):
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
    store: Store, connection: Connection, job: Job, memory: UnitMemory, chunk: Sequence[datetime]
) -> UnitResult:
    """Neighboring windows, one after the other, with what each needs read at once; their runs are written together."""
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
        identity_ids(connection),
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
    return write(store, connection, job, chunk, written, emptied, runs)


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
