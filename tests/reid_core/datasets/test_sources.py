from pathlib import Path

import numpy as np
import pytest

from reid_core.datasets import Counts, Dataset, open_dataset
from reid_core.datasets.rendered import open_rendered
from schemas.errors import InputError
from synthetic.training import training_set
from tests.helpers.data_sets import SMALL, write_market1501


@pytest.fixture(scope="module")
def rendered() -> Dataset:
    return open_dataset("rendered:3:7")


def test_rendered_people(rendered: Dataset) -> None:
    assert rendered.counts("train") == Counts(48, 3)
    query, gallery = rendered.load("query", SMALL), rendered.load("gallery", SMALL)
    train = rendered.load("train", SMALL)
    assert set(train.identities) == {0, 1, 2} and set(query.identities) == set(gallery.identities) == {3, 4, 5, 6}
    assert len(query) + len(gallery) == 64
    assert all(len(set(query.cameras[query.identities == person])) >= 4 for person in range(3, 7))
    # The same pictures that training on rendered people has always seen.
    known = training_set(3, 7, 16, (32, 16))
    np.testing.assert_array_equal(train.pictures, known.pictures[:48])
    assert train.cameras.tolist() == known.cameras[:48].tolist()


def test_rendering_is_heard() -> None:
    heard: list[tuple[int, int]] = []
    open_rendered(1, 2, "rendered:1:2", lambda done, total: heard.append((done, total)))
    assert heard == [(done, 32) for done in range(1, 33)]


def test_joined_sets_share_nobody(rendered: Dataset, tmp_path: Path) -> None:
    market = write_market1501(
        tmp_path / "m",
        train=["-1_c1_1.png", "0000_c1_1.png", "0001_c2_1.png"],
        query=["0009_c1_1.png"],
        gallery=["0009_c2_1.png", "0000_c7_2.png"],
    )
    source = f"market1501:{market} + rendered:3:7 + market1501:{market}"
    found = open_dataset(source)
    alone = open_dataset(f"market1501:{market}")
    assert (found.source, found.query, found.gallery) == (source, alone.query, alone.gallery)
    people = found.load("train", SMALL)
    parts = people.identities[:3], people.identities[3:-3], people.identities[-3:]
    assert parts[0].tolist() == [-1, 0, 1] and parts[2].tolist() == [-1, 17, 18]
    assert set(parts[1]) == {10, 11, 12}  # beyond person 9 of the first set's gallery
    cameras = people.cameras[:3], people.cameras[3:-3], people.cameras[-3:]
    assert cameras[1].min() > 7 and cameras[2].min() > cameras[1].max()
    assert people.names[0] == "bounding_box_train/-1_c1_1.png"
    assert people.names[3].startswith("rendered:3:7/00000_c")
    np.testing.assert_array_equal(people.pictures[:3], people.pictures[-3:])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "a data set is a folder, market1501:DIR, cuhk03:DIR"),
        ("market1501:", "a data set is a folder, market1501:DIR"),
        ("duke:somewhere", "'duke:somewhere': no such folder or layout; a data set is"),
        ("market1501:no/such", "no/such: no such folder"),
        ("rendered:", r"write rendered:SEED\[:PEOPLE\]"),
        ("rendered:1:1", "2 people or more"),
        ("rendered:1:2:3", "write rendered:SEED"),
        ("rendered:1:2 + nothing", "'nothing': no such folder"),
    ],
)
def test_sources_that_cannot_be_meant(source: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_dataset(source)


def test_folders_in_no_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not in the layout msmt17: expected list_train\.txt.*; it is empty"):
        open_dataset(f"msmt17:{tmp_path}")
    for number in range(10):
        (tmp_path / f"{number}.txt").touch()
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=r"in no known layout \(market1501: .*it holds 0\.txt, 1\.txt.* and 3 more"):
        open_dataset(str(tmp_path))
    (tmp_path / "query").mkdir()
    with pytest.raises(InputError, match=r"is in the layout market1501 but holds no picture; it holds"):
        open_dataset(str(tmp_path))
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        open_dataset("market1501:" + "a" * 5000)


def test_folders_are_recognized(tmp_path: Path) -> None:
    write_market1501(tmp_path / "market", train=["0001_c1_1.png"])
    assert open_dataset(str(tmp_path / "market")) == open_dataset(f"market1501:{tmp_path / 'market'}")
    # What each says of its files shows which layout was tried.
    for name, said in (
        ("splits_new_detected.json", r"splits_new_detected\.json: is no JSON"),
        ("splits_new_labeled.json", r"splits_new_labeled\.json: is no JSON"),
        ("cuhk03_new_protocol_config_labeled.mat", "is no MATLAB file"),
        ("list_query.txt", r"holds list_query\.txt, but neither test/"),
    ):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).touch()
        with pytest.raises(InputError, match=said):
            open_dataset(str(folder))
