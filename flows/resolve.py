"""The four resolve flows: camera, building, street, district. Each resolves its unit and everything below it.

A task is a unit over all its pending windows; a unit without any has none. A building waits for its own cameras only, a
street for its own buildings; units that do not depend on each other run at the same time.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from prefect import flow
from prefect.context import FlowRunContext
from pydantic import ValidationError

from flows.artifacts import show_resolve
from flows.failures import confidential, reported
from flows.runs import mark_empty
from flows.work import Work, logger_of_run, step, working
from pipeline.attributes.recognize import recognize_camera
from pipeline.calibration.unlabeled.versions import ensure_calibrations
from pipeline.city import watermarks
from pipeline.city.decision_digest import decision_digest
from pipeline.city.units import read_city
from pipeline.registry import ModelRow, model_in_use
from pipeline.resolve import UnitResult, any_missing, embed_camera, resolve_unit, units_within
from pipeline.resolve.pictures import take_back
from pipeline.resolve.progress import UnitsProgress
from reid_core.attributes import attribute_models, open_attributes
from schemas.city_file import unknown_unit
from schemas.errors import CoreError, ModelFileError, StoreUnavailable, UsageError
from schemas.levels import Level, level_of, parent_of
from schemas.parameters import Period, ResolveParameters
from schemas.settings import settings

#: A run recognizes attributes for no longer than this, so that windows that close are not held up; the next goes on.
_RECOGNIZE_S = 60.0
#: How often a run looks for what there is to do, where a replica took the database's place each time.
_LOOKS = 4


@dataclass(frozen=True)
class Resolved:
    """What a resolve did: a result for each unit, and the decision digest of the requested unit."""

    results: tuple[UnitResult, ...]
    digest: str

    @property
    def written(self) -> int:
        """Rows written, without those of the crops' features."""
        return sum(result.written for result in self.results)


def run_name() -> str:
    """A run's name is its unit."""
    context = FlowRunContext.get()
    try:
        return ResolveParameters.model_validate(((context and context.parameters) or {}).get("parameters")).unit
    except ValidationError:
        return "wrong parameters"


@flow(name="camera", flow_run_name=run_name, validate_parameters=False)
@confidential
async def camera(parameters: ResolveParameters) -> Resolved:
    """Groups a camera's crops into tracklets, one for each passage of a person."""
    return await _resolve(Level.CAMERA, parameters)


@flow(name="building", flow_run_name=run_name, validate_parameters=False)
@confidential
async def building(parameters: ResolveParameters) -> Resolved:
    """Finds the same person at the cameras of a building, after resolving the cameras."""
    return await _resolve(Level.BUILDING, parameters)


@flow(name="street", flow_run_name=run_name, validate_parameters=False)
@confidential
async def street(parameters: ResolveParameters) -> Resolved:
    """Finds the same person in the buildings of a street, after resolving everything below it."""
    return await _resolve(Level.STREET, parameters)


@flow(name="district", flow_run_name=run_name, validate_parameters=False)
@confidential
async def district(parameters: ResolveParameters) -> Resolved:
    """Finds the same person in the streets of a district and in its history, after resolving everything below it."""
    return await _resolve(Level.DISTRICT, parameters)


FLOWS = {Level.CAMERA: camera, Level.BUILDING: building, Level.STREET: street, Level.DISTRICT: district}


async def _resolve(level: Level, parameters: ResolveParameters) -> Resolved:
    parameters = ResolveParameters.model_validate(parameters)  # the engine hands on what the API's row says
    unit = parameters.unit
    if level_of(unit) is not level:
        raise UsageError(f"{unit} is a {level_of(unit)}; run the {level_of(unit)} flow for it, not the {level} flow")
    with working(settings()) as work:
        city = await work.run(read_city, work.store)
        names = {u.code: u.name for u in city.units}
        if unit not in names:
            raise unknown_unit(unit, set(names))
        units = await work.run(units_within, work.store, unit)
        results = {code: UnitResult(code) for code in units}
        for _ in range(_LOOKS):
            timeline = await work.run(work.store.timeline)
            found = await work.run(_look, work, unit, units)
            if found is not _Found.NOTHING:
                await work.run(_learn, work, parameters)
                for result in await _Run(work, parameters, units, every=found is _Found.CROPS).all():
                    results[result.unit] += result
            if await work.run(work.store.timeline) == timeline:
                break
            logger_of_run().warning("a replica took the database's place; commits may be missing: looking again")
        else:
            raise StoreUnavailable(f"replicas took the database's place {_LOOKS} times while {unit} was resolved")
        await work.run(_recognize, work, units)  # also where nothing is new: a model for attributes may be
        digest = await work.run(_digest, work, unit)
        resolved = Resolved(tuple(results.values()), digest)
        if any(result.windows for result in resolved.results):  # else the last run's artifacts are kept
            await show_resolve(work.settings, unit, names, resolved.results, digest)
        elif found is _Found.NOTHING:
            await reported(mark_empty)
        return resolved


class _Found(Enum):
    """What there is to do: nothing, windows of some units, or only crops that are not embedded, at whatever camera."""

    NOTHING, WINDOWS, CROPS = range(3)


def _look(work: Work, unit: str, units: list[str]) -> _Found:
    """What there is to do in the units. Crops whose picture was gone and is there again count from now on."""
    take_back(work.store, work.crops, unit)
    with work.store.begin() as connection:
        model = model_in_use(connection)
        if watermarks.any_pending(connection, units):
            return _Found.WINDOWS
        return _Found.CROPS if any_missing(connection, model, units) else _Found.NOTHING


def _learn(work: Work, parameters: ResolveParameters) -> None:
    """Learns the district's calibrations without labels whose marks have passed; see `ensure_calibrations`."""
    logger = logger_of_run()

    def with_model(model: ModelRow) -> None:
        core = work.core(model)
        ensure_calibrations(
            work.store,
            core,
            work.crops,
            model,
            parameters.unit,
            parameters.to_time,
            on_step=lambda line: logger.info("%s", line),
            on_wait=work.on_wait,
        )

    work.with_model_in_use(with_model)


def _recognize(work: Work, units: list[str]) -> None:
    """Recognizes attributes of the people of new tracklets, where the home has a model for that."""
    if not attribute_models(work.settings):
        return
    end = time.monotonic() + _RECOGNIZE_S
    try:
        recognizer = open_attributes(work.settings)
        for unit in units:
            if level_of(unit) is Level.CAMERA and time.monotonic() < end:
                recognize_camera(
                    work.store, work.crops, recognizer, unit, work.on_wait, lambda: time.monotonic() >= end
                )
    except (CoreError, ModelFileError, UsageError) as error:  # nothing else of the resolve needs it
        logger_of_run().warning("attributes are not recognized: %s", error)


def _digest(work: Work, unit: str) -> str:
    with work.store.begin() as connection:
        return decision_digest(connection, unit)


class _Run:
    """The tasks of one flow run, of the units with pending windows or `every` unit; below before above."""

    def __init__(self, work: Work, parameters: ResolveParameters, units: list[str], *, every: bool) -> None:
        self._work, self._every = work, every
        self._period = Period(from_time=parameters.from_time, to_time=parameters.to_time)
        self._units = units
        self._below: dict[str, list[str]] = defaultdict(list)
        for unit in units[:-1]:
            self._below[parent_of(unit) or ""].append(unit)
        self._tell = UnitsProgress(len(units), work.on_step)
        self._step = step("resolve unit", self._resolve_unit)
        self._results: dict[str, UnitResult] = {}
        self._errors: list[Exception] = []

    async def all(self) -> list[UnitResult]:
        """Each unit's result, in dependency order. Raises the first error when all that could run have ended."""
        await self._visit(self._units[-1])
        if self._errors:
            raise self._errors[0]
        return [self._results[unit] for unit in self._units]

    async def _visit(self, unit: str) -> bool:
        """Resolves the units below, then the unit; nothing above a unit that failed. Returns whether all succeeded."""
        if not all(await asyncio.gather(*(self._visit(child) for child in self._below[unit]))):
            return False
        try:
            pending = self._every or await self._work.run(self._is_pending, unit)
            self._results[unit] = await self._step(unit) if pending else UnitResult(unit)
        except Exception as error:
            self._errors.append(error)
            return False
        self._tell(unit, 1, 1)
        return True

    def _is_pending(self, unit: str) -> bool:
        """Whether a window of the unit has to be resolved that may lie in the period."""
        with self._work.store.begin() as connection:
            pending = watermarks.read(connection, unit)
        return pending is not None and (self._period.to_time is None or pending.dirty_from < self._period.to_time)

    async def _resolve_unit(self, unit: str) -> UnitResult:
        logger = logger_of_run()

        def on_wait(line: str) -> None:
            logger.warning("%s", line)
            if self._work.on_wait is not None:
                self._work.on_wait(line)

        result = await self._work.run(self._plain, unit, on_wait)
        logger.info("%s", result)
        return result

    def _plain(self, unit: str, on_wait: Callable[[str], None]) -> UnitResult:
        return self._work.with_model_in_use(lambda model: self._with(model, unit, on_wait))

    def _with(self, model: ModelRow, unit: str, on_wait: Callable[[str], None]) -> UnitResult:
        work = self._work
        core = work.core(model)
        if level_of(unit) is Level.CAMERA:
            embed_camera(work.store, core, work.crops, model, unit, partial(self._tell, unit), on_wait)
        return resolve_unit(
            work.store,
            core,
            model,
            unit,
            settings=work.settings.association,
            period=self._period,
            progress=partial(self._tell, unit),
            on_wait=on_wait,
        )
