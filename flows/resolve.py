"""The four resolve flows: camera, building, street, district. Each resolves its unit and everything below it.

A task is a unit over all its pending windows. A building waits for its own cameras only, a street for its own
buildings; units that do not depend on each other run at the same time.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from prefect import State, flow, get_run_logger

from flows.artifacts import show_resolve
from flows.work import Work, unit_task, working
from pipeline.city.decision_digest import decision_digest
from pipeline.city.units import read_city
from pipeline.registry import ModelRow
from pipeline.resolve import UnitResult, embed_camera, resolve_unit, units_within
from pipeline.resolve.progress import UnitsProgress
from schemas.city_file import unknown_unit
from schemas.errors import UsageError
from schemas.levels import Level, level_of, parent_of
from schemas.parameters import Period, ResolveParameters
from schemas.settings import settings


@dataclass(frozen=True)
class Resolved:
    """What a resolve did: a result for each unit, and the decision digest of the requested unit."""

    results: tuple[UnitResult, ...]
    digest: str

    @property
    def written(self) -> int:
        """Rows written, without those of the crops' features."""
        return sum(result.written for result in self.results)


@flow(name="camera", flow_run_name="{parameters.unit}")
async def camera(parameters: ResolveParameters) -> Resolved:
    """Groups a camera's crops into tracklets, one for each passage of a person."""
    return await _resolve(Level.CAMERA, parameters)


@flow(name="building", flow_run_name="{parameters.unit}")
async def building(parameters: ResolveParameters) -> Resolved:
    """Finds the same person at the cameras of a building, after resolving the cameras."""
    return await _resolve(Level.BUILDING, parameters)


@flow(name="street", flow_run_name="{parameters.unit}")
async def street(parameters: ResolveParameters) -> Resolved:
    """Finds the same person in the buildings of a street, after resolving everything below it."""
    return await _resolve(Level.STREET, parameters)


@flow(name="district", flow_run_name="{parameters.unit}")
async def district(parameters: ResolveParameters) -> Resolved:
    """Finds the same person in the streets of a district and in its history, after resolving everything below it."""
    return await _resolve(Level.DISTRICT, parameters)


FLOWS = {Level.CAMERA: camera, Level.BUILDING: building, Level.STREET: street, Level.DISTRICT: district}


async def _resolve(level: Level, parameters: ResolveParameters) -> Resolved:
    unit = parameters.unit
    if level_of(unit) is not level:
        raise UsageError(f"{unit} is a {level_of(unit)}; run the {level_of(unit)} flow for it, not the {level} flow")
    with working(settings()) as work:
        city = await work.run(read_city, work.store)
        names = {u.code: u.name for u in city.units}
        if unit not in names:
            raise unknown_unit(unit, set(names))
        units = await work.run(units_within, work.store, unit)
        results = await _Run(work, parameters, units).all()
        digest = await work.run(_digest, work, unit)
        if any(result.windows for result in results):  # a run that found nothing new keeps the last one's artifacts
            await show_resolve(work.settings, unit, names, results, digest)
        return Resolved(tuple(results), digest)


def _digest(work: Work, unit: str) -> str:
    with work.store.begin() as connection:
        return decision_digest(connection, unit)


class _Run:
    """The tasks of one flow run; each starts when those below it have ended."""

    def __init__(self, work: Work, parameters: ResolveParameters, units: list[str]) -> None:
        self._work = work
        self._period = Period(from_time=parameters.from_time, to_time=parameters.to_time)
        self._units = units
        self._below: dict[str, list[str]] = defaultdict(list)
        for unit in units[:-1]:
            self._below[parent_of(unit) or ""].append(unit)
        self._tell = UnitsProgress(len(units), work.on_step)
        self._task = unit_task("resolve unit", self._resolve_unit)
        self._states: dict[str, State[UnitResult]] = {}

    async def all(self) -> list[UnitResult]:
        """Each unit's result, in dependency order. Raises the first error when all that could run have ended."""
        await self._visit(self._units[-1])
        # Cameras come first: a camera's error is the reason why the units above it could not start.
        return [await self._states[unit].aresult() for unit in self._units]

    async def _visit(self, unit: str) -> State[UnitResult]:
        below = await asyncio.gather(*(self._visit(child) for child in self._below[unit]))
        ended = self._task(unit, wait_for=below, return_state=True)
        self._states[unit] = await cast(Awaitable[State[UnitResult]], ended)
        self._tell(unit, 1, 1)
        return self._states[unit]

    async def _resolve_unit(self, unit: str) -> UnitResult:
        logger = get_run_logger()

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
