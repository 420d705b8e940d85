"""The people of an embedding-level city and their trips.

A resident has a home, a place of work and shops near both, and goes out in the morning, at noon and in the evening. A
commuter's place of work is a stop in the street, where they leave for hours. A visitor comes once. Trips follow the
grid without detours. Each person has a random generator, so that their trips do not depend on the other people of a
block. Meters, and seconds from the city's start.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.arrays import Bools, Floats, Ints
from synthetic.embedding_city.settings import EmbeddingCitySettings
from synthetic.embedding_city.streets import BETWEEN_LANES_M, BETWEEN_ROWS_M, ROW_KEY_M, Plan
from synthetic.seeds import generator

SLOWEST_M_S, FASTEST_M_S = 1.0, 1.7
HOUR_S, DAY_S = 3_600.0, 86_400.0
#: Probability that a person passes a camera behind the door on the way to their place in the building.
_ON_THE_WAY = 0.65
#: A person's places.
_HOME, _WORK, _LUNCH, _SHOP, _LEISURE, _PLACES = 0, 1, 2, 3, 4, 5
#: Time slots of a day, each with at most one trip.
_SLOTS = 7
#: Mean distances from home to work, to other places, and to a stop in the street.
_WORK_M, _NEAR_M, _STOP_M = 400.0, 200.0, 150.0


@dataclass(frozen=True)
class Spots:
    """Starts or goals of n trips: inside a building, or in the street."""

    row: Ints  # (n,)
    east: Floats  # (n,)
    end: Floats  # (n,) depth inside the building; 0 in the street
    place: Ints  # (n,) the building; -1 in the street
    bits: Ints  # (n,) bit i: whether the person passes view i of the building

    def take(self, rows: Ints | Bools) -> "Spots":
        return Spots(self.row[rows], self.east[rows], self.end[rows], self.place[rows], self.bits[rows])


def _where(condition: Bools, one: Spots, other: Spots) -> Spots:
    pick = np.where
    return Spots(
        pick(condition, one.row, other.row),
        pick(condition, one.east, other.east),
        pick(condition, one.end, other.end),
        pick(condition, one.place, other.place),
        pick(condition, one.bits, other.bits),
    )


@dataclass(frozen=True)
class Trips:
    """n trips: out of a place, along up to three rows (with lanes between them), into a place."""

    person: Ints  # (n,)
    depart_s: Floats  # (n,)
    speed_m_s: Floats  # (n,)
    start: Spots
    goal: Spots
    row: Ints  # (n, 3)
    from_east: Floats  # (n, 3)
    to_east: Floats  # (n, 3)
    begin_m: Floats  # (n, 3) meters walked until the row is entered
    inwards_m: Floats  # (n,) meters walked until the goal's door is reached
    draws: Floats  # (n, 3) uniform; choose the pavement of each row

    @property
    def arrive_s(self) -> Floats:
        arrive: Floats = self.depart_s + (self.inwards_m + self.goal.end) / self.speed_m_s
        return arrive


def concatenated(parts: list[Trips]) -> Trips:

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    def spots(name: str) -> Spots:
        columns = [getattr(part, name) for part in parts]
        fields = ("row", "east", "end", "place", "bits")
        return Spots(*(np.concatenate([getattr(spots, field) for spots in columns]) for field in fields))

    return Trips(
        column("person"),
        column("depart_s"),
        column("speed_m_s"),
        spots("start"),
        spots("goal"),
        *(column(name) for name in ("row", "from_east", "to_east", "begin_m", "inwards_m", "draws")),
    )


def shortest_trips(
    plan: Plan, person: Ints, depart_s: Floats, speed_m_s: Floats, start: Spots, goal: Spots, draws: Floats
) -> Trips:
    """A shortest trip on the grid for each person. draws: (n, 6) uniform; three choose among the shortest trips."""
    most = plan.district_lanes[district_of_row(plan, start.row)]
    a, b = start.east / BETWEEN_LANES_M, goal.east / BETWEEN_LANES_M
    low, high = np.ceil(np.minimum(a, b)), np.floor(np.maximum(a, b))
    between = low <= high
    outside = np.where(  # no lane between the two: the nearer one beside them
        (np.minimum(a, b) - high <= low - np.maximum(a, b)), high, low
    ).clip(0, most)
    picks = np.sort(draws[:, :2], axis=1)
    lanes = low[:, None] + np.floor(picks * np.maximum(high - low + 1, 1)[:, None])
    lanes = np.where(between[:, None], lanes, outside[:, None]) * BETWEEN_LANES_M
    lanes = np.where((a > b)[:, None], lanes[:, ::-1], lanes)
    same = start.row == goal.row
    down, up = np.minimum(start.row, goal.row), np.maximum(start.row, goal.row)
    middle = down + np.floor(draws[:, 2] * (up - down + 1)).astype(np.int64)
    first = np.where(same, goal.east, lanes[:, 0])
    second = np.where(same, goal.east, lanes[:, 1])
    from_east = np.stack([start.east, first, second], axis=1)
    to_east = np.stack([first, second, goal.east], axis=1)
    row = np.stack([start.row, middle, goal.row], axis=1)
    along = np.abs(to_east - from_east)
    across = np.abs(np.diff(plan.row_north[row], axis=1))  # (n, 2)
    begin = np.stack(
        [start.end, start.end + along[:, 0] + across[:, 0], start.end + along[:, :2].sum(1) + across.sum(1)], axis=1
    )
    return Trips(
        person,
        depart_s,
        speed_m_s,
        start,
        goal,
        row,
        from_east,
        to_east,
        begin,
        begin[:, 2] + along[:, 2],
        draws[:, 3:],
    )


def district_of_row(plan: Plan, row: Ints) -> Ints:
    district: Ints = np.searchsorted(plan.district_first, row, side="right") - 1
    return district


def trips_of(plan: Plan, settings: EmbeddingCitySettings, people: range) -> Trips:
    """All trips of these people on all days; those of each person in time order."""
    days, count = settings.whole_days, len(people)
    about = np.empty((count, 32))
    draws = np.empty((count, days, _SLOTS, 12))
    for i, person in enumerate(people):
        rng = generator(settings.seed, "embedding city", 1, person)
        rng.random(out=about[i])
        rng.random(out=draws[i])
    numbers = np.arange(people.start, people.stop)
    visitor = about[:, 0] < settings.visitor_share
    commuter = (about[:, 1] < settings.commuter_share) & ~visitor
    returns = (about[:, 2] < settings.reentry_share) & ~visitor
    pace = SLOWEST_M_S + (FASTEST_M_S - SLOWEST_M_S) * about[:, 3:6].mean(axis=1) * 0.9
    places = _places_of(plan, settings.population, numbers, visitor, commuter, about[:, 6:])
    day_of_visit = np.floor(about[:, 31] * settings.days)
    at = np.zeros(count, dtype=np.int64)  # the place where each person is
    arrived_s = np.zeros(count)  # and since when
    found: list[Trips] = []
    for day in range(days):
        for slot in range(_SLOTS):
            u = draws[:, day, slot]
            goal, planned_s, stay_s = _next_goal(slot, u, at, visitor, commuter, returns, settings.days - day)
            goes = (goal != at) & (~visitor | (day_of_visit == day))
            depart = np.maximum(planned_s + day * DAY_S, arrived_s + stay_s)
            rows = np.flatnonzero(goes & (depart < settings.days * DAY_S))
            speed = np.clip(pace[rows] + 0.1 * (u[rows, 5] - 0.5), SLOWEST_M_S, FASTEST_M_S)
            start, end = (_pick(places, which, rows) for which in (at, goal))
            trips = shortest_trips(plan, numbers[rows], depart[rows], speed, start, end, u[rows, 6:])
            at[rows], arrived_s[rows] = goal[rows], trips.arrive_s
            found.append(trips)
    return concatenated(found)


def _pick(places: list[Spots], which: Ints, rows: Ints) -> Spots:
    """The place numbered `which` of each person in `rows`."""
    spots = places[0].take(rows)
    for i in range(1, len(places)):
        spots = _where(which[rows] == i, places[i].take(rows), spots)
    return spots


def _next_goal(
    slot: int, u: Floats, at: Ints, visitor: Bools, commuter: Bools, returns: Bools, days_left: float
) -> tuple[Ints, Floats, Floats]:
    """The goal in this slot of the day (the current place: no trip), its planned time and the least stay before it.

    Times are seconds from 06:00. u: (n, 12) uniform draws. at: (n,) current places.
    """
    stay = at
    chance = u[:, 0]
    normal = (u[:, 1] + u[:, 2] + u[:, 3] - 1.5) * 2  # standard deviation 1, within +-3
    early, short_s = np.full(len(at), 0.0), 60 + 240 * u[:, 4]  # early: as soon as the stay is over
    if slot == 0:  # morning: to work, or home after a night there; visitors arrive at any time
        goal = np.where(chance < 0.9, np.where(at == _WORK, _HOME, _WORK), stay)
        when = (1.75 + 0.55 * normal) * HOUR_S
        arrival = u[:, 1] * max(min(13.0, days_left * 24 - 0.5), 0.0) * HOUR_S
        return np.where(visitor, _WORK, goal), np.where(visitor, arrival, when), short_s
    if slot == 1:  # noon: to lunch; visitors to their second place
        goal = np.where((at == _WORK) & ~commuter & returns & (chance < 0.8), _LUNCH, stay)
        when = (6.3 + 0.4 * normal) * HOUR_S
        return np.where(visitor, _LUNCH, goal), np.where(visitor, early, when), _visit_s(visitor, u, short_s)
    if slot == 2:  # back to work; some visitors to a third place
        visitor_goal = np.where(chance < 0.6, _SHOP, stay)
        goal = np.where(at == _LUNCH, _WORK, stay)
        return np.where(visitor, visitor_goal, goal), early, _visit_s(visitor, u, 1_200)
    if slot == 3:  # afternoon: to a shop; visitors leave
        goal = np.where(returns & (chance < 0.7), _SHOP, stay)
        when = (11 + 0.9 * normal) * HOUR_S
        return np.where(visitor, _HOME, goal), np.where(visitor, early, when), _visit_s(visitor, u, short_s)
    residents = ~visitor & returns
    if slot == 4:  # home
        when = np.where(at == _SHOP, early, (11 + 0.9 * normal) * HOUR_S)
        return np.where(residents, _HOME, stay), when, 300 + 1_500 * u[:, 4]
    if slot == 5:  # evening: out
        return np.where(residents & (chance < 0.6), _LEISURE, stay), (13.5 + 0.7 * normal) * HOUR_S, short_s
    return np.where(residents, _HOME, stay), early, (0.5 + 2 * u[:, 4]) * HOUR_S  # and home again


def _visit_s(visitor: Bools, u: Floats, otherwise: Floats | float) -> Floats:
    """Duration of stays: ten minutes to an hour for visitors."""
    stay: Floats = np.where(visitor, 600 + 3_000 * u[:, 4], otherwise)
    return stay


def _places_of(plan: Plan, population: int, people: Ints, visitor: Bools, commuter: Bools, u: Floats) -> list[Spots]:
    """The places of all people, by number of the place. u: (n, 25) uniform draws."""
    district = people * len(plan.district_lanes) // population
    first, last = (plan.row_first[plan.district_first[district + i]] for i in (0, 1))
    home = _inside(plan, first + np.floor(u[:, 0] * (last - first)).astype(np.int64), u[:, 1])
    work = _near(plan, home, _WORK_M, u[:, 2:5])
    places = [home, work, _near(plan, work, _NEAR_M, u[:, 5:8]), _near(plan, home, _NEAR_M, u[:, 8:11])]
    places.append(_near(plan, home, 2 * _NEAR_M, u[:, 11:14]))
    stop = _in_the_street(plan, home, u[:, 14:17])
    places[_HOME] = _where(visitor, stop, home)
    places[_WORK] = _where(visitor, home, _where(commuter, stop, work))
    places[_LUNCH] = _where(visitor, work, places[_LUNCH])
    assert len(places) == _PLACES
    return places


def _inside(plan: Plan, building: Ints, u: Floats) -> Spots:
    """Spots in these buildings (n,). u: (n,) uniform draws."""
    place = plan.buildings[building]
    bits = np.zeros(len(place), dtype=np.int64)
    for i in range(5):  # five draws from the digits of one
        u = u * 64 % 1
        bits |= (u < _ON_THE_WAY).astype(np.int64) << i
    return Spots(plan.place_row[place], plan.place_east[place], plan.place_end[place], place, bits | 1)


def _around(plan: Plan, spots: Spots, mean_m: float, u: Floats) -> tuple[Ints, Floats]:
    """A row and an easting at an exponentially distributed distance, inside the district. u: (n, 2) uniform draws."""
    distance, angle = -mean_m * np.log1p(-u[:, 0]), 2 * np.pi * u[:, 1]
    district = district_of_row(plan, spots.row)
    first, last = plan.district_first[district], plan.district_first[district + 1] - 1
    number = _reflected(spots.row - first + np.rint(distance * np.sin(angle) / BETWEEN_ROWS_M), last - first)
    row: Ints = first + number.astype(np.int64)
    east = _reflected(spots.east + distance * np.cos(angle), plan.district_lanes[district] * BETWEEN_LANES_M)
    end = plan.place_east[plan.buildings[plan.row_first[row + 1] - 1]]  # of a shorter row
    return np.where((east > end + BETWEEN_LANES_M) & (row > first), row - 1, row), east


def _reflected(value: NDArray[Any], most: NDArray[Any]) -> Floats:
    """Values beyond 0 or `most` are reflected there, so that people do not accumulate at the edges."""
    reflected: Floats = np.clip(most - np.abs(most - np.abs(value)), 0, most)
    return reflected


def _near(plan: Plan, spots: Spots, mean_m: float, u: Floats) -> Spots:
    """Spots in the buildings nearest to random points around. u: (n, 3) uniform draws."""
    row, east = _around(plan, spots, mean_m, u)
    above = np.searchsorted(plan.building_key, row * ROW_KEY_M + east)
    low, high = (np.clip(above + i, plan.row_first[row], plan.row_first[row + 1] - 1) for i in (-1, 0))
    gap = [np.abs(plan.place_east[plan.buildings[i]] - east) for i in (low, high)]
    return _inside(plan, np.where(gap[0] <= gap[1], low, high), u[:, 2])


def _in_the_street(plan: Plan, spots: Spots, u: Floats) -> Spots:
    """Random stops in the street around. u: (n, 3) uniform draws."""
    row, east = _around(plan, spots, _STOP_M, u)
    zeros = np.zeros(len(row), dtype=np.int64)
    return replace(spots, row=row, east=east, end=np.zeros(len(row)), place=zeros - 1, bits=zeros)
