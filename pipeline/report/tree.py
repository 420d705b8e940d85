"""Where things go in the picture of the city's tree. Only geometry, in pixels; the template makes SVG of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.read import Sighting, UnitCounts
from schemas.levels import UPWARD, Level, is_within
from schemas.times import to_us

WIDTH = 1080.0
INDENT = 14.0
_DOWNWARD = tuple(reversed(UPWARD))
_COLUMNS: Mapping[Level, tuple[float, float]] = {  # left, width
    Level.DISTRICT: (0.0, 230.0),
    Level.STREET: (242.0, 250.0),
    Level.BUILDING: (504.0, 276.0),
    Level.CAMERA: (792.0, 288.0),
}
_ROW = 80.0
_GAP = 8.0
#: Units of the last column that are drawn; a larger city is drawn to a higher level, and its table says the rest.
_MOST_ROWS = 24
_BINS = 36
_HIGHEST = 120.0  # of the busiest bin
_FOOT = 26.0  # below the bins, where their times stand


@dataclass(frozen=True)
class Bin:
    """Sightings of a part of the whole time, as a column."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Cell:
    unit: UnitCounts
    x: float
    y: float
    width: float
    height: float
    incoming: int  # identities of its children
    bar: float  # how wide its identities are drawn; the fullest unit of a level fills its cell
    incoming_bar: float
    activity: list[Bin]  # empty where there is no room
    foot: float  # where they stand

    def title(self, name: str) -> str:
        """As much of the unit's name as its cell has room for."""
        room = int((self.width - 2 * INDENT - 36) / 8.6)
        return name if len(name) <= room else name[: room - 1] + "…"


@dataclass(frozen=True)
class Tree:
    height: float
    cells: list[Cell]
    drawn_to: Level


def draw_tree(units: Sequence[UnitCounts], sightings: Sequence[Sighting]) -> Tree:
    """District, streets, buildings, cameras from left to right; each unit as tall as what lies below it.

    Cells with room show when their sightings were.
    """
    by_level = {level: [unit for unit in units if unit.level is level] for level in UPWARD}
    last = next((level for level in UPWARD if 0 < len(by_level[level]) <= _MOST_ROWS), Level.DISTRICT)
    drawn = [unit for unit in units if _DOWNWARD.index(unit.level) <= _DOWNWARD.index(last)]
    tops, heights = _stack(drawn)
    incoming = {unit.code: sum(child.identities for child in units if child.parent == unit.code) for unit in drawn}
    fullest = {
        level: max([1, *(max(unit.identities, incoming.get(unit.code, 0)) for unit in by_level[level])])
        for level in UPWARD
    }
    by_camera = _times(sightings)
    counts = {unit.code: _within(unit.code, by_camera) for unit in drawn if heights[unit.code] >= 2 * _ROW}
    busiest = {
        level: max([1, *(many for unit in by_level[level] for many in counts.get(unit.code, {}).values())])
        for level in UPWARD
    }
    cells = []
    for unit in drawn:
        left, width = _COLUMNS[unit.level]
        if unit.level is last:
            width = WIDTH - left
        room = width - 2 * INDENT
        highest = min(heights[unit.code] - _ROW - _FOOT - _GAP, _HIGHEST)
        foot = tops[unit.code] + _ROW + _GAP + highest  # near the name, however tall the cell
        activity = []
        for number, many in sorted(counts.get(unit.code, {}).items()):
            height = many / busiest[unit.level] * highest
            activity.append(Bin(left + INDENT + number * room / _BINS, foot - height, room / _BINS - 1, height))
        cells.append(
            Cell(
                unit,
                left,
                tops[unit.code],
                width,
                heights[unit.code],
                incoming[unit.code],
                room * unit.identities / fullest[unit.level],
                room * incoming[unit.code] / fullest[unit.level],
                activity,
                foot,
            )
        )
    return Tree(heights[units[0].code], cells, last)


def _stack(units: Sequence[UnitCounts]) -> tuple[dict[str, float], dict[str, float]]:
    """Tops and heights of units that come parent first: children below each other, a parent as tall as its children."""
    children: dict[str, list[str]] = {unit.code: [] for unit in units}
    for unit in units:
        if unit.parent in children:
            children[unit.parent].append(unit.code)
    heights: dict[str, float] = {}
    for unit in reversed(units):
        below = [heights[child] for child in children[unit.code]]
        heights[unit.code] = sum(below) + _GAP * (len(below) - 1) if below else _ROW
    tops = {units[0].code: 0.0}
    for unit in units:
        at = tops[unit.code]
        for child in children[unit.code]:
            tops[child] = at
            at += heights[child] + _GAP
    return tops, heights


def _times(sightings: Sequence[Sighting]) -> dict[str, Counter[int]]:
    """How many sightings of each camera began in which of the bins of the whole time."""
    timed = [(sighting.camera, to_us(sighting.first_seen)) for sighting in sightings if sighting.timed]
    start = min((us for _, us in timed), default=0)
    length = max((us for _, us in timed), default=0) - start + 1
    bins: dict[str, Counter[int]] = {}
    for camera, us in timed:
        bins.setdefault(camera, Counter())[(us - start) * _BINS // length] += 1
    return bins


def _within(unit: str, by_camera: Mapping[str, Counter[int]]) -> Counter[int]:
    total: Counter[int] = Counter()
    for camera, bins in by_camera.items():
        if is_within(camera, unit):
            total.update(bins)
    return total
