"""Passages and units of an embedding-level city; its features are tested in test_embedding_city_features.py."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest

from pipeline.association.geometry import unit_geometry
from schemas.city_file import City
from schemas.errors import UsageError
from schemas.levels import parent_of
from schemas.settings import AssociationSettings
from synthetic.embedding_city import EmbeddingCity, EmbeddingCitySettings, PassageBatch, embedding_city

SETTINGS = EmbeddingCitySettings(cameras=100, seed=1)


@dataclass(frozen=True)
class Tracklets:
    """n tracklets by (person, start)."""

    person: np.ndarray
    camera: np.ndarray
    start_us: np.ndarray
    end_us: np.ndarray
    crops: np.ndarray


def tracklets(batches: Iterator[PassageBatch]) -> Tracklets:
    parts = []
    for batch in batches:
        first = np.flatnonzero(np.diff(batch.track, prepend=-1))
        last = np.append(first[1:], len(batch)) - 1
        ends = (batch.time_us[first], batch.time_us[last], last - first + 1)
        parts.append(np.stack([batch.person[first], batch.camera[first], *ends]))
    columns = np.concatenate(parts, axis=1)
    return Tracklets(*columns[:, np.lexsort((columns[2], columns[0]))])


@pytest.fixture(scope="module")
def city() -> EmbeddingCity:
    return embedding_city(SETTINGS)


@pytest.fixture(scope="module")
def seen(city: EmbeddingCity) -> Tracklets:
    return tracklets(city.batches())


def digest(settings: EmbeddingCitySettings) -> str:
    city, total = embedding_city(settings), hashlib.sha256()
    total.update(city.city.model_dump_json().encode() + city.clock_skew_us.tobytes())
    for batch in city.batches():
        for name in ("camera", "track", "time_us", "person", "quality", "features"):
            total.update(getattr(batch, name).tobytes())
    return total.hexdigest()


def test_same_settings_give_the_same_bytes_and_another_seed_others() -> None:
    small = EmbeddingCitySettings(cameras=20, days=0.3)
    assert digest(small) == digest(small) != digest(replace(small, seed=1))


def test_a_person_does_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EmbeddingCitySettings(cameras=20, people=30)
    whole = tracklets(embedding_city(settings).batches())
    monkeypatch.setattr("synthetic.embedding_city.generator._BLOCK", 7)
    batches = list(embedding_city(settings).batches())
    assert len(batches) == 5
    for one, other in zip(vars(whole).values(), vars(tracklets(iter(batches))).values(), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        EmbeddingCitySettings(cameras=1, seed=3),
        EmbeddingCitySettings(cameras=150, cameras_per_district=60, days=2, seed=2),
        EmbeddingCitySettings(cameras=60, overlap_share=1, clock_skew=0, missed_share=0, drop_out_share=0, seed=4),
    ],
)
def test_the_gates_forbid_no_persons_own_passages(settings: EmbeddingCitySettings) -> None:
    """By the cameras' clocks, nobody is at two places at once or walks faster than the city file says."""
    city = embedding_city(settings)
    found = tracklets(city.batches())
    assert (found.end_us >= found.start_us).all()
    codes = np.array(city.camera_codes)
    district = np.array([code.split("/")[0] for code in codes])[found.camera]
    edges = np.flatnonzero(np.diff(found.person, prepend=-1, append=-1))
    geometries = {name: unit_geometry(city.city, name, AssociationSettings()) for name in np.unique(district).tolist()}
    for first, last in pairwise(edges.tolist()):
        assert len(set(district[first:last])) == 1, "a person was seen in two districts"
        geometry = geometries[district[first]]
        camera = np.searchsorted(geometry.cameras, codes[found.camera[first:last]])
        a, b = np.triu_indices(last - first, 1)
        start, end = found.start_us[first:last], found.end_us[first:last]
        gap_us = np.maximum(start[a], start[b]) - np.minimum(end[a], end[b])
        assert (gap_us >= geometry.min_gap_us[camera[a], camera[b]]).all()
    assert len(edges) > 5


def test_walks_are_few_true_and_close(city: EmbeddingCity, seen: Tracklets) -> None:
    """Only between neighbors; the fastest true walk takes a little longer than the shortest of the file."""
    walks = {frozenset((walk.from_, walk.to)): walk.shortest_s for walk in city.city.walks}
    units = [unit.code for unit in city.city.units]
    assert len(units) / 4 < len(walks) < len(units) and min(walks.values()) >= 1
    above = {code: parent_of(parent_of(code) or "") for code in city.camera_codes}
    buildings = {code: parent_of(code) for code in city.camera_codes}
    codes = np.array(city.camera_codes)
    true_start = seen.start_us - city.clock_skew_us[seen.camera]
    true_end = seen.end_us - city.clock_skew_us[seen.camera]
    fastest: dict[frozenset[str | None], float] = {}
    for i in np.flatnonzero(seen.person[1:] == seen.person[:-1]).tolist():
        one, other = str(codes[seen.camera[i]]), str(codes[seen.camera[i + 1]])
        same_street = above[one] == above[other]
        route = frozenset((buildings[one], buildings[other]) if same_street else (above[one], above[other]))
        if route in walks:
            gap_s = (true_start[i + 1] - true_end[i]) / 1e6
            fastest[route] = min(gap_s, fastest.get(route, np.inf))
    ratio = np.array([gap_s / walks[route] for route, gap_s in fastest.items()])  # type: ignore[index]
    assert len(ratio) > len(walks) / 2
    assert ratio.min() >= 1 and np.median(ratio) < 3


def test_units_and_density(city: EmbeddingCity) -> None:
    assert City.model_validate(city.city.model_dump(by_alias=True)) == city.city
    cameras = city.city.cameras()
    assert city.camera_codes == tuple(camera.code for camera in cameras) and len(cameras) == 100
    assert all(camera.position is not None for camera in cameras)
    streets = np.unique([code.rsplit("/", 2)[0] for code in city.camera_codes], return_counts=True)[1]
    assert streets.min() >= 10 and streets.max() <= 20
    kinds = {unit.code: unit.kind for unit in city.city.units}
    sizes: dict[str, list[int]] = {"": [], "site": []}
    for code, count in zip(*np.unique([parent_of(c) for c in city.camera_codes], return_counts=True), strict=True):
        sizes[kinds[code]].append(int(count))
    assert len(sizes[""]) > 10 and max(sizes[""]) <= 5 and len(sizes["site"]) > 10 and max(sizes["site"]) <= 3
    overlapping = [camera for camera in cameras if camera.overlaps]
    assert 0.05 < len(overlapping) / 100 < 0.6
    areas = []
    for size in (400, 1600):
        units = embedding_city(EmbeddingCitySettings(cameras=size, cameras_per_district=size)).city.cameras()
        areas.append(np.prod(np.ptp(np.array([unit.position for unit in units]), axis=0)) / size)
    assert areas[0] == pytest.approx(areas[1], rel=0.25)


def test_clock_errors_are_within_the_stated_uncertainty(city: EmbeddingCity) -> None:
    stated = np.array([camera.clock_uncertainty_s for camera in city.city.cameras()])
    error = np.abs(city.clock_skew_us) / 1e6
    assert (error <= stated).all() and np.median(error) < 0.5 and 0 < (stated > 1).sum() < 20


def test_overlapping_cameras_see_a_person_at_the_same_time(city: EmbeddingCity, seen: Tracklets) -> None:
    cameras = city.city.cameras()
    partner = {i: city.camera_codes.index(c.overlaps[0]) for i, c in enumerate(cameras) if c.overlaps}
    start, end = (t - city.clock_skew_us[seen.camera] for t in (seen.start_us, seen.end_us))
    together = alone = 0
    for i in range(len(seen.person) - 1):
        if seen.camera[i] in partner:
            near = [j for j in (i - 1, i + 1) if seen.camera[j] == partner[int(seen.camera[i])]]
            both = any(seen.person[j] == seen.person[i] and start[j] < end[i] and start[i] < end[j] for j in near)
            together, alone = together + both, alone + (not both)
    assert together > 4 * alone > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_tracklets_per_camera_and_day(seed: int) -> None:
    """A busy city, with crops no further apart than a passage may pause."""
    found = tracklets(embedding_city(replace(SETTINGS, seed=seed)).batches())
    assert 150 <= len(found.person) / 100 <= 260
    length_s = (found.end_us - found.start_us) / 1e6
    assert length_s.max() <= AssociationSettings().passage_gap_s and 1.5 < length_s[found.crops == 2].mean() < 3.5
    assert set(np.unique(found.crops)) == {1, 2} and (found.crops == 2).mean() > 0.8


def test_most_people_come_back_after_hours_and_visitors_do_not(seen: Tracklets) -> None:
    spans = []
    for person in np.unique(seen.person):
        times = seen.start_us[seen.person == person] / 3.6e9
        spans.append((times.max() - times.min(), np.diff(times).max(initial=0)))
    hours, pause = np.array(spans).T
    assert 0.55 < (pause > 2).mean() < 0.9 and (hours > 6).mean() > 0.5
    assert 0.1 < (hours < 2.5).mean() < 0.4
    second = tracklets(embedding_city(replace(SETTINGS, days=2, people=300)).batches())
    day = (second.start_us - second.start_us.min()) // 86_400_000_000
    days = [len(np.unique(day[second.person == person])) for person in np.unique(second.person)]
    assert 0.65 < np.mean(np.array(days) == 2) < 0.9


def test_drop_outs_and_missed_detections_remove_tracklets() -> None:
    small = replace(SETTINGS, cameras=30, missed_share=0, drop_out_share=0)
    complete = len(tracklets(embedding_city(small).batches()).person)
    missed = len(tracklets(embedding_city(replace(small, missed_share=0.25)).batches()).person)
    assert missed / complete == pytest.approx(0.75, abs=0.03)
    down = tracklets(embedding_city(replace(small, drop_out_share=1)).batches())
    assert 0.6 < len(down.person) / complete < 0.95
    longest = [np.diff(np.sort(down.start_us[down.camera == c])).max() / 3.6e9 for c in np.unique(down.camera)]
    assert np.median(longest) > 1


def test_batches_have_one_size_at_every_size_of_city() -> None:
    """Also with four times the cameras, or eight times the days."""
    largest = []
    for cameras, days in ((60, 1.0), (240, 1.0), (60, 8.0)):
        settings = EmbeddingCitySettings(cameras=cameras, days=days)
        largest.append(max(len(batch) for batch in embedding_city(settings).batches()))
    assert max(largest) < 1.5 * min(largest) and max(largest) < 20_000


def test_progress_counts_people() -> None:
    calls: list[tuple[int, int]] = []
    batches = list(embedding_city(replace(SETTINGS, people=600)).batches(lambda *call: calls.append(call)))
    assert len(calls) == len(batches) == 3 and calls[-1] == (600, 600)


def test_track_numbers_are_unique(city: EmbeddingCity) -> None:
    found: list[np.ndarray] = []
    for batch in city.batches():
        first = np.flatnonzero(np.diff(batch.track, prepend=-1))
        found.append(batch.track[first])
    numbers = np.concatenate(found)
    assert len(np.unique(numbers)) == len(numbers) and numbers.min() >= 0


@pytest.mark.parametrize("wrong", [{"cameras": 0}, {"days": float("nan")}, {"people": 0}, {"missed_share": 1.5}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        EmbeddingCitySettings(**{"cameras": 10, **wrong})  # type: ignore[arg-type]


def test_a_city_of_ten_thousand_cameras_is_laid_out_in_seconds() -> None:
    started = time.process_time()
    city = embedding_city(EmbeddingCitySettings(cameras=10_000))
    assert len(city.camera_codes) == 10_000 and time.process_time() - started < 5
    first = next(city.batches())
    assert 0 < len(first) < 20_000
