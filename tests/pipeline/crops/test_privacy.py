import numpy as np
import pytest

from benchmarks.head_region import head_of
from pipeline.crops.privacy import HEAD_SHARE, without_face, without_faces


def test_the_part_that_is_hidden_holds_the_heads_of_rendered_people() -> None:
    heads = [head for number in range(25) if (head := head_of(7, number)) is not None and head.any()]
    assert len(heads) > 15
    assert all(np.flatnonzero(head.any(axis=1))[-1] < HEAD_SHARE * len(head) for head in heads)


@pytest.mark.parametrize("size", [(128, 64), (300, 90), (61, 17), (2, 1), (40, 200)])
def test_a_face_becomes_a_few_cells_and_the_rest_stays(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    hidden = without_face(picture)
    end = max(1, round(size[0] * HEAD_SHARE))
    assert hidden.shape == picture.shape and (hidden[end:] == picture[end:]).all()
    cells = len(np.unique(hidden[:end].reshape(-1, 3), axis=0))
    assert cells <= 4 * max(1, round(end / max(1, size[1] / 4)) + 1)
    assert (picture == np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).all()  # it is not changed


def test_two_pictures_that_differ_in_a_face_alone_become_one() -> None:
    picture = np.full((120, 40, 3), 90, np.uint8)
    other = picture.copy()
    other[12:18:2, 12:18] += 20  # within a cell, with the same mean
    other[13:18:2, 12:18] -= 20
    assert (other != picture).any() and (without_face(other) == without_face(picture)).all()


def test_a_frame_shows_nothing_small() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    hidden = without_faces(frame)
    assert hidden.shape == frame.shape and len(np.unique(hidden.reshape(-1, 3), axis=0)) <= 40 * 54
