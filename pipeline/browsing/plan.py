"""Layout of the city's plan, in pixels: buildings and cameras where they are, and how many people went between them.

The template draws it as SVG. Without positions it is a schematic: a street is a row, its buildings stand side by side.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.city_file import City, Unit
from schemas.levels import Level

WIDTH = 1080.0
_MARGIN = 70.0
_LOWEST, _HIGHEST = 260.0, 640.0  # height of the plan
_ROW, _CELL = 120.0, 22.0  # of a schematic: height of a street; width of a camera
_LONGEST_BAR = 160.0  # of the scale
_THICKEST = 9.0  # of a way
#: With more buildings, their names would cover each other.
_MOST_NAMES = 40


@dataclass(frozen=True)
class Extent:
    """A part of the city's ground, meters: `left` east and `bottom` north of the fixed point of the city file."""

    left: float
    bottom: float
    width_m: float
    height_m: float


@dataclass(frozen=True)
class Spot:
    """A building or a camera on the plan."""

    code: str
    name: str
    x: float
    y: float
    top: float  # of a building: y of its northernmost camera, above which its name stands


@dataclass(frozen=True)
class Way:
    """People who went between two buildings, both directions; `there` of them from `a` to `b`, `back` from b to a."""

    a: Spot
    b: Spot
    there: int
    back: int
    width: float

    @property
    def bend(self) -> tuple[float, float]:
        """The control point of its curve: beside the middle, so that ways over a third building can be told apart."""
        dx, dy = self.b.x - self.a.x, self.b.y - self.a.y
        return (self.a.x + self.b.x) / 2 - dy * 0.12, (self.a.y + self.b.y) / 2 + dx * 0.12


@dataclass(frozen=True)
class Plan:
    width: float
    height: float
    buildings: list[Spot]
    cameras: list[Spot]
    ways: list[Way]  # the thinnest first
    is_schematic: bool
    left_out: int  # cameras without a position
    bar_m: float | None  # length of the scale's bar, meters; None: a schematic
    bar: float  # the same in pixels
    names: bool


def draw_plan(city: City, ways: Mapping[tuple[str, str], int], ground: Extent | None = None) -> Plan:
    """`ways`: people by (from, to), codes of buildings. `ground`: what the picture below the plan shows."""
    placed = [unit for unit in city.cameras() if unit.position is not None]
    is_schematic = len({unit.position for unit in placed}) < 2
    cameras, height, scale = _schematic(city) if is_schematic else _to_scale(placed, ground)
    bar_m = None if scale is None else _round_length(_LONGEST_BAR / scale)
    buildings = _buildings(city, cameras)
    return Plan(
        width=WIDTH,
        height=height,
        buildings=list(buildings.values()),
        cameras=cameras,
        ways=_ways(buildings, ways),
        is_schematic=is_schematic,
        left_out=len(city.cameras()) - len(cameras),
        bar_m=bar_m,
        bar=0.0 if bar_m is None or scale is None else round(bar_m * scale, 1),
        names=len(buildings) <= _MOST_NAMES,
    )


def _to_scale(placed: list[Unit], ground: Extent | None) -> tuple[list[Spot], float, float]:
    """Cameras by position, the plan's height, and the pixels of a meter."""
    at = [(unit, *unit.position) for unit in placed if unit.position is not None]
    if ground is not None:
        scale = WIDTH / ground.width_m
        left, top, height = ground.left, ground.bottom + ground.height_m, ground.height_m * scale
        x0 = y0 = 0.0
    else:
        left, right = min(x for _, x, _ in at), max(x for _, x, _ in at)
        bottom, top = min(y for *_, y in at), max(y for *_, y in at)
        room = WIDTH - 2 * _MARGIN
        scale = min(room / max(right - left, 1.0), (_HIGHEST - 2 * _MARGIN) / max(top - bottom, 1.0))
        height = max(_LOWEST, (top - bottom) * scale + 2 * _MARGIN)
        x0 = (WIDTH - (right - left) * scale) / 2
        y0 = (height - (top - bottom) * scale) / 2
    return [_spot(unit, x0 + (x - left) * scale, y0 + (top - y) * scale) for unit, x, y in at], height, scale


def _schematic(city: City) -> tuple[list[Spot], float, None]:
    streets: dict[str, list[Unit]] = defaultdict(list)
    for unit in city.cameras():
        streets[unit.code.rsplit("/", 2)[0]].append(unit)
    spots = []
    for row, (_, cameras) in enumerate(sorted(streets.items())):
        buildings = sorted({_building(camera) for camera in cameras})
        gap = (WIDTH - 2 * _MARGIN) / len(buildings)
        for camera in cameras:
            beside = [one.code for one in cameras if _building(one) == _building(camera)]
            step = min(_CELL, gap / (len(beside) + 1))
            middle = _MARGIN + gap * (buildings.index(_building(camera)) + 0.5)
            x = middle + (beside.index(camera.code) - (len(beside) - 1) / 2) * step
            spots.append(_spot(camera, x, _MARGIN + row * _ROW))
    return spots, max(len(streets) - 1, 0) * _ROW + 2 * _MARGIN, None


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _round_length(meters: float) -> float:
    """The longest of 1, 2, 5, 10, 20, ... meters that is no longer."""
    size: float = 10 ** math.floor(math.log10(meters))
    return max(size * step for step in (1, 2, 5) if size * step <= meters)


def _building(camera: Unit) -> str:
    return camera.code.rpartition("/")[0]


def _spot(unit: Unit, x: float, y: float, top: float | None = None) -> Spot:
    name = unit.name or unit.code.rpartition("/")[2]
    return Spot(unit.code, name, round(x, 1), round(y, 1), round(y if top is None else top, 1))


def _buildings(city: City, cameras: list[Spot]) -> dict[str, Spot]:
    """Each building in the middle of its cameras."""
    of: dict[str, list[Spot]] = defaultdict(list)
    for camera in cameras:
        of[camera.code.rpartition("/")[0]].append(camera)
    units = {unit.code: unit for unit in city.units if unit.level is Level.BUILDING}
    return {
        code: _spot(units[code], _mean([c.x for c in its]), _mean([c.y for c in its]), min(c.y for c in its))
        for code, its in sorted(of.items())
    }


def _ways(buildings: Mapping[str, Spot], people: Mapping[tuple[str, str], int]) -> list[Way]:
    pairs = {(min(pair), max(pair)) for pair in people if pair[0] in buildings and pair[1] in buildings}
    counts = {(a, b): (people.get((a, b), 0), people.get((b, a), 0)) for a, b in pairs}
    most = max((sum(both) for both in counts.values()), default=1)
    ways = [
        Way(buildings[a], buildings[b], there, back, round(max(1.0, _THICKEST * (there + back) / most), 1))
        for (a, b), (there, back) in counts.items()
    ]
    return sorted(ways, key=lambda way: (way.there + way.back, way.a.code, way.b.code))
