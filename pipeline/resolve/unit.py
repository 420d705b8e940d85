"""resolve_unit: resolves one unit's pending windows in time order, while an advisory lock keeps other processes out."""

from collections.abc import Callable, Sequence

from sqlalchemy import text

from pipeline.association.geometry import unit_geometry
from pipeline.city import watermarks
from pipeline.city.units import read_city
from pipeline.registry import ModelRow
from pipeline.resolve.calibrations import read_calibrations
from pipeline.resolve.camera_windows import camera_windows
from pipeline.resolve.constraints import Constraints, Opinion, read_constraints
from pipeline.resolve.level_windows import level_windows
from pipeline.resolve.runs import Job, UnitResult
from pipeline.resolve.window_nodes import Observer
from pipeline.store import Store
from pipeline.store.locks import unit_lock
from pipeline.store.statistics import analyze_grown
from reid_core.serving.core import ReIDCore
from schemas.levels import UPWARD, Level, is_within, level_of
from schemas.parameters import Period
from schemas.settings import AssociationSettings

_GEOMETRY = text("SELECT geometry FROM urban_unit WHERE code = :unit")


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
    progress: Callable[[int, int], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
    observe: Observer | None = None,
) -> UnitResult:
    """Resolves the unit's pending windows that lie in `period` (all, if None).

    `progress`: windows done, windows in all, after each chunk of windows. `on_wait`: a line that names the process that
    resolves the unit now, while this one waits. `observe`: the nodes and compared pairs of each window above camera
    level.

    Raises StoreUnavailable, CoreUnavailable, and ModelChanged when another model than `model` is in use. It can be
    called again after each of them, with the model in use then: windows that were written stay.
    """
    with unit_lock(store, unit, on_wait):
        return resolve_held(
            store, core, model, unit, settings=settings, period=period, progress=progress, observe=observe
        )


def resolve_held(
    store: Store,
    core: ReIDCore,
    model: ModelRow,
    unit: str,
    *,
    settings: AssociationSettings,
    period: Period | None = None,
    progress: Callable[[int, int], None] | None = None,
    observe: Observer | None = None,
    opinions: Sequence[Opinion] | None = None,
) -> UnitResult:
    """As `resolve_unit`, for whoever holds the unit's lock. opinions: what reviewers say, instead of what is stored."""
    total = UnitResult(unit)
    level = level_of(unit)
    calibration_level = Level.BUILDING if level is Level.CAMERA else level  # links a camera's crops without a track
    while True:
        with store.begin() as connection:
            pending = watermarks.read(connection, unit)
            if pending is None:
                return total
            # Only a calibration with labels links crops without a track: the others are learned from tracks.
            within = None if level is Level.CAMERA else unit
            calibrations = read_calibrations(connection, model.id, calibration_level, within)
            # Read before the city: if that changes in between, the unit is marked again, and this key is outdated.
            geometry_digest = bytes(connection.execute(_GEOMETRY, {"unit": unit}).scalar_one())
            bound = Constraints() if level is Level.CAMERA else read_constraints(connection, unit, opinions)
        geometry = unit_geometry(read_city(store), unit, settings)
        analyze_grown(store)  # after the ingest and the units below wrote rows
        job = Job(
            unit, core, model, calibrations.newest, settings, geometry, geometry_digest, observe, calibrations, bound
        )
        resolve_windows = camera_windows if level is Level.CAMERA else level_windows
        result, remaining = resolve_windows(store, job, pending.dirty_from, period or Period(), progress)
        total += result
        with store.begin() as connection:
            # False: a new mark came meanwhile, so the unit is looked at once more.
            if watermarks.settle(connection, unit, pending, remaining):
                return total
