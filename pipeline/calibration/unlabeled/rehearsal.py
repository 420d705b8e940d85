"""A level's windows resolved in memory: what a resolve of these crops would compare, with nothing written.

A calibration is learned before the windows that it decides are resolved, so the pairs that it will see do not exist
yet. Here the same association runs on the same nodes, window by window, from tracklets that are grouped as cameras
group them. The result depends on the crops alone, not on what is stored about them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from uuid import UUID

import numpy as np

from pipeline.association.geometry import Geometry, unit_geometry
from pipeline.association.prototypes import prototypes_of_crops
from pipeline.association.transit import max_lookback_s, prior_times, unit_transit
from pipeline.registry import ModelRow
from pipeline.resolve.camera import read_crops
from pipeline.resolve.level import resolve_level
from pipeline.resolve.level_windows import window_inputs
from pipeline.resolve.memory import UnitMemory
from pipeline.resolve.rows import Identity, in_time_order
from pipeline.resolve.tracklets import CropColumns, group
from pipeline.resolve.window_nodes import LevelRun, Observer
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from schemas.association import Verdict
from schemas.calibration import LevelCalibration
from schemas.city_file import City
from schemas.keys import tracklet_key
from schemas.levels import level_of
from schemas.settings import AssociationSettings
from schemas.times import from_us, to_us, window_start

#: Versions of identities by the unit that they belong to and the window that wrote them.
Versions = Mapping[str, Mapping[datetime, Sequence[Identity]]]


@dataclass(frozen=True)
class Seen:
    """A tracklet: where and when."""

    camera: str
    first_us: int
    last_us: int


@dataclass(frozen=True)
class Tracklets:
    """The tracklets of a unit's cameras, made of the crops in a span of event time."""

    versions: Versions
    seen: Mapping[int, Seen]  # by tracklet id
    crops: Mapping[int, Sequence[int]]  # ids of the crops of each tracklet
    halves: np.ndarray  # (h, 2, D) mean features of the first and the second half of tracklets of several crops
    half_weights: np.ndarray  # (h, 2) sums of the qualities behind them


def read_tracklets(
    store: Store, core: ReIDCore, model: ModelRow, cameras: Sequence[str], start: datetime, before: datetime
) -> Tracklets:
    """The tracklets of the timed crops in [start, before), numbered by camera and time. Crops must be embedded."""
    settings = store.settings.association
    versions: dict[str, dict[datetime, list[Identity]]] = {}
    seen: dict[int, Seen] = {}
    members: dict[int, list[int]] = {}
    halves: list[np.ndarray] = []
    half_weights: list[tuple[float, float]] = []
    for camera in sorted(cameras):
        with store.begin() as connection:
            crops = _between(read_crops(connection, camera, start, core, model, settings, before), start, before)
        for rows in sorted(group(crops, round(settings.passage_gap_s * 1e6), core, None)):
            identity = _tracklet(camera, crops, rows, len(seen) + 1, settings)
            seen[identity.id] = Seen(camera, identity.first_seen_us, identity.last_seen_us)
            members[identity.id] = [crops.ids[row] for row in rows]
            window = window_start(from_us(identity.last_seen_us), settings.window_s)
            versions.setdefault(camera, {}).setdefault(window, []).append(identity)
            if len(rows) >= 2:
                parts = rows[: len(rows) // 2], rows[len(rows) // 2 :]
                means = [crops.quality[part] @ crops.features[part] / crops.quality[part].sum() for part in parts]
                halves.append(np.stack(means))
                half_weights.append((float(crops.quality[parts[0]].sum()), float(crops.quality[parts[1]].sum())))
    return Tracklets(
        versions,
        seen,
        members,
        np.stack(halves) if halves else np.empty((0, 2, core.card.dims)),
        np.array(half_weights).reshape(-1, 2),
    )


def _between(crops: CropColumns, start: datetime, before: datetime) -> CropColumns:
    low, high = to_us(start), to_us(before)
    kept = [row for row in range(len(crops.ids)) if crops.timed[row] and low <= crops.time_us[row] < high]
    return CropColumns(
        ids=[crops.ids[row] for row in kept],
        keys=[crops.keys[row] for row in kept],
        time_us=[crops.time_us[row] for row in kept],
        timed=[True] * len(kept),
        tracks=[crops.tracks[row] for row in kept],
        quality=crops.quality[kept],
        features=crops.features[kept],
    )


def _tracklet(
    camera: str, crops: CropColumns, rows: Sequence[int], number: int, settings: AssociationSettings
) -> Identity:
    first_us, last_us = crops.time_us[rows[0]], crops.time_us[rows[-1]]
    return Identity(
        id=number,
        key=tracklet_key(crops.keys[row] for row in rows),
        persistent_id=UUID(int=number),
        unit=camera,
        first_seen_us=first_us,
        last_seen_us=last_us,
        timed=True,
        crops=len(rows),
        retired=False,
        tracklets=(number,),
        spans=np.array([[0], [first_us], [last_us]]),
        prototypes=prototypes_of_crops(crops.features[rows], crops.quality[rows], settings.medoids).as_stored(),
    )


@dataclass(frozen=True)
class Rehearsed:
    """What a resolve of a unit would do."""

    versions: Mapping[datetime, Sequence[Identity]]
    joins: np.ndarray  # (j,) probabilities of the joins
    distances: np.ndarray  # (d,) of all decisions


class Rehearsal:
    """Resolves units of one level after the other in memory. `geometries` are kept from one pass to the next."""

    def __init__(self, city: City, core: ReIDCore, settings: AssociationSettings, seen: Mapping[int, Seen]) -> None:
        self._city, self._core, self._settings, self._seen = city, core, settings, seen
        self._geometries: dict[str, Geometry] = {}
        self._ids = count(len(seen) + 1)

    def geometry(self, unit: str) -> Geometry:
        if unit not in self._geometries:
            self._geometries[unit] = unit_geometry(self._city, unit, self._settings)
        return self._geometries[unit]

    def resolve(
        self, unit: str, below: Versions, calibration: LevelCalibration | None, observe: Observer | None = None
    ) -> "Rehearsed":
        """The versions that each window of the unit would write, and its joins. below: versions of its children."""
        geometry = self.geometry(unit)
        numbers = {code: number for number, code in enumerate(geometry.cameras)}
        times = None if calibration is None else calibration.transit
        lookback_s = max_lookback_s(self._settings.horizon_s(level_of(unit)))
        memory = UnitMemory(unit, 0, numbers, self._settings.horizon_s(level_of(unit)))
        run = LevelRun(
            unit,
            geometry,
            self._core,
            calibration,
            unit_transit(times or prior_times(lookback_s), geometry.children),
            self._settings,
            lambda: next(self._ids),
            lambda identities: memory.members(None, identities),
            _no_free_ids,
            observe,
        )
        windows: dict[datetime, list[Identity]] = {}
        for child in geometry.children:
            for window, versions in below.get(child, {}).items():
                windows.setdefault(window, []).extend(self._placed(version, numbers) for version in versions)
        written: dict[datetime, list[Identity]] = {}
        joins: list[float] = []
        distances: list[float] = []
        for window in sorted(windows):
            children = sorted(windows[window], key=lambda child: child.key)
            found = resolve_level(run, window_inputs(None, memory, window, children))
            memory.add(found.identities)
            written[window] = [identity.as_stored(unit) for identity in found.identities]
            joins += [one.probability for one in found.decisions if one.verdict == Verdict.JOIN and one.probability]
            distances += [one.distance for one in found.decisions]
        return Rehearsed(written, np.array(joins), np.array(distances))

    def _placed(self, identity: Identity, numbers: Mapping[str, int]) -> Identity:
        """The identity with its tracklets' camera numbers in the unit that compares it."""
        rows = [
            (numbers[seen.camera], seen.first_us, seen.last_us)
            for seen in map(self._seen.__getitem__, identity.tracklets)
        ]
        spans = in_time_order(np.array(rows, np.int64).reshape(-1, 3).T)
        values = {name: getattr(identity, name) for name in Identity.__dataclass_fields__}
        return Identity(**values | {"spans": spans})


def _no_free_ids(_: Iterable[UUID]) -> Mapping[UUID, Sequence[UUID]]:
    return {}


def newest(versions: Mapping[datetime, Sequence[Identity]]) -> list[Identity]:
    """The last version of each identity that was not retired."""
    last = {version.persistent_id: version for window in sorted(versions) for version in versions[window]}
    return [version for version in last.values() if not version.retired]
