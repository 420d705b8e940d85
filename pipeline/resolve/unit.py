"""resolve_unit: a unit over all its pending windows, in time order, alone (an advisory lock keeps others out)."""

from collections.abc import Callable

from sqlalchemy import Connection, text

from pipeline.association.geometry import Geometry, geometry
from pipeline.city import watermarks
from pipeline.city.units import read_city
from pipeline.registry import ModelRow
from pipeline.resolve.camera_windows import camera_windows
from pipeline.resolve.level import Observer
from pipeline.resolve.level_windows import level_windows
from pipeline.resolve.runs import Job, StoredCalibration, UnitResult, stored_calibration
from pipeline.store import Store
from pipeline.store.locks import unit_lock
from pipeline.store.statistics import analyze_grown
from reid_core.serving.core import ReIDCore
from schemas.levels import UPWARD, Level, is_within, level_of
from schemas.parameters import Period
from schemas.settings import AssociationSettings


def current_calibration(connection: Connection, model_id: int, level: Level) -> StoredCalibration | None:
    """The newest of (model, level)."""
    at = {"model": model_id, "level": level.value}
    return stored_calibration(connection, "model_id = :model AND level = :level ORDER BY id DESC LIMIT 1", at)


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
    observe: Observer | None = None,
) -> UnitResult:
    """Resolves the unit's pending windows that lie in `period` (all, if None).

    `on_wait` is told for whom this one waits when another process resolves the same unit. `observe` hears of the pairs
    that were compared, above camera level. Raises StoreUnavailable, CoreUnavailable, and ModelChanged when another
    model than `model` is in use; after each it can be called again, with the model that is in use then: windows that
    were written stay.
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
            analyze_grown(store)  # what was taken in, and what the units below wrote
            job = Job(unit, core, model, calibration, settings, world, digest, observe)
            steps = camera_windows if level is Level.CAMERA else level_windows
            result, remaining = steps(store, job, pending.dirty_from, period or Period())
            total += result
            with store.begin() as connection:
                if watermarks.settle(connection, unit, pending, remaining):
                    return total
