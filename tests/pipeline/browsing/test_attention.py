"""What the model looked at: the picture of it moves with the part of a person that is changed."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import reid_core
from pipeline.browsing.attention import COLUMNS, ROWS, looked_at
from reid_core.decoding import decode
from reid_core.preprocessing import prepare
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.settings import Settings


@pytest.fixture(scope="module")
def core() -> ReIDCore:
    return open_core(Settings(device="cpu", threads=1), Path(reid_core.DEMO_MODEL))


@pytest.fixture(scope="module")
def person(core: ReIDCore, city_files: Path) -> NDArray[np.uint8]:
    first = json.loads((city_files / "manifest.jsonl").read_text().splitlines()[0])
    return prepare(decode((city_files / first["path"]).read_bytes()), core.card.input)


def changed(person: NDArray[np.uint8], rows: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture with these rows of parts painted as nobody's clothes are."""
    painted = person.copy()
    height = person.shape[0]
    painted[rows[0] * height // ROWS : rows[1] * height // ROWS] = (255, 0, 255)
    return painted


@pytest.mark.parametrize("rows", [(2, 4), (5, 7)], ids=["the trunk", "the legs"])
def test_what_keeps_two_pictures_apart_is_found_where_one_was_changed(
    core: ReIDCore, person: NDArray[np.uint8], rows: tuple[int, int]
) -> None:
    found = looked_at(core, person, changed(person, rows))
    by_row = found.right.sum(axis=1)
    assert found.distance > 0.1
    assert rows[0] <= int(by_row.argmin()) < rows[1], by_row
    assert by_row[rows[0] : rows[1]].sum() < 0, "without the change they are more alike"


def test_of_two_equal_pictures_no_part_keeps_them_apart(core: ReIDCore, person: NDArray[np.uint8]) -> None:
    found = looked_at(core, person, person)
    assert found.distance < 1e-3
    assert found.left.shape == found.right.shape == (ROWS, COLUMNS)
    assert found.left.min() >= -1e-3 and found.largest > 0.01
    assert np.allclose(found.left, found.right, atol=1e-6)
