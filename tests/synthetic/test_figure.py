import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from synthetic.cloth import ANGLE, COLUMNS, PADDED
from synthetic.figure import Light, draw_figure
from synthetic.pedestrians import Person, draw_person
from synthetic.skeleton import Pose
from synthetic.textures import dress

LIGHT = Light(side=0.0, ambient=0.6)


def drawn(person: Person, yaw: float, swing: float = 0.0, phase: float = 0.0) -> npt.NDArray[np.float32]:
    canvas = np.full((192, 96, 4), 255, np.float32)
    draw_figure(canvas, dress(person), Pose(yaw, phase, swing), (48, 180), 90, 0.2, LIGHT)
    return canvas[..., :3]


def plain_person(**changes: Any) -> Person:
    person = draw_person(np.random.default_rng(4))
    return replace(person, hat="none", bag="none", hair="short", upper="tshirt", lower="trousers", **changes)


def count(picture: npt.NDArray[np.float32], color: str) -> int:
    """Number of pixels in which one channel, r, g or b, is much larger than the others."""
    channel = "rgb".index(color)
    others = [c for c in range(3) if c != channel]
    return int((picture[..., channel] > 60 + picture[..., others].max(axis=-1)).sum())


GRAY = (120.0, 120.0, 120.0)


def test_a_print_shows_in_front_only() -> None:
    person = plain_person(
        upper_color=GRAY, sleeve_color=GRAY, lower_color=GRAY, pattern="print", second_color=(10.0, 230.0, 10.0)
    )
    front, back = count(drawn(person, 0.0), "g"), count(drawn(person, math.pi), "g")
    assert front > 40 and back == 0


def test_a_backpack_shows_from_behind() -> None:
    person = replace(plain_person(upper_color=GRAY, pattern="plain"), bag="backpack", bag_color=(10.0, 10.0, 240.0))
    front, side, back = (count(drawn(person, yaw), "b") for yaw in (0.0, math.pi / 2, math.pi))
    assert back > side > front > 0  # in front, only the straps and its edges beside the shoulders


@pytest.mark.parametrize(("right", "near"), [(True, math.pi / 2), (False, -math.pi / 2)])
def test_a_shoulder_bag_hangs_on_its_side(right: bool, near: float) -> None:
    person = replace(plain_person(upper_color=GRAY), bag="shoulder", bag_right=right, bag_color=(10.0, 10.0, 240.0))
    assert count(drawn(person, near), "b") > 4 * max(1, count(drawn(person, -near), "b"))


def test_legs_swing_and_feet_stay_on_the_ground() -> None:
    person = plain_person()
    together, apart = (
        np.flatnonzero((drawn(person, math.pi / 2, 1.0, phase) < 250).any(axis=(0, 2))) for phase in (0, math.pi / 2)
    )
    assert np.ptp(apart) > 1.3 * np.ptp(together)
    rows = np.flatnonzero((drawn(person, 0.0) < 250).any(axis=(1, 2)))
    assert 175 <= rows.max() <= 188
    assert abs((rows.max() - rows.min()) - 90 * person.height_m) < 14


def test_textures_are_padded() -> None:
    looks = dress(plain_person())
    assert looks.torso.shape[1] == 4 and looks.torso.shape[0] % PADDED == 0
    assert len(ANGLE) == COLUMNS and abs(ANGLE[COLUMNS // 2]) < 0.1
