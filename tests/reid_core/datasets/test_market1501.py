from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reid_core.datasets import Counts, Sample, open_dataset
from reid_core.datasets.market1501 import parse_name
from reid_core.datasets.published import CUHK03_DETECTED, CUHK03_LABELED, MARKET1501, known_by_counts
from schemas.errors import InputError, PictureError
from tests.helpers.assets import real_set
from tests.helpers.data_sets import SMALL, pixels, write, write_market1501


def colored(*rgb: int) -> NDArray[np.uint8]:
    return np.full((50, 20, 3), rgb, np.uint8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("0002_c1s1_000451_03.jpg", (2, 1, 1, 451)),
        ("-1_c3s2_000001_01.jpg", (-1, 3, 2, 1)),
        ("0000_c6s3_077492_03.JPG", (0, 6, 3, 77492)),
        ("0002_c1s1_000451_03_more.webp", (2, 1, None, None)),
        ("0002_c1s1.bmp", (2, 1, None, None)),
        ("1041_c15_0023.jpeg", (1041, 15, None, None)),
        ("0007_c2.png", (7, 2, None, None)),
        ("person_c1s1_1.jpg", None),
        ("0002_c1s1_000451_03.gif", None),
        ("0002_c1s1_000451_03.jpg.exe", None),
        ("-2_c1s1_0.jpg", None),
    ],
)
def test_names(name: str, said: tuple[int | None, ...] | None) -> None:
    assert parse_name(name) == said


def test_loads_a_split_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "bounding_box_test"
    write(folder / "0005_c12s1_1.png", colored(200, 10, 10))
    write(folder / "0000_c2s1_1.png", colored(10, 200, 10))
    write(folder / "-1_c1s1_1.png", colored(10, 10, 200))
    (folder / "Thumbs.db").write_bytes(b"x")
    found = open_dataset(f"market1501:{tmp_path}")
    assert (found.train, found.query, len(found.gallery)) == ((), (), 3)
    heard: list[tuple[int, int]] = []
    people = found.load("gallery", SMALL, lambda done, total: heard.append((done, total)))
    assert people.identities.tolist() == [-1, 0, 5]
    assert people.cameras.tolist() == [1, 2, 12]
    assert people.names == tuple(f"bounding_box_test/{n}_1.png" for n in ("-1_c1s1", "0000_c2s1", "0005_c12s1"))
    assert people.pictures.shape == (3, 32, 16, 3)
    assert people.pictures[:, 16, 8].argmax(1).tolist() == [2, 1, 0]  # RGB
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert len(found.load("query", SMALL)) == 0


def test_wrong_names_are_told(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / "query" / f"a{number:02}.jpg", colored(1, 2, 3))
    with pytest.raises(InputError, match=r"12 pictures .* query/a00\.jpg: .*query/a02\.jpg: [^;]* and more;"):
        open_dataset(f"market1501:{tmp_path}")


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    write(tmp_path / "query" / "0001_c1s1_1.jpg", colored(1, 2, 3))
    (tmp_path / "query" / "0001_c1s1_2.jpg").write_bytes(b"")
    with pytest.raises(PictureError, match=r"0001_c1s1_2\.jpg"):
        open_dataset(f"market1501:{tmp_path}").load("query", SMALL)


def test_zero_is_a_distractor_unless_a_query_shows_it(tmp_path: Path) -> None:
    gallery = ["0000_c1_1.png", "0001_c1_1.png"]
    distractors = write_market1501(tmp_path / "a", query=["0001_c2_1.png"], gallery=gallery)
    found = open_dataset(f"market1501:{distractors}")
    assert found.distractor == 0 and found.counts("gallery") == Counts(2, 1)
    person = write_market1501(tmp_path / "b", query=["0000_c2_1.png"], gallery=gallery)
    found = open_dataset(f"market1501:{person}")
    assert found.distractor is None and found.counts("gallery") == Counts(2, 2)


def test_what_is_known_to_be_market1501(tmp_path: Path) -> None:
    assert open_dataset(f"market1501:{write_market1501(tmp_path / 'set', query=['1_c1.png'])}").published is None
    found = open_dataset(f"market1501:{write_market1501(tmp_path / 'Market-1501-v15.09.15', query=['1_c1.png'])}")
    assert found.published is MARKET1501
    # A folder in the form with the counts of a known data set is that data set.
    query = [picture(person, 0) for person in range(700) for _ in range(2)]
    gallery = [picture(person % 700, 1) for person in range(5332)]
    assert known_by_counts([], query, gallery, 0) is None  # person 0 is taken for distractors
    assert known_by_counts([], query, gallery, None) is CUHK03_DETECTED
    assert known_by_counts([], query, gallery[:-4], None) is CUHK03_LABELED


def picture(identity: int, camera: int) -> Sample:
    return Sample("", identity, camera, lambda: pixels(0))


def test_real_set_has_its_known_size() -> None:
    found = open_dataset(f"market1501:{real_set()}")
    assert [len(split) for split in (found.train, found.query, found.gallery)] == [7239, 451, 487]
    query, gallery = found.load("query", SMALL), found.load("gallery", SMALL)
    assert set(query.identities) == set(gallery.identities) and len(set(query.identities)) == 100
