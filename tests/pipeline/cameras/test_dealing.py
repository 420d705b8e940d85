"""The rule by which cameras are dealt to hosts: the same for all, few moves, and none without need."""

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cameras.dealing import UNEVEN, deal

HOSTS = st.dictionaries(st.sampled_from("abcde"), st.floats(0, 100), max_size=5)
LOADS = st.dictionaries(st.integers(0, 40).map(lambda n: f"d1/s1/b1/c{n}"), st.floats(0, 30), max_size=25)


def shares(hosts: dict[str, float], loads: dict[str, float], dealt: dict[str, str]) -> dict[str, float]:
    return {
        host: sum(loads[camera] for camera in dealt if dealt[camera] == host) / looks for host, looks in hosts.items()
    }


def test_the_heaviest_go_first_and_each_to_the_host_that_is_used_least() -> None:
    loads = {"c1": 5.0, "c2": 4.0, "c3": 3.0, "c4": 2.0}
    assert deal({"a": 10, "b": 10}, loads, {}, even=True) == {"c1": "a", "c2": "b", "c3": "b", "c4": "a"}
    assert deal({"a": 30, "b": 1}, loads, {}, even=True) == dict.fromkeys(loads, "a")
    assert deal({"a": 0}, loads, {}, even=True) == deal({}, loads, {}, even=True) == {}


def test_of_a_lost_host_its_cameras_alone_move() -> None:
    loads = {f"c{n}": 1.0 for n in range(12)}
    before = deal({"a": 10, "b": 10, "c": 10}, loads, {}, even=False)
    after = deal({"a": 10, "c": 10}, loads, before, even=True)
    moved = {camera for camera in loads if after[camera] != before[camera]}
    assert moved == {camera for camera in loads if before[camera] == "b"}
    assert shares({"a": 10, "c": 10}, loads, after) == {"a": 0.6, "c": 0.6}


def test_a_new_host_gets_some_at_a_time_until_they_are_even() -> None:
    hosts, loads = {"a": 40.0, "b": 40.0}, {f"c{n:02}": 1.0 for n in range(40)}
    dealt = dict.fromkeys(loads, "a")
    assert deal(hosts, loads, dealt, even=False) == dealt
    moves = []
    for _ in range(20):
        after = deal(hosts, loads, dealt, even=True)
        moves.append(sum(after[camera] != dealt[camera] for camera in loads))
        dealt = after
    assert max(moves) == 4 and moves[-1] == 0 and sum(moves) <= 20
    assert abs(shares(hosts, loads, dealt)["a"] - shares(hosts, loads, dealt)["b"]) <= UNEVEN


def test_a_camera_that_is_too_heavy_does_not_go_to_and_fro() -> None:
    dealt = {"c1": "a"}
    assert deal({"a": 10, "b": 10}, {"c1": 9.0}, dealt, even=True) == dealt


@given(hosts=HOSTS, loads=LOADS, seed=st.integers(0, 1000), even=st.booleans())
def test_it_depends_on_nothing_else(hosts: dict[str, float], loads: dict[str, float], seed: int, even: bool) -> None:
    rng = random.Random(seed)
    now = {camera: rng.choice("abcdefg") for camera in loads if rng.random() < 0.7}

    def shuffled(mapping: dict[str, Any]) -> dict[str, Any]:
        names = list(mapping)
        rng.shuffle(names)
        return {name: mapping[name] for name in names}

    dealt = deal(hosts, loads, now, even=even)
    able = {host for host, looks in hosts.items() if looks > 0}
    assert deal(shuffled(hosts), shuffled(loads), shuffled(now), even=even) == dealt
    assert set(dealt) == (set(loads) if able else set()) and set(dealt.values()) <= able
    if not even:
        assert all(dealt[camera] == now[camera] for camera in dealt if now.get(camera) in able)


@given(hosts=HOSTS, loads=LOADS)
def test_it_comes_to_rest(hosts: dict[str, float], loads: dict[str, float]) -> None:
    dealt = deal(hosts, loads, {}, even=True)
    for _ in range(60):
        after = deal(hosts, loads, dealt, even=True)
        if after == dealt:
            return
        dealt = after
    raise AssertionError("it goes on moving")
