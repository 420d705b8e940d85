"""The windows of a building, street or district: read in chunks, resolved in time order, each chunk written at once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from pipeline.resolve.constraints import Bound, Constraints
from pipeline.resolve.level import resolve_level
from pipeline.resolve.memory import UnitMemory
from pipeline.resolve.persistent_ids import FreeIds
from pipeline.resolve.read import read_versions, read_windows
from pipeline.resolve.rows import Identity, RunRows
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
from pipeline.resolve.window_nodes import Inputs, LevelRun
from pipeline.store import Store
from schemas.keys import content_hash
from schemas.levels import level_of
from schemas.parameters import Period


def level_windows(
    store: Store, job: Job, period: Period, progress: Callable[[int, int], None] | None = None
) -> tuple[UnitResult, bool]:
    """Resolves the unit's windows from its mark on that lie in `period`.

    Returns the result, and whether the mark was moved to the first window outside `period`, which stays pending: not if
    the unit was marked again meanwhile. `progress`: windows done, windows in all, after each chunk.
    """
    total = UnitResult(job.unit)
    memory = UnitMemory(job.unit, job.model.id, job.numbers, job.settings.horizon_s(level_of(job.unit)))
    todo: list[tuple[Job, list[datetime]]] | None = None
    while todo is None or todo:
        with writing(store, job) as connection:
            if todo is None:
                counts = read_windows(connection, job.unit, job.geometry.children, job.mark.dirty_from)
                windows, remaining = in_period(counts, period, job.settings.window_s)
                by_calibration = job.by_calibration(windows)
                todo = [(version, chunk) for version, its in by_calibration for chunk in chunks(its, counts)][::-1]
                if todo:
                    memory.read(connection, windows[0], is_first=job.is_first)
            if todo:
                version, chunk = todo.pop()
                if version.is_first and total.windows:
                    version = replace(version, is_first=False)
                total += _resolve_chunk(connection, version, memory, chunk)
                memory.forget_members(chunk[-1])
            settled = not todo and settle(connection, job, remaining)
        if progress is not None and windows:
            progress(total.windows, len(windows))
    return total, settled


def _resolve_chunk(connection: Connection, job: Job, memory: UnitMemory, chunk: Sequence[datetime]) -> UnitResult:
    """Resolves consecutive windows in time order, after reading the inputs of all, and writes their runs together."""
    end = chunk[-1] + timedelta(microseconds=1)
    children = read_versions(connection, job.geometry.children, chunk[0], end, job.model.id, job.numbers)
    current = {} if job.is_first else read_current_runs(connection, job.unit, chunk[0], end)
    stored = read_versions(connection, [job.unit], chunk[0], end, job.model.id, job.numbers) if current else {}
    free_ids = FreeIds(
        connection,
        job.unit,
        lambda ids: memory.ids_in_use(connection, ids),
        (child.persistent_id for versions in children.values() for child in versions),
        is_first=job.is_first,
    )
    run = LevelRun(
        job.unit,
        job.geometry,
        job.core,
        None if job.calibration is None else job.calibration.value,
        job.transit,
        job.settings,
        identity_ids(connection, 64 + sum(map(len, children.values()))),
        lambda identities: memory.members(connection, identities),
        free_ids,
        job.observe,
    )
    written: list[RunRows] = []
    emptied: list[datetime] = []
    for window in chunk:
        inputs = window_inputs(connection, memory, window, children.get(window, []), job.constraints)
        parts: tuple[bytes, ...] = (
            content_hash("children", _named((child.persistent_id, child.key) for child in inputs.children)),
            content_hash("gone", _named(sorted(inputs.gone.items(), key=lambda item: item[::-1]))),
            content_hash("context", _named((identity.persistent_id, identity.key) for identity in inputs.context)),
        )
        if inputs.bound:  # a run that no answer binds has the key that it had before there were answers
            parts += (content_hash("answers", inputs.bound.parts),)
        if not inputs.children and not inputs.gone:
            # Late data moved everything out of this window: an earlier run of it is superseded without a new one.
            if window in current:
                emptied.append(window)
        elif job.stands(current.get(window), window, *parts) and _ids_are_free(
            connection, memory, inputs, stored.get(window, [])
        ):
            memory.apply(connection, stored.get(window, []))
        else:
            result = resolve_level(run, inputs)
            memory.add(result.identities)
            free_ids.add(result.identities)
            counts = len(inputs.children), len(inputs.context)
            written.append(
                RunRows(
                    job.run_key(window, *parts), window, *counts, result.identities, result.events, result.decisions
                )
            )
    return write_chunk(connection, job, chunk, written, emptied, current)


def window_inputs(
    connection: Connection | None,
    memory: UnitMemory,
    window: datetime,
    versions: Sequence[Identity],
    constraints: Constraints | None = None,
) -> Inputs:
    """The inputs of a window's run. connection: None if the memory holds all members.

    Children without a prototype of the model are skipped, and identities without one that hold none of the others.
    """
    children = [version for version in versions if not version.retired and version.prototypes is not None]
    gone = {version.persistent_id: version.key for version in versions if version.retired}
    held = memory.holders([*(child.persistent_id for child in children), *gone])
    context = memory.context(window, held)
    touched = [identity.persistent_id for identity in context if identity.persistent_id in held]
    bound = constraints.within(children, context, held) if constraints else Bound()
    return Inputs(children, gone, context, memory.members(connection, touched), bound)


def _named(identities: Iterable[tuple[UUID, bytes]]) -> list[bytes]:
    """Keys and persistent ids for a run's key: the run names identities by both, and stands only while both agree."""
    return [part for persistent_id, key in identities for part in (key, persistent_id.bytes)]


def _ids_are_free(connection: Connection, memory: UnitMemory, inputs: Inputs, stored: Sequence[Identity]) -> bool:
    """Whether no other identity has meanwhile got an id that the window's current run gave to a new identity."""
    before = {identity.persistent_id for identity in inputs.context}
    new = [identity.persistent_id for identity in stored if identity.persistent_id not in before]
    return not memory.ids_in_use(connection, new)
