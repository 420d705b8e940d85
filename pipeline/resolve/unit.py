"""resolve_unit: resolves one unit's pending windows in time order, while an advisory lock keeps other processes out."""

from collections.abc import Callable, Sequence

from sqlalchemy import text

from pipeline.association.geometry import unit_geometry
from pipeline.city.units import city_of, read_city
from pipeline.city.watermarks import Watermark
from pipeline.registry import ModelRow
from pipeline.resolve.calibrations import read_calibrations
from pipeline.resolve.camera_windows import camera_windows
from pipeline.resolve.constraints import Constraints, Opinion, read_constraints
from pipeline.resolve.level_windows import level_windows
from pipeline.resolve.runs import Job, UnitResult
from pipeline.resolve.window_nodes import Observer
from pipeline.store import Store
from pipeline.store.locks import unit_lock
from pipeline.store.replica import TIMELINE
from pipeline.store.statistics import analyze_grown
from reid_core.serving.core import ReIDCore
from schemas.levels import UPWARD, Level, is_within, level_of
from schemas.parameters import Period
from schemas.settings import AssociationSettings

_PENDING = text(
    f"SELECT w.dirty_from, w.version, u.geometry, {TIMELINE} AS timeline, "
    "EXISTS (SELECT FROM run WHERE unit = :unit) AS has_runs "
    "FROM watermark w JOIN urban_unit u ON u.code = w.unit WHERE w.unit = :unit AND w.dirty_from IS NOT NULL"
)


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
    settled = False
    while not settled:  # a new mark came meanwhile, or a camera has more crops: the unit is looked at once more
        analyze_grown(store)  # after the ingest and the units below wrote rows
        with store.begin() as connection:
            pending = connection.execute(_PENDING, {"unit": unit}).one_or_none()
            if pending is None:
                return total
            # Only a calibration with labels links crops without a track: the others are learned from tracks.
            within = None if level is Level.CAMERA else unit
            calibrations = read_calibrations(connection, model.id, calibration_level, within)
            bound = Constraints() if level is Level.CAMERA else read_constraints(connection, unit, opinions)
            # Read after the mark: if it changes in between, the unit is marked again, and this key is outdated.
            city = city_of(connection)
        job = Job(
            unit=unit,
            core=core,
            model=model,
            calibration=calibrations.newest,
            settings=settings,
            geometry=unit_geometry(city, unit, settings),
            geometry_digest=bytes(pending.geometry),
            observe=observe,
            mark=Watermark(pending.dirty_from, pending.version),
            is_first=not pending.has_runs,
            timeline=pending.timeline,
            versions=calibrations,
            constraints=bound,
        )
        resolve_windows = camera_windows if level is Level.CAMERA else level_windows
        result, settled = resolve_windows(store, job, period or Period(), progress)
        total += result
    return total
