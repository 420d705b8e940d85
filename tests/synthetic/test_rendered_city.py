import hashlib
import itertools
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from schemas.city_file import City
from schemas.crops import ManifestLine
from schemas.errors import UsageError
from schemas.levels import parent_of
from schemas.settings import AssociationSettings
from schemas.times import parse_time
from synthetic import SimulatedCity, simulate_city, write_city
from synthetic.rendered_city import UNIFORMS

CITIES = [(1, 8), (2, 8), (3, 9), (4, 40)]


def digest(directory: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(directory)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def small(seed: int) -> SimulatedCity:
    return simulate_city(seed, cameras=4, people=4, duration_s=400)


def test_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_city(small(seed), tmp_path / name)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_files_are_a_valid_city_and_manifest(tmp_path: Path) -> None:
    simulated = small(3)
    seen: list[tuple[int, int]] = []
    manifest = write_city(simulated, tmp_path, lambda done, total: seen.append((done, total)))
    city = City.model_validate(yaml.safe_load((tmp_path / "city.yaml").read_text()))
    assert city == simulated.city
    codes = {unit.code for unit in city.cameras()}
    lines = [ManifestLine.model_validate(json.loads(line)) for line in manifest.read_text().splitlines()]
    assert seen[-1][0] == seen[-1][1] >= len(lines) > 50
    person: dict[tuple[str, str | None], str | None] = {}
    for line in lines:
        assert line.camera in codes
        assert line.time.endswith("Z") and len(line.time) == len("2026-01-01T08:00:00.000000Z")
        assert person.setdefault((line.camera, line.track), line.truth) == line.truth
        picture = cv2.imread(str(tmp_path / line.path), cv2.IMREAD_COLOR)
        assert picture is not None and line.box is not None
        assert picture.shape[:2] == (line.box[3], line.box[2])
    times = [parse_time(line.time) for line in lines]
    assert times == sorted(times)
    assert len({line.path for line in lines}) == len(lines)


def test_crops_are_pictures_with_content() -> None:
    for crop in itertools.islice(small(5).crops(), 40):
        assert crop.picture.dtype == np.uint8 and crop.picture.shape[2] == 3
        assert crop.picture.shape[0] >= 32 and crop.picture.shape[1] >= 12
        assert crop.picture.std() > 4
        assert crop.time.tzinfo is UTC


def test_crops_are_the_same_at_each_reading() -> None:
    simulated = small(6)
    first, second = (list(itertools.islice(simulated.crops(), 30)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert (one.camera, one.time, one.track, one.box) == (other.camera, other.time, other.track, other.box)
        assert np.array_equal(one.picture, other.picture)


@pytest.mark.parametrize(("seed", "cameras"), CITIES)
def test_nobody_does_the_impossible(seed: int, cameras: int) -> None:
    """By the cameras' clocks and positions and the walks of the city file, as in the pipeline's gates."""
    simulated = simulate_city(seed, cameras=cameras)
    cameras_by_code = {unit.code: unit for unit in simulated.city.cameras()}
    clock_error = {spot.code: spot.clock_error_s for spot in simulated.plan.spots()}
    shortest = {frozenset((walk.from_, walk.to)): walk.shortest_s for walk in simulated.city.walks}
    fastest = AssociationSettings().fastest_walk_m_s
    for unit in cameras_by_code.values():
        assert abs(clock_error[unit.code]) <= unit.clock_uncertainty_s
    spans: dict[int, list[tuple[float, float, str]]] = {}
    for passage in simulated.passages:
        shift = clock_error[passage.camera]
        times = [sighting.time_s + shift for sighting in passage.sightings]
        assert times == sorted(times)
        spans.setdefault(passage.person, []).append((times[0], times[-1], passage.camera))
    pairs = 0
    for passages in spans.values():
        for (_, end, first), (start, _, second) in itertools.permutations(passages, 2):
            if first == second or second in cameras_by_code[first].overlaps or start < end - 30:
                continue
            one, other = cameras_by_code[first], cameras_by_code[second]
            uncertainty = one.clock_uncertainty_s + other.clock_uncertainty_s
            assert one.position is not None and other.position is not None
            gap = start - end + uncertainty
            if start + uncertainty < end:  # not after the first passage: then wholly before it
                assert any(s == start and e < end for s, e, c in passages if c == second)
                continue
            assert gap >= math.dist(one.position, other.position) / fastest
            for a, b in zip(ancestors(first), ancestors(second), strict=True):
                assert a == b or gap >= shortest.get(frozenset((a, b)), 0.0)
            pairs += 1
    assert pairs > 50


def ancestors(code: str) -> list[str]:
    found = []
    while (up := parent_of(code)) is not None:
        found.append(up)
        code = up
    return found


@pytest.mark.parametrize(("seed", "cameras"), CITIES)
def test_true_walks_are_slow_and_overlaps_occur(seed: int, cameras: int) -> None:
    simulated = simulate_city(seed, cameras=cameras)
    for passage in simulated.passages:
        for one, other in itertools.pairwise(passage.sightings):
            meters = math.hypot(other.x - one.x, other.y - one.y)
            assert meters <= 2.2 * (other.time_s - one.time_s) + 1e-6
    together = {
        (passage.person, passage.camera, other.camera)
        for passage, other in itertools.combinations(simulated.passages, 2)
        if passage.person == other.person
        and passage.sightings[0].time_s <= other.sightings[-1].time_s
        and other.sightings[0].time_s <= passage.sightings[-1].time_s
    }
    overlaps = {unit.code: unit.overlaps for unit in simulated.city.cameras()}
    assert together
    assert all(second in overlaps[first] for _, first, second in together)


@pytest.mark.parametrize("cameras", [2, 3, 8, 9, 40])
def test_any_number_of_cameras_makes_a_city(cameras: int) -> None:
    simulated = simulate_city(7, cameras=cameras, people=10)
    assert len(simulated.city.cameras()) == cameras
    assert City.model_validate(simulated.city.model_dump(by_alias=True)) == simulated.city


def test_tracks_are_numbered_per_camera() -> None:
    passages = simulate_city(8).passages
    for code in {passage.camera for passage in passages}:
        tracks = [passage.track for passage in passages if passage.camera == code]
        assert tracks == [str(number + 1) for number in range(len(tracks))]


def test_the_demo_city_has_its_size() -> None:
    for seed in (1, 2, 3):
        passages = simulate_city(seed).passages
        assert 230 <= len(passages) <= 420
        assert 1700 <= sum(len(passage.sightings) for passage in passages) <= 3300


@pytest.mark.parametrize(
    "wrong",
    [{"cameras": 1}, {"cameras": 65}, {"people": 0}, {"duration_s": 5}, {"start": datetime(2026, 1, 1)}],  # noqa: DTZ001
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        simulate_city(1, **wrong)  # type: ignore[arg-type]


def test_half_of_the_people_in_uniforms_wear_the_same_clothes() -> None:
    people = simulate_city(1, people=20, difficulty=UNIFORMS).people
    worn = [(one.upper, one.pattern, one.lower, one.side_stripe) for one in people]
    uniform = max(set(worn), key=worn.count)
    wearing = [one for one, its in zip(people, worn, strict=True) if its == uniform]
    assert len(wearing) == 10
    colors = np.array([one.upper_color for one in wearing])
    assert np.ptp(colors, axis=0).max() < 40
    assert len({one.skin for one in wearing}) == 10
