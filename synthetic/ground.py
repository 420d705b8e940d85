"""The ground plan of a simulated district: its units, cameras and walks, and the journeys of people through it.

Two parallel streets run east, each with buildings on its north side. The first camera of a building watches the
pavement at its door; the second watches its hall, or, where the two overlap, the same ground from another side. Meters
and seconds.
"""

import math
from dataclasses import dataclass

import numpy as np

from schemas.city_file import City, Unit, Walk
from schemas.errors import UsageError

#: A camera detects people within this distance of the point it looks at.
SEEN_WITHIN_M = 2.8
SLOWEST_M_S, FASTEST_M_S = 1.0, 1.7
#: Above every walking speed; the shortest walking times of the city file assume it.
BRISK_M_S = 2.2
_BETWEEN_STREETS_M, _BETWEEN_BUILDINGS_M = 140.0, 70.0
_STREETS = ("Mill Street", "Park Street")
_BUILDINGS = ("Plaza", "Library", "Market", "Station", "School", "Town Hall", "Clinic", "Museum", "Arcade", "Theatre")
_SITES = ("Plaza", "Market")

Point = tuple[float, float]


@dataclass(frozen=True)
class Spot:
    """A camera in the plan."""

    code: str
    at: Point  # the point on the ground that it looks at
    azimuth: float  # viewing direction, radians from east towards north
    clock_uncertainty_s: float
    clock_error_s: float  # its clock minus the true time; within the uncertainty


@dataclass(frozen=True)
class Building:
    code: str
    door: Point  # on the pavement
    hall: Point
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class Plan:
    city: City
    streets: tuple[tuple[Building, ...], ...]

    def spots(self) -> list[Spot]:
        return [spot for street in self.streets for building in street for spot in building.spots]


def lay_out(rng: np.random.Generator, cameras: int, timezone: str = "Europe/Berlin") -> Plan:
    """A district d1 with `cameras` cameras (2 to 64), two per building. Raises UsageError for other numbers."""
    if not 2 <= cameras <= 64:
        raise UsageError(f"a rendered city cannot have {cameras} cameras: give 2 to 64")
    buildings = math.ceil(cameras / 2)
    split = math.ceil(buildings / 2)
    streets: list[tuple[Building, ...]] = []
    units = [Unit(code="d1", name="Center")]
    for s, numbers in enumerate(filter(None, (range(split), range(split, buildings)))):
        code = f"d1/s{s + 1}"
        units.append(Unit(code=code, name=_STREETS[s]))
        row = []
        for i, number in enumerate(numbers):
            door = (i * _BETWEEN_BUILDINGS_M + float(rng.uniform(-8, 8)), s * _BETWEEN_STREETS_M + 1.0)
            hall = (door[0] + 10.0, door[1] + 15.0)
            overlapping = number == 0
            inside = (door[0] + 1.2, door[1] + 0.4) if overlapping else hall
            azimuth = float(rng.uniform(-math.pi, math.pi))
            azimuths = (azimuth, azimuth + float(rng.choice([-1, 1]) * rng.uniform(1.2, 2.2)))
            spots = []
            for c in range(min(2, cameras - 2 * number)):
                uncertainty = round(float(rng.uniform(0.2, 0.8)), 2)
                error = float(rng.uniform(-0.9, 0.9)) * uncertainty
                spots.append(Spot(f"{code}/b{i + 1}/c{c + 1}", (door, inside)[c], azimuths[c], uncertainty, error))
            row.append(Building(f"{code}/b{i + 1}", door, hall, tuple(spots)))
            units.extend(_units(row[-1], number, overlapping))
        streets.append(tuple(row))
    walks = _walks([(b.code, [spot.at for spot in b.spots]) for b in streets[0]])
    if len(streets) == 2:
        walks += _walks([(b.code, [spot.at for spot in b.spots]) for b in streets[1]])
        walks += _walks([(f"d1/s{s + 1}", [p.at for b in row for p in b.spots]) for s, row in enumerate(streets)])
    return Plan(City(timezone=timezone, units=tuple(units), walks=tuple(walks)), tuple(streets))


def _units(building: Building, number: int, overlapping: bool) -> list[Unit]:
    name = _BUILDINGS[number % len(_BUILDINGS)]
    round_ = number // len(_BUILDINGS)  # names are reused with a number
    title = f"{name} {round_ + 1}" if round_ else name
    units = [Unit(code=building.code, name=title, kind="site" if name in _SITES else "")]
    places = ("North side", "South side") if overlapping else ("Door", "Hall")
    codes = [spot.code for spot in building.spots]
    for spot, place in zip(building.spots, places, strict=False):
        units.append(
            Unit(
                code=spot.code,
                name=place,
                source=spot.code.replace("/", "-"),
                position=(round(spot.at[0], 2), round(spot.at[1], 2)),
                overlaps=tuple(code for code in codes if code != spot.code) if overlapping else (),
                clock_uncertainty_s=spot.clock_uncertainty_s,
            )
        )
    return units


def _walks(siblings: list[tuple[str, list[Point]]]) -> list[Walk]:
    """The shortest walking time between each two siblings, from the edge of one's views to the edge of the other's."""
    walks = []
    for i, (code, spots) in enumerate(siblings):
        for other, other_spots in siblings[i + 1 :]:
            meters = min(math.dist(a, b) for a in spots for b in other_spots) - 2 * SEEN_WITHIN_M
            shortest_s = math.floor(meters / BRISK_M_S)
            walks.append(Walk.model_validate({"from": code, "to": other, "shortest_s": shortest_s}))
    return walks


@dataclass(frozen=True)
class Journey:
    """One person's path: points, and the times at which the person is there. Equal points mean standing still."""

    times: tuple[float, ...]  # seconds from the start, ascending
    points: tuple[Point, ...]

    def at(self, times: np.ndarray) -> np.ndarray:
        """(n, 2) Positions at these times (n,), between the first and the last."""
        points = np.array(self.points)
        return np.stack([np.interp(times, self.times, points[:, axis]) for axis in (0, 1)], axis=-1)


class _Draft:
    """A journey in the making, extended from its last point."""

    def __init__(self, start_s: float, at: Point, speed_m_s: float) -> None:
        self.times, self.points, self.speed_m_s = [start_s], [at], speed_m_s

    def walk(self, *points: Point) -> None:
        for point in points:
            meters = math.dist(self.points[-1], point)
            if meters > 0:
                self.times.append(self.times[-1] + meters / self.speed_m_s)
                self.points.append(point)

    def stay(self, seconds: float) -> None:
        self.times.append(self.times[-1] + seconds)
        self.points.append(self.points[-1])

    def journey(self) -> Journey:
        return Journey(tuple(self.times), tuple(self.points))


def draw_journeys(rng: np.random.Generator, plan: Plan, duration_s: float) -> list[Journey]:
    """The journeys of one person: one, or two if the person leaves the district and comes back later.

    A journey passes along a street without a visit, or visits one to three buildings in one street or in both.
    """
    speed = float(rng.uniform(SLOWEST_M_S, FASTEST_M_S))
    start = float(rng.uniform(0, 0.55 * duration_s))
    street = int(rng.integers(len(plan.streets)))
    visits = int(rng.choice(4, p=(0.08, 0.24, 0.36, 0.32)))
    returns = visits > 1 and rng.random() < 0.35
    journeys: list[Journey] = []
    last: Building | None = None
    draft = _enter(rng, plan, street, start, speed)
    if not visits:
        start_x = draft.points[0][0]
        _along(draft, sum(_ends(plan, street)) - start_x, street * _BETWEEN_STREETS_M + float(rng.uniform(0.2, 1.8)))
        return [draft.journey()]
    for visit in range(visits):
        if visit and rng.random() < 0.4 and len(plan.streets) > 1:
            _change_street(rng, draft, plan, street)
            street = 1 - street
        if visit and returns:
            returns = False
            _leave(rng, draft, plan, street)
            journeys.append(draft.journey())
            draft = _Draft(draft.times[-1] + float(rng.uniform(150, 450)), draft.points[-1], speed)
        choices = [building for building in plan.streets[street] if building is not last]
        last = (choices or list(plan.streets[street]))[int(rng.integers(max(1, len(choices))))]
        _visit(rng, draft, last)
    _leave(rng, draft, plan, street)
    journeys.append(draft.journey())
    return journeys


def _pavement(rng: np.random.Generator, street: int) -> float:
    """The northing of a walk along a street: past the doors, or on the other side, which no camera watches."""
    return street * _BETWEEN_STREETS_M + float(rng.uniform(0.2, 1.8) if rng.random() < 0.5 else rng.uniform(-9, -7))


def _ends(plan: Plan, street: int) -> Point:
    """Eastings of a street's two ends."""
    doors = [building.door[0] for building in plan.streets[street]]
    return min(doors) - 40, max(doors) + 50


def _enter(rng: np.random.Generator, plan: Plan, street: int, start_s: float, speed: float) -> _Draft:
    return _Draft(start_s, (_ends(plan, street)[rng.integers(2)], _pavement(rng, street)), speed)


def _leave(rng: np.random.Generator, draft: _Draft, plan: Plan, street: int) -> None:
    _along(draft, _ends(plan, street)[rng.integers(2)], _pavement(rng, street))


def _along(draft: _Draft, east: float, north: float) -> None:
    """Walks to `east` on the pavement at `north`; crosses the street at the start, away from the doors."""
    x = draft.points[-1][0]
    clear = x + math.copysign(7.0, east - x)
    draft.walk((clear, draft.points[-1][1]), (clear + math.copysign(3.0, east - x), north), (east, north))


def _change_street(rng: np.random.Generator, draft: _Draft, plan: Plan, street: int) -> None:
    """Walks to the other street by the lane west of all buildings, or by the one east of them."""
    doors = [building.door[0] for row in plan.streets for building in row]
    lane = min(doors) - 30 if rng.random() < 0.5 else max(doors) + 40
    _along(draft, lane, _pavement(rng, street))
    draft.walk((lane, _pavement(rng, 1 - street)))


def _visit(rng: np.random.Generator, draft: _Draft, building: Building) -> None:
    """Walks in by the door and through the hall, stays, and leaves the same way or by a door that no camera sees."""
    east, north = building.door
    x = draft.points[-1][0]
    side = math.copysign(1.0, x - east)
    jitter = rng.uniform(-0.8, 0.8, (5, 2))
    _along(draft, east + side * 6, north + float(jitter[0, 1]))
    hall = building.hall
    inwards: list[Point] = [
        (east + 0.4 * float(jitter[1, 0]), north + 0.6 * float(jitter[1, 1])),
        (east + 1.0, north + 5.0),
        (hall[0] - 3.0 + float(jitter[2, 0]), hall[1] - 3.5),
        (hall[0] + float(jitter[3, 0]), hall[1] + float(jitter[3, 1])),
        (hall[0] + 6.0, hall[1] + 6.0),
    ]
    draft.walk(*inwards)
    draft.stay(float(rng.uniform(30, 200)))
    if rng.random() < 0.35:
        back = [(px + float(rng.uniform(-0.5, 0.5)), py + float(rng.uniform(-0.5, 0.5))) for px, py in inwards[-2::-1]]
        draft.walk(*back)
    else:
        draft.walk((hall[0] + 16.0, hall[1] + 6.0), (hall[0] + 16.0, north + float(rng.uniform(-0.8, 0.8))))
