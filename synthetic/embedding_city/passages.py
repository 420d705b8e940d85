"""Passages of people at cameras, and which of them are recorded."""

from dataclasses import dataclass

import numpy as np

from schemas.arrays import Bools, Floats, Ints
from synthetic.embedding_city.people import DAY_S, HOUR_S, Trips
from synthetic.embedding_city.settings import EmbeddingCitySettings
from synthetic.embedding_city.streets import ROW_KEY_M, Plan
from synthetic.seeds import generator

#: Probability that a camera over one pavement sees a person on the other.
_ACROSS = 0.3
#: Shorter passages are not recorded.
_MIN_PASSAGE_S = 0.15


@dataclass(frozen=True)
class Passages:
    """n passages of a block of people, by (person, start, camera). True times, seconds from the city's start."""

    person: Ints  # (n,)
    camera: Ints  # (n,)
    start_s: Floats  # (n,)
    end_s: Floats  # (n,)

    def take(self, rows: Ints | Bools) -> "Passages":
        return Passages(self.person[rows], self.camera[rows], self.start_s[rows], self.end_s[rows])


def all_passages(plan: Plan, trips: Trips) -> Passages:
    """All passages of people through cameras' views, recorded or not."""
    parts = [_indoors(plan, trips, inwards) for inwards in (False, True)]
    parts += [_in_the_street(plan, trips, leg) for leg in range(3)]
    trip, camera, begin_m, end_m = (np.concatenate(column) for column in zip(*parts, strict=True))
    speed, depart = trips.speed_m_s[trip], trips.depart_s[trip]
    found = Passages(trips.person[trip], camera, depart + begin_m / speed, depart + end_m / speed)
    found = found.take(found.end_s - found.start_s >= _MIN_PASSAGE_S)
    return found.take(np.lexsort((found.camera, found.start_s, found.person)))


#: Trip, camera, and meters walked on the trip at the beginning and at the end of the view.
_Part = tuple[Ints, Ints, Floats, Floats]


def _indoors(plan: Plan, trips: Trips, inwards: bool) -> _Part:
    """Cameras between a building's door and the goal (inwards) or the start of a trip."""
    spots = trips.goal if inwards else trips.start
    inside = np.flatnonzero(spots.place >= 0)
    first = plan.place_first[spots.place[inside]]
    trip, position = _expand(inside, first, plan.place_first[spots.place[inside] + 1] - first)
    camera = plan.place_cameras[position]
    passed = (spots.bits[trip] >> plan.along[camera]) & 1 == 1
    trip, camera = trip[passed], camera[passed]
    depth = plan.depth[camera]
    middle = trips.inwards_m[trip] + depth if inwards else spots.end[trip] - depth
    return trip, camera, middle - plan.half_view[camera], middle + plan.half_view[camera]


def _in_the_street(plan: Plan, trips: Trips, leg: int) -> _Part:
    """Cameras over the pavements of one row of each trip; a view ends where the person turns off."""
    row, one, other = trips.row[:, leg], trips.from_east[:, leg], trips.to_east[:, leg]
    west, east = np.minimum(one, other), np.maximum(one, other)
    first = np.searchsorted(plan.pavement_key, row * ROW_KEY_M + west)
    last = np.searchsorted(plan.pavement_key, row * ROW_KEY_M + east)
    trip, position = _expand(np.arange(len(row)), first, last - first)
    camera = plan.pavement[position]
    draw = trips.draws[trip, leg]
    same_side = (draw < 0.5) == (plan.side[camera] > 0)
    # A person on the other pavement is seen from some places, and there by all cameras.
    in_view = same_side | ((draw * 2_048 + plan.place[camera] * 0.618034) % 1 < _ACROSS)
    trip, camera = trip[in_view], camera[in_view]
    half = plan.half_view[camera]
    low, high = np.maximum(plan.east[camera] - half, west[trip]), np.minimum(plan.east[camera] + half, east[trip])
    eastwards = other[trip] >= one[trip]
    offset = trips.begin_m[trip, leg]
    begin = offset + np.where(eastwards, low - one[trip], one[trip] - high)
    end = offset + np.where(eastwards, high - one[trip], one[trip] - low)
    return trip, camera, begin, end


def _expand(owner: Ints, first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """For each owner i, the positions first[i] .. first[i] + count[i] - 1: (owner (m,), position (m,))."""
    before = np.cumsum(count) - count
    return np.repeat(owner, count), np.arange(int(count.sum())) + np.repeat(first - before, count)


def drop_outs(plan: Plan, settings: EmbeddingCitySettings) -> tuple[Floats, Floats]:
    """Start and end of each camera's drop-out of each day, (c, days), seconds from the city's start; inf if none."""
    rng = generator(settings.seed, "embedding city", 4)
    down, begin, length = rng.random((3, len(plan.camera_codes), settings.whole_days))
    start = (begin * 17 * HOUR_S) + np.arange(settings.whole_days) * DAY_S
    runs = down >= settings.drop_out_share
    start[runs] = np.inf
    return start, start + (1 + 3 * length) * HOUR_S


def recorded(passages: Passages, settings: EmbeddingCitySettings, down: tuple[Floats, Floats], missed: Floats) -> Bools:
    """(n,) Which passages become tracklets. down: see `drop_outs`. missed: (n,) uniform draws."""
    day = np.clip(passages.start_s // DAY_S, 0, settings.whole_days - 1).astype(np.int64)
    start, end = (side[passages.camera, day] for side in down)
    is_down = (passages.start_s < end) & (passages.end_s > start)
    kept: Bools = ~is_down & (passages.end_s < settings.days * DAY_S) & (missed >= settings.missed_share)
    return kept
