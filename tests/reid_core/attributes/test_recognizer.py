"""Attributes of rendered and of real people."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from reid_core.attributes import NAMES, OPENABLE, AttributeRecognizer, color_name, open_attributes
from reid_core.attributes.colors import TERMS
from reid_core.catalog import find_model
from schemas.errors import ModelFileError, UsageError
from schemas.settings import Settings
from tests.helpers.assets import asset


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    [name] = OPENABLE
    home = tmp_path / "home"
    (home / "attributes" / name).mkdir(parents=True)
    for suffix in (".xml", ".bin"):
        shutil.copyfile(asset(f"models/{name}/{name}{suffix}"), home / "attributes" / name / f"{name}{suffix}")
    return Settings(home=home)


def people() -> list[NDArray[np.uint8]]:
    """Two people of a public video, RGB; the left one in a white shirt and dark trousers."""
    capture = cv2.VideoCapture(str(asset("data/vtest.avi")))
    frame = cv2.cvtColor(np.asarray(capture.read()[1], np.uint8), cv2.COLOR_BGR2RGB)
    return [
        np.asarray(frame[y : y + h, x : x + w], np.uint8) for x, y, w, h in ((482, 150, 60, 150), (290, 205, 75, 170))
    ]


def test_attributes_are_named_and_sex_is_not_among_them(settings: Settings) -> None:
    pictures = people()
    recognizer = open_attributes(settings)
    found = recognizer.recognize(pictures)
    assert len(found) == 2
    for one in found:
        assert tuple(one.probabilities) == NAMES and all(0 <= value <= 1 for value in one.probabilities.values())
        assert one.top in TERMS and one.bottom in TERMS
    said = " ".join((*NAMES, *vars(found[0]))).split()
    assert not {"male", "female", "man", "woman", "sex", "gender", "age"} & set(said)
    # What is found in a picture depends on no other one, and not on the run.
    assert [recognizer.recognize([picture])[0] for picture in reversed(pictures)] == list(reversed(found))
    assert open_attributes(settings, OPENABLE[0]).recognize(pictures) == found
    assert found[0] != found[1]


def test_the_order_of_the_outputs_is_the_publishers(settings: Settings) -> None:
    """A picture of bare gray has no hat and no backpack, and what is said changes with the picture."""
    gray = open_attributes(settings).recognize([np.full((160, 80, 3), 128, np.uint8)])[0]
    assert gray.top == gray.bottom == "gray"
    assert gray.probabilities["hat"] < 0.5 and gray.probabilities["backpack"] < 0.5


def test_what_is_not_there_or_no_such_network_is_said(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no model for attributes in this home; `urban-reid models get person-attr"):
        open_attributes(Settings(home=tmp_path / "empty"))
    with pytest.raises(UsageError, match=r"no model for attributes other in this home, which has person-attributes"):
        open_attributes(settings, "other")
    embedder = "person-reidentification-retail-0286"
    convention = find_model(OPENABLE[0]).input
    assert convention is not None
    with pytest.raises(ModelFileError, match=r"0286\.xml: "):
        AttributeRecognizer(asset(f"models/{embedder}/{embedder}.xml"), convention, settings)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((10, 10, 12), "black"),
        ((250, 250, 245), "white"),
        ((120, 122, 125), "gray"),
        ((180, 25, 35), "red"),
        ((20, 30, 95), "blue"),
        ((60, 110, 190), "blue"),
        ((50, 120, 60), "green"),
        ((230, 205, 60), "yellow"),
        ((235, 120, 40), "orange"),
        ((240, 150, 180), "pink"),
        ((110, 45, 140), "purple"),
        ((110, 70, 45), "brown"),
    ],
)
def test_colors_have_their_basic_terms(rgb: tuple[int, int, int], name: str) -> None:
    rng = np.random.default_rng(1)
    noisy = np.clip(np.full((60, 30, 3), rgb) + rng.normal(0, 6, (60, 30, 3)), 0, 255).astype(np.uint8)
    assert color_name(noisy, 0.5, 0.3) == name
    assert color_name(noisy, -3.0, 7.0) == name  # a point outside counts at the edge


def test_a_color_is_of_the_point() -> None:
    picture = np.zeros((100, 50, 3), np.uint8)
    picture[:50] = (200, 20, 30)
    picture[50:] = (30, 60, 170)
    assert (color_name(picture, 0.5, 0.25), color_name(picture, 0.5, 0.75)) == ("red", "blue")
