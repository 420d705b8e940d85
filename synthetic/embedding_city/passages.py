"""Who passes before which camera when, and which of it the cameras make something of."""

from dataclasses import dataclass

import numpy as np

from schemas.arrays import Bools, Floats, Ints
from synthetic.embedding_city.people import DAY_S, HOUR_S, Ways
from synthetic.embedding_city.settings import EmbeddingCitySettings
from synthetic.embedding_city.streets import ROW_KEY_M, Plan
from synthetic.seeds import generator

#: Chance that a camera over one pavement has someone on the other in its view.
_ACROSS = 0.3
#: Shorter passages are not seen.
_SHORTEST_S = 0.15


@dataclass(frozen=True)
class Passages:
    """n passages of a block of people, by (person, start, camera). True times, seconds from the start."""

    person: Ints  # (n,)
    camera: Ints  # (n,)
    start_s: Floats  # (n,)
    end_s: Floats  # (n,)

    def take(self, rows: Ints | Bools) -> "Passages":
        return Passages(self.person[rows], self.camera[rows], self.start_s[rows], self.end_s[rows])


def all_passages(plan: Plan, ways: Ways) -> Passages:
    """Every time that someone walks through a camera's view, seen or not."""
    parts = [_indoors(plan, ways, inwards) for inwards in (False, True)]
    parts += [_in_the_street(plan, ways, leg) for leg in range(3)]
    way, camera, begin_m, end_m = (np.concatenate(column) for column in zip(*parts, strict=True))
    speed, depart = ways.speed_m_s[way], ways.depart_s[way]
    found = Passages(ways.person[way], camera, depart + begin_m / speed, depart + end_m / speed)
    found = found.take(found.end_s - found.start_s >= _SHORTEST_S)
    return found.take(np.lexsort((found.camera, found.start_s, found.person)))


_Part = tuple[Ints, Ints, Floats, Floats]  # way, camera, way walked at the view's beginning and at its end


def _indoors(plan: Plan, ways: Ways, inwards: bool) -> _Part:
    """Cameras between a building's door and the place that someone comes from or goes to."""
    spots = ways.goal if inwards else ways.start
    inside = np.flatnonzero(spots.place >= 0)
    first = plan.place_first[spots.place[inside]]
    way, position = _expand(inside, first, plan.place_first[spots.place[inside] + 1] - first)
    camera = plan.place_cameras[position]
    on_the_way = (spots.bits[way] >> plan.along[camera]) & 1 == 1
    way, camera = way[on_the_way], camera[on_the_way]
    depth = plan.depth[camera]
    middle = ways.inwards_m[way] + depth if inwards else spots.end[way] - depth
    return way, camera, middle - plan.half_view[camera], middle + plan.half_view[camera]


def _in_the_street(plan: Plan, ways: Ways, leg: int) -> _Part:
    """Cameras over the pavements of one row of each way; a view ends where someone turns off."""
    row, one, other = ways.row[:, leg], ways.from_east[:, leg], ways.to_east[:, leg]
    west, east = np.minimum(one, other), np.maximum(one, other)
    first = np.searchsorted(plan.pavement_key, row * ROW_KEY_M + west)
    last = np.searchsorted(plan.pavement_key, row * ROW_KEY_M + east)
    way, position = _expand(np.arange(len(row)), first, last - first)
    camera = plan.pavement[position]
    same_side = (ways.draws[way, leg] < 0.5) == (plan.side[camera] > 0)
    # Whoever walks across the street is seen by some cameras, and by all that see the same ground.
    in_view = same_side | ((ways.draws[way, leg] * 2_048 + plan.place[camera] * 0.618034) % 1 < _ACROSS)
    way, camera = way[in_view], camera[in_view]
    half = plan.half_view[camera]
    low, high = np.maximum(plan.east[camera] - half, west[way]), np.minimum(plan.east[camera] + half, east[way])
    eastwards = other[way] >= one[way]
    offset = ways.begin_m[way, leg]
    begin = offset + np.where(eastwards, low - one[way], one[way] - high)
    end = offset + np.where(eastwards, high - one[way], one[way] - low)
    return way, camera, begin, end


def _expand(owner: Ints, first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """For each owner i its positions first[i] ... first[i] + count[i] - 1."""
    before = np.cumsum(count) - count
    return np.repeat(owner, count), np.arange(int(count.sum())) + np.repeat(first - before, count)


def drop_outs(plan: Plan, settings: EmbeddingCitySettings) -> tuple[Floats, Floats]:
    """From when to when each camera is down each day, (c, days) seconds from the start; infinite where it runs."""
    rng = generator(settings.seed, "embedding city", 4)
    down, begin, length = rng.random((3, len(plan.camera_codes), settings.whole_days))
    start = (begin * 17 * HOUR_S) + np.arange(settings.whole_days) * DAY_S
    runs = down >= settings.drop_out_share
    start[runs] = np.inf
    return start, start + (1 + 3 * length) * HOUR_S


def recorded(passages: Passages, settings: EmbeddingCitySettings, down: tuple[Floats, Floats], missed: Floats) -> Bools:
    """(n,) Which passages become tracklets. missed: (n,) uniform."""
    day = np.clip(passages.start_s // DAY_S, 0, settings.whole_days - 1).astype(np.int64)
    start, end = (side[passages.camera, day] for side in down)
    dark = (passages.start_s < end) & (passages.end_s > start)
    kept: Bools = ~dark & (passages.end_s < settings.days * DAY_S) & (missed >= settings.missed_share)
    return kept
