from pathlib import Path

import cv2
import numpy as np
import pytest

from reid_core.data import PersonPictures, market1501_labels, read_market1501
from schemas.cards import InputConvention
from schemas.errors import InputError, PictureError
from schemas.settings import settings

SMALL = InputConvention(height=32, width=16)


def write(path: Path, rgb: tuple[int, int, int]) -> None:
    picture = np.full((50, 20, 3), rgb[::-1], np.uint8)
    assert cv2.imwrite(str(path), picture)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("0002_c1s1_000451_03.jpg", (2, 1)),
        ("-1_c3s2_000001_01.jpg", (-1, 3)),
        ("0000_c6s3_077492_03.JPG", (0, 6)),
        ("1041_c15_0023.jpeg", (1041, 15)),
        ("0007_c2.png", (7, 2)),
        ("person_c1s1_1.jpg", None),
        ("0002_c1s1_000451_03.gif", None),
        ("0002_c1s1_000451_03.jpg.exe", None),
        ("-2_c1s1_0.jpg", None),
    ],
)
def test_names(name: str, labels: tuple[int, int] | None) -> None:
    assert market1501_labels(name) == labels


def test_reads_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "0005_c12s1_1.png", (200, 10, 10))
    write(tmp_path / "0000_c2s1_1.png", (10, 200, 10))
    write(tmp_path / "-1_c1s1_1.png", (10, 10, 200))
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    heard: list[tuple[int, int]] = []
    people = read_market1501(tmp_path, SMALL, lambda done, total: heard.append((done, total)))
    assert people.identities.tolist() == [-1, 0, 5]
    assert people.cameras.tolist() == [1, 2, 12]
    assert people.pictures.shape == (3, 32, 16, 3)
    assert people.pictures[:, 16, 8].argmax(1).tolist() == [2, 1, 0]  # RGB
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_market1501(tmp_path / "none", SMALL)
    with pytest.raises(InputError, match=r"holds no \.jpg"):
        read_market1501(tmp_path, SMALL)


def test_wrong_names_are_listed_up_to_ten(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"a{number:02}.jpg", (1, 2, 3))
    with pytest.raises(InputError, match=r"12 names .* a00\.jpg, .*a09\.jpg$"):
        read_market1501(tmp_path, SMALL)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    write(tmp_path / "0001_c1s1_1.jpg", (1, 2, 3))
    (tmp_path / "0001_c1s1_2.jpg").write_bytes(b"")
    with pytest.raises(PictureError, match=r"0001_c1s1_2\.jpg"):
        read_market1501(tmp_path, SMALL)


def people(identities: list[int], cameras: list[int]) -> PersonPictures:
    pictures = np.arange(len(identities) * 12, dtype=np.uint8).reshape(-1, 2, 2, 3)
    return PersonPictures(pictures, np.array(identities), np.array(cameras))


def test_split_takes_one_query_an_identity_and_camera() -> None:
    query, gallery = people([1, 1, 1, 2, 2, -1], [1, 1, 2, 1, 1, 1]).split_queries()
    assert query.identities.tolist() == [1, 1, 2] and query.cameras.tolist() == [1, 2, 1]
    assert query.pictures[:, 0, 0, 0].tolist() == [0, 24, 36]
    assert gallery.identities.tolist() == [1, 2, -1]


def test_digest_covers_pictures_and_labels() -> None:
    first = people([1, 2], [1, 1])
    assert first.digest() == people([1, 2], [1, 1]).digest()
    assert first.digest() != people([1, 3], [1, 1]).digest()
    assert first.digest() != people([1, 2], [1, 2]).digest()
    other = PersonPictures(first.pictures + 1, first.identities, first.cameras)
    assert first.digest() != other.digest()


def test_real_set_has_its_known_size() -> None:
    folder = settings().real_set
    if folder is None:
        pytest.skip("URBAN_REID_REAL_SET is not set")
    query, gallery = (read_market1501(folder / name, SMALL) for name in ("query", "bounding_box_test"))
    assert (len(query), len(gallery)) == (451, 487)
    assert set(query.identities) == set(gallery.identities) and len(set(query.identities)) == 100
