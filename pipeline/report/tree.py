"""Layout of the picture of the city's tree, in pixels. The template draws it as SVG."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.identities import Tracklet
from pipeline.report.unit_counts import UnitCounts
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
#: Most units in the last column. A larger city is drawn down to a higher level only; the table has all units.
_MOST_ROWS = 24
_BINS = 36  # of the whole time
_HIGHEST = 120.0  # height of the busiest bin
_FOOT = 26.0  # below the bins, for their times


@dataclass(frozen=True)
class Bin:
    """The column of one part of the whole time; its height is the number of tracklets that began in it."""

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
    incoming: int  # number of its children's identities
    bar: float  # width of its identities; at each level the largest number fills a cell
    incoming_bar: float  # width of `incoming`
    activity: list[Bin]  # empty if there is no room
    foot: float  # y of their base line

    def title(self, name: str) -> str:
        """The unit's name, cut to the room in its cell."""
        room = int((self.width - 2 * INDENT - 36) / 8.6)
        return name if len(name) <= room else name[: room - 1] + "…"


@dataclass(frozen=True)
class Tree:
    height: float
    cells: list[Cell]
    drawn_to: Level


def draw_tree(units: Sequence[UnitCounts], tracklets: Sequence[Tracklet]) -> Tree:
    """District, streets, buildings and cameras from left to right; each unit is as tall as its children together.

    `units`: each before its children. Cells with room show when their tracklets began.
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
    by_camera = _times(tracklets)
    counts = {unit.code: _within(unit.code, by_camera) for unit in drawn if heights[unit.code] >= 2 * _ROW}
    busiest = {
        level: max([1, *(count for unit in by_level[level] for count in counts.get(unit.code, {}).values())])
        for level in UPWARD
    }
    cells = []
    for unit in drawn:
        left, width = _COLUMNS[unit.level]
        if unit.level is last:
            width = WIDTH - left
        room = width - 2 * INDENT
        highest = min(heights[unit.code] - _ROW - _FOOT - _GAP, _HIGHEST)
        foot = tops[unit.code] + _ROW + _GAP + highest  # near the name even if the cell is tall
        activity = []
        for number, count in sorted(counts.get(unit.code, {}).items()):
            height = count / busiest[unit.level] * highest
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
    """Tops and heights by code: children below each other, a parent as tall as its children together."""
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


def _times(tracklets: Sequence[Tracklet]) -> dict[str, Counter[int]]:
    """For each camera the number of tracklets that began in each bin of the whole time."""
    timed = [(tracklet.camera, to_us(tracklet.first_seen)) for tracklet in tracklets if tracklet.timed]
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
