"""The ground plan of an embedding-level city: its streets, the places along them, and the views of their cameras.

A district is a grid. Its rows run east, `BETWEEN_ROWS_M` apart, and are divided into stretches of `STRETCH_M`, which
are the units of level street; lanes without cameras connect the rows every `BETWEEN_LANES_M`. Along a stretch there are
sites, whose cameras watch the pavement, and buildings, whose cameras watch the path from the door inwards. The density
of cameras is the same at every size. Meters.
"""

import math
from dataclasses import dataclass

import numpy as np

from schemas.arrays import Floats, Ints
from schemas.city_file import City, Unit, Walk
from synthetic.embedding_city.settings import CAMERAS_PER_STREET, EmbeddingCitySettings
from synthetic.seeds import generator

STRETCH_M, BETWEEN_LANES_M, BETWEEN_ROWS_M = 200.0, 100.0, 110.0
#: Largest half length of a camera's view along a path.
HALF_VIEW_M = 1.8
#: Above every walking speed; the shortest walking times of the city file assume it.
BRISK_M_S = 2.0
_MIN_HALF_VIEW_M = 1.1
_PAVEMENT_M = 4.0  # from the middle of the street to a camera over the pavement
_DOOR_M, _INWARDS_M = 6.0, 9.0  # from the middle of the street to the door's camera, and from one camera to the next
_APART_M = 4.5  # between the centers of separate views: more than two half views
#: Fewest and most cameras of a street.
_STREET_SIZES = (12, 20)
#: Share of buildings among the places.
_BUILDING_SHARE = 0.55
#: Probabilities of 1, 2, ... cameras.
_BUILDING_SIZES, _SITE_SIZES = (0.0, 0.35, 0.3, 0.2, 0.15), (0.5, 0.35, 0.15)
#: Offset between the keys of two rows in `Plan.pavement_key`; longer than any row.
ROW_KEY_M = 1e7


@dataclass(frozen=True)
class Plan:
    """The city as columns. Cameras are sorted by code; buildings and sites are both places."""

    city: City
    camera_codes: tuple[str, ...]
    # c cameras
    place: Ints  # (c,)
    row: Ints  # (c,) numbered over all districts
    east: Floats  # (c,) along its row; of the door for a camera indoors
    depth: Floats  # (c,) from the middle of the street inwards; 0 on the pavement
    side: Ints  # (c,) +1 north, -1 south: side of the pavement that it watches, or of its building
    half_view: Floats  # (c,) meters
    along: Ints  # (c,) number of its view within its place; overlapping cameras share a number
    clock_skew_us: Ints  # (c,) the camera's clock minus the true time
    # p places, sorted by row and from west to east
    place_row: Ints  # (p,)
    place_east: Floats  # (p,)
    place_end: Floats  # (p,) depth at which people stay; 0 for a site, which has no inside
    place_first: Ints  # (p + 1,) the cameras of place i are place_cameras[place_first[i] : place_first[i + 1]]
    place_cameras: Ints  # (c,)
    # r rows and d districts
    row_north: Floats  # (r,) northing of its middle, from the district's first row
    row_first: Ints  # (r + 1,) its buildings are buildings[row_first[i] : row_first[i + 1]]
    buildings: Ints  # (b,) places with an inside, by row and from west to east
    building_key: Floats  # (b,) row * ROW_KEY_M + east
    district_first: Ints  # (d + 1,) its rows
    district_lanes: Ints  # (d,) lanes are at 0, 1, ..., this many times BETWEEN_LANES_M
    # cameras over pavements, by row and from west to east
    pavement: Ints  # (q,)
    pavement_key: Floats  # (q,) row * ROW_KEY_M + east


@dataclass(frozen=True)
class _Camera:
    code: str
    place: int
    row: int
    east: float
    depth: float
    side: int
    half_view: float
    along: int
    position: tuple[float, float]
    uncertainty_s: float
    skew_us: int
    overlaps: tuple[str, ...]


class _Draft:
    """A plan in the making."""

    def __init__(self, settings: EmbeddingCitySettings) -> None:
        self.settings = settings
        self.units: list[Unit] = []
        self.walks: list[Walk] = []
        self.cameras: list[_Camera] = []
        self.places: list[tuple[int, float, float]] = []  # row, east, end
        self.rows: list[float] = []
        self.district_first = [0]
        self.lanes: list[int] = []


def lay_out(settings: EmbeddingCitySettings) -> Plan:
    """The plan of a city: everything but its people."""
    draft = _Draft(settings)
    count = math.ceil(settings.cameras / settings.cameras_per_district)
    across = math.ceil(math.sqrt(count))
    sizes = _even(settings.cameras, count)
    for number, size in enumerate(sizes):
        _district(draft, number, size, (number % across, number // across), max(sizes))
    return _columns(draft)


def _even(total: int, parts: int) -> list[int]:
    """`total` in `parts` integers that differ by at most 1."""
    return [total * (i + 1) // parts - total * i // parts for i in range(parts)]


def _district(draft: _Draft, number: int, size: int, at: tuple[int, int], largest: int) -> None:
    rng = generator(draft.settings.seed, "embedding city", 0, number)
    code = f"d{number + 1}"
    draft.units.append(Unit(code=code, name=f"District {number + 1}"))
    stretches = max(1, round(size / CAMERAS_PER_STREET))
    across = math.ceil(math.sqrt(stretches / 2))
    edge_m = (math.ceil(math.sqrt(largest / CAMERAS_PER_STREET / 2)) + 3) * STRETCH_M * 1.5
    corner = (at[0] * edge_m, at[1] * edge_m)
    first_row = len(draft.rows)
    draft.rows += [i * BETWEEN_ROWS_M for i in range(math.ceil(stretches / across))]
    draft.district_first.append(len(draft.rows))
    draft.lanes.append(round(across * STRETCH_M / BETWEEN_LANES_M))
    streets: list[list[_Camera]] = []
    for i, cameras in enumerate(_uneven(rng, _even(size, stretches))):
        row, west = first_row + i // across, (i % across) * STRETCH_M
        draft.units.append(Unit(code=f"{code}/s{i + 1}", name=f"Street {i // across + 1}, stretch {i % across + 1}"))
        streets.append(_stretch(draft, rng, f"{code}/s{i + 1}", row, west, cameras, corner))
    for i, street in enumerate(streets):
        for other in (i + 1, i + across):
            if other < len(streets) and (other == i + across or other % across):
                _walk(draft, f"{code}/s{i + 1}", street, f"{code}/s{other + 1}", streets[other])


def _uneven(rng: np.random.Generator, sizes: list[int]) -> list[int]:
    """The sizes with random shifts within pairs, which keep the total."""
    for i in range(0, len(sizes) - 1, 2):
        least, most = _STREET_SIZES
        shift = int(rng.integers(-3, 4))
        if least <= sizes[i] + shift <= most and least <= sizes[i + 1] - shift <= most:
            sizes[i], sizes[i + 1] = sizes[i] + shift, sizes[i + 1] - shift
    return sizes


def _stretch(
    draft: _Draft, rng: np.random.Generator, code: str, row: int, west: float, size: int, corner: tuple[float, float]
) -> list[_Camera]:
    """Adds the places of one street from west to east; returns its cameras."""
    kinds: list[tuple[bool, int]] = []  # whether it is a building, and the number of cameras
    while (left := size - sum(count for _, count in kinds)) > 0:
        inside = not kinds or rng.random() < _BUILDING_SHARE  # each street has a building
        count = 1 + int(rng.choice(5 if inside else 3, p=_BUILDING_SIZES if inside else _SITE_SIZES))
        kinds.append((inside, min(left, count)))
    overlapping = [count > 1 and rng.random() < draft.settings.overlap_share for _, count in kinds]
    views = [1 if inside else count - common for (inside, count), common in zip(kinds, overlapping, strict=True)]
    free = STRETCH_M - _APART_M * (sum(views) + 1)
    shares = rng.dirichlet(np.full(len(kinds) + 1, 3.0)) * max(free, 0.0)
    east, found, places = west, [], []
    for i, (inside, count) in enumerate(kinds):
        east += _APART_M + float(shares[i])
        place_code = f"{code}/b{i + 1}"
        name = f"Building {i + 1}" if inside else f"Site {i + 1}"
        draft.units.append(Unit(code=place_code, name=name, kind="" if inside else "site"))
        places.append(_place(draft, rng, place_code, row, east, inside, count, overlapping[i], corner))
        found += places[-1]
        east += _APART_M * (views[i] - 1)
    for i, cameras in enumerate(places):
        for other in (i + 1, i + 2):
            if other < len(places):
                _walk(draft, f"{code}/b{i + 1}", cameras, f"{code}/b{other + 1}", places[other])
    return found


def _place(
    draft: _Draft,
    rng: np.random.Generator,
    code: str,
    row: int,
    east: float,
    inside: bool,
    count: int,
    overlapping: bool,
    corner: tuple[float, float],
) -> list[_Camera]:
    """Adds one place; returns its cameras."""
    side = int(rng.choice((-1, 1)))
    codes = [f"{code}/c{c + 1}" for c in range(count)]
    draws = rng.random((count, 5))
    cameras = []
    for c in range(count):
        along = c - 1 if overlapping and c else c
        common = overlapping and c < 2
        u = draws[c]
        x = east if inside else east + _APART_M * along
        depth = _DOOR_M + _INWARDS_M * along if inside else 0.0
        if inside:
            position = (x + 10 * (u[0] - 0.5), draft.rows[row] + side * depth)
        else:  # the second of two overlapping cameras is on the other side of the street
            position = (x, draft.rows[row] + side * _PAVEMENT_M * (-1 if common and c else 1))
        usual = 0.2 + 0.6 * u[1] if u[2] < 0.95 else 1 + 4 * u[1]
        uncertainty = math.ceil(usual * draft.settings.clock_skew * 100) / 100
        camera = _Camera(
            code=codes[c],
            place=len(draft.places),
            row=row,
            east=x,
            depth=depth,
            side=side,
            half_view=_MIN_HALF_VIEW_M + (HALF_VIEW_M - _MIN_HALF_VIEW_M) * u[3],
            along=along,
            position=(round(corner[0] + position[0], 2), round(corner[1] + position[1], 2)),
            uncertainty_s=uncertainty,
            skew_us=round((2 * u[4] - 1) * 0.95 * uncertainty * 1e6),
            overlaps=tuple(other for other in codes[:2] if other != codes[c]) if common else (),
        )
        cameras.append(camera)
        draft.units.append(
            Unit(
                code=camera.code,
                name=f"Camera {c + 1}",
                position=camera.position,
                overlaps=camera.overlaps,
                clock_uncertainty_s=uncertainty,
            )
        )
    draft.cameras += cameras
    end = _DOOR_M + _INWARDS_M * (count - overlapping) if inside else 0.0
    draft.places.append((row, east, end))
    return cameras


def _walk(draft: _Draft, a: str, cameras: list[_Camera], b: str, others: list[_Camera]) -> None:
    """Adds the shortest walking time between the views of two units' cameras, along streets and through doors."""
    (east, north, depth), (other_east, other_north, other_depth) = (
        np.array([(c.east, draft.rows[c.row], c.depth) for c in group]).T for group in (cameras, others)
    )
    meters = np.abs(east[:, None] - other_east) + np.abs(north[:, None] - other_north) + depth[:, None] + other_depth
    shortest_s = math.floor((float(meters.min()) - 2 * HALF_VIEW_M) / BRISK_M_S)
    if shortest_s > 0:
        draft.walks.append(Walk.model_validate({"from": a, "to": b, "shortest_s": shortest_s}))


def _columns(draft: _Draft) -> Plan:
    """The draft as columns, its cameras sorted by code as in `City.cameras`."""
    cameras = sorted(draft.cameras, key=lambda camera: camera.code)
    place = np.array([camera.place for camera in cameras], dtype=np.int64)
    row = np.array([camera.row for camera in cameras], dtype=np.int64)
    east, depth, half_view = np.array([(c.east, c.depth, c.half_view) for c in cameras]).T
    along, side, skew = np.array([(c.along, c.side, c.skew_us) for c in cameras], dtype=np.int64).T
    rows, place_east, place_end = np.array(draft.places).T
    place_row = rows.astype(np.int64)
    buildings = np.flatnonzero(place_end > 0)  # the draft's places are sorted by row and from west to east
    pavement = np.flatnonzero(depth == 0)
    pavement = pavement[np.argsort(row[pavement] * ROW_KEY_M + east[pavement], kind="stable")]
    return Plan(
        city=City(units=tuple(draft.units), walks=tuple(draft.walks)),
        camera_codes=tuple(camera.code for camera in cameras),
        place=place,
        row=row,
        east=east,
        depth=depth,
        side=side,
        half_view=half_view,
        along=along,
        clock_skew_us=skew,
        place_row=place_row,
        place_east=place_east,
        place_end=place_end,
        place_first=np.searchsorted(np.sort(place), np.arange(len(draft.places) + 1)),
        place_cameras=np.argsort(place, kind="stable"),
        row_north=np.array(draft.rows),
        row_first=np.searchsorted(place_row[buildings], np.arange(len(draft.rows) + 1)),
        buildings=buildings,
        building_key=place_row[buildings] * ROW_KEY_M + place_east[buildings],
        district_first=np.array(draft.district_first, dtype=np.int64),
        district_lanes=np.array(draft.lanes, dtype=np.int64),
        pavement=pavement,
        pavement_key=row[pavement] * ROW_KEY_M + east[pavement],
    )
