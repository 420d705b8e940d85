from pathlib import Path

import numpy as np
import pytest

from reid_core.datasets import open_dataset
from schemas.errors import InputError, PictureError
from tests.helpers.data_sets import SMALL, pixels, write

LISTS = {
    "list_train.txt": [
        "0000/0000_045_12_0303morning_0006_2.jpg 0",
        "0000/0000_046_12_0303morning_0006_2_ex.jpg 0",
        "0001/0001_010_07_0303morning_0008_2.jpg 1",
    ],
    "list_val.txt": ["0001/0001_013_04_0303morning_0020_2.jpg 1"],
    "list_query.txt": ["0000/0000_000_01_0303morning_0015_0.jpg 0"],
    "list_gallery.txt": ["0000/0000_019_05_0303morning_0029_1.jpg 0", "0001/0001_020_14_0113noon_0029_1.jpg 1"],
}


def write_msmt17(folder: Path, train: str, test: str) -> Path:
    folder.mkdir()
    for name, lines in LISTS.items():
        (folder / name).write_text("\n".join(lines) + "\n")
        for number, line in enumerate(lines):
            part = train if name in ("list_train.txt", "list_val.txt") else test
            write(folder / part / line.split()[0], pixels(number))
    return folder


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_both_versions(tmp_path: Path, train: str, test: str) -> None:
    found = open_dataset(f"msmt17:{write_msmt17(tmp_path / 'm', train, test)}")
    people = found.load("train", SMALL)
    assert people.identities.tolist() == [0, 0, 1, 1]  # the validation list is part of the training split
    assert people.cameras.tolist() == [12, 12, 7, 4]
    assert people.names[0] == f"{train}/0000/0000_045_12_0303morning_0006_2.jpg"
    query, gallery = found.load("query", SMALL), found.load("gallery", SMALL)
    # The test people are others, though the lists number them anew.
    assert query.identities.tolist() == [2] and gallery.identities.tolist() == [2, 3]
    assert query.cameras.tolist() == [1] and gallery.cameras.tolist() == [5, 14]
    assert query.names == (f"{test}/0000/0000_000_01_0303morning_0015_0.jpg",)
    assert np.array_equal(query.pictures, gallery.pictures[:1])  # as `write_msmt17` draws them
    assert found.published is not None and found.published.name == "MSMT17"


def test_a_picture_that_a_list_names_in_vain(tmp_path: Path) -> None:
    folder = write_msmt17(tmp_path / "m", "train", "test")
    (folder / "test" / LISTS["list_query.txt"][0].split()[0]).unlink()
    with pytest.raises(PictureError, match=r"test/0000/0000_000_01_0303morning_0015_0\.jpg: no such file"):
        open_dataset(f"msmt17:{folder}").load("query", SMALL)


def test_lines_that_do_not_parse(tmp_path: Path) -> None:
    folder = write_msmt17(tmp_path / "m", "train", "test")
    strange = [
        "0000_000_01_a.jpg",
        "0000/0000_000_x_a.jpg 0",
        "0000/0000_000.jpg 0",
        "/etc/0_0_1_a.jpg 0",
        "../0_0_1_a.jpg 0",
    ]
    (folder / "list_val.txt").write_text("\n".join(["", *strange]))
    found = open_dataset(f"msmt17:{folder}", strict=False)
    assert len(found.train) == 3 and len(found.wrong) == 5
    assert found.wrong[0].startswith("list_val.txt, line 2: '0000_000_01_a.jpg' is not of the form 0000/0000_045_12_")
    assert all("lies outside train/" in line for line in found.wrong[3:])


def test_lists_without_pictures(tmp_path: Path) -> None:
    folder = write_msmt17(tmp_path / "m", "train", "test")
    (folder / "test").rename(folder / "tests")
    with pytest.raises(InputError, match=r"holds list_query\.txt, but neither test/ nor mask_test_v2/"):
        open_dataset(f"msmt17:{folder}")
