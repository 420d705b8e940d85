import json
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from reid_core.datasets import Dataset, open_dataset
from schemas.errors import InputError, PictureError
from tests.helpers.data_sets import SMALL, pixels, write, write_market1501

# Person 001 of pair 1 and person 002 of pair 2 (people 1 and 845 of the protocol) train; 003 of pair 1 is tested.
NAMES = [
    "1_001_1_01.png",
    "1_001_2_06.png",
    "1_003_1_01.png",
    "1_003_1_02.png",
    "1_003_2_06.png",
    "1_003_2_10.png",
    "2_002_1_03.png",
]
LABELS = [1, 1, 3, 3, 3, 3, 845]
TRAIN, QUERY, GALLERY = [0, 1, 6], [3, 4], [2, 5]


def write_config(folder: Path, boxes: str, **changed: Any) -> None:
    """The protocol's file, as Zhong et al. save it: columns of uint16, 1-based, and a column of cells."""
    columns: dict[str, Any] = {
        "labels": np.array(LABELS, np.uint16)[:, None],
        "camId": np.array([int(name[6]) for name in NAMES], np.uint8)[:, None],
        "filelist": np.array(NAMES, object)[:, None],
    }
    for name, rows in (("train", TRAIN), ("query", QUERY), ("gallery", GALLERY)):
        columns[f"{name}_idx"] = np.array(rows, np.uint16)[:, None] + 1
    savemat(folder / f"cuhk03_new_protocol_config_{boxes}.mat", columns | changed, do_compression=True)


def write_json(folder: Path, boxes: str) -> None:
    """As torchreid writes it: elsewhere's paths, cameras from 0, training people from 0, test people as labeled."""
    training = {1: 0, 845: 1}
    split: dict[str, Any] = {}
    for name, rows in (("train", TRAIN), ("query", QUERY), ("gallery", GALLERY)):
        split[name] = [
            [f"/elsewhere/cuhk03/images_{boxes}/{NAMES[row]}", training.get(LABELS[row], 3), int(NAMES[row][6]) - 1]
            for row in rows
        ]
        split[f"num_{name}_imgs"] = len(rows)
    (folder / f"splits_new_{boxes}.json").write_text(json.dumps([split]))


def write_pictures(folder: Path) -> None:
    for number, name in enumerate(NAMES):
        write(folder / name, pixels(number))


def write_release(path: Path) -> None:
    """As MATLAB saves cells in HDF5: references with their axes turned round, empty cells as two zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        empty = file.create_dataset("#refs#/empty", data=np.zeros(2, np.uint64))
        for boxes in ("detected", "labeled"):
            pairs = file.create_dataset(boxes, (1, 5), h5py.ref_dtype)
            for pair in range(5):
                cell = file.create_dataset(f"#refs#/{boxes}{pair}", (10, 3), h5py.ref_dtype)
                cell[:] = empty.ref
                pairs[0, pair] = cell.ref
        for number, name in enumerate(NAMES):
            pair, person, _, index = (int(part) for part in name.removesuffix(".png").split("_"))
            picture = file.create_dataset(f"#refs#/{number}", data=pixels(number).T)
            for boxes in ("detected", "labeled"):
                file[f"#refs#/{boxes}{pair - 1}"][index - 1, person - 1] = picture.ref


@pytest.fixture(params=["config", "json", "release", "release below", "market"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for boxes in ("detected", "labeled"):
        match request.param:
            case "config":
                write_config(tmp_path, boxes)
                write_pictures(tmp_path / f"images_{boxes}")
            case "json":
                write_json(tmp_path, boxes)
                write_pictures(tmp_path / f"cuhk03_{boxes}")
            case "release":
                write_config(tmp_path, boxes)
                write_release(tmp_path / "cuhk-03.mat")
            case "release below":
                write_json(tmp_path, boxes)
                write_release(tmp_path / "cuhk03_release" / "cuhk-03.mat")
            case "market":
                for name, rows in (("bounding_box_train", TRAIN), ("query", QUERY), ("bounding_box_test", GALLERY)):
                    for row in rows:
                        market = f"{LABELS[row]:04}_c{NAMES[row][6]}_{row}.png"
                        write(tmp_path / boxes / name / market, pixels(row))
    return tmp_path


@pytest.mark.parametrize("kind", ["cuhk03", "cuhk03-labeled"])
def test_every_form_gives_the_same_people_and_pictures(folder: Path, kind: str) -> None:
    found = open_dataset(f"{kind}:{folder}")
    assert found.published is not None and found.published.name == f"CUHK03 {kind[7:] or 'detected'}"
    for split, rows in (("train", TRAIN), ("query", QUERY), ("gallery", GALLERY)):
        people = found.load(split, SMALL)  # type: ignore[arg-type]
        assert people.identities.tolist() == [LABELS[row] for row in rows]
        assert people.cameras.tolist() == [int(NAMES[row][6]) for row in rows]
    samples = (*found.train, *found.query, *found.gallery)
    for sample, row in zip(samples, TRAIN + QUERY + GALLERY, strict=True):
        np.testing.assert_array_equal(sample.read(), pixels(row))


def test_an_empty_cell_is_named(tmp_path: Path) -> None:
    write_config(tmp_path, "detected", filelist=np.array([*NAMES[:-1], "5_003_2_08.png"], object)[:, None])
    write_release(tmp_path / "cuhk-03.mat")
    with pytest.raises(PictureError, match=r"cuhk-03\.mat, detected\{5\}\{3, 8\}: holds no picture"):
        open_dataset(f"cuhk03:{tmp_path}").load("train", SMALL)


def opened(folder: Path) -> Dataset:
    return open_dataset(f"cuhk03:{folder}")


def test_names_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "images_detected").mkdir()
    strange = ["1_844_1_01.png", "6_001_1_01.png", "1_001_1_11.png", "../1_001_1_01.png", "001.png", *NAMES[5:]]
    write_config(tmp_path, "detected", filelist=np.array(strange, object)[:, None])
    found = open_dataset(f"cuhk03:{tmp_path}", strict=False)
    assert [len(split) for split in (found.train, found.query, found.gallery)] == [1, 0, 1]
    assert len(found.wrong) == 5 and "'1_844_1_01.png' is not of the form 1_001_1_01.png" in found.wrong[0]
    with pytest.raises(
        InputError, match=r"5 pictures of the data set cannot be used: train: '1_844_1_01\.png' is not of the form"
    ):
        opened(tmp_path)


def test_protocol_files_that_are_none(tmp_path: Path) -> None:
    config, split = tmp_path / "cuhk03_new_protocol_config_detected.mat", tmp_path / "splits_new_detected.json"
    write_config(tmp_path, "detected")
    with pytest.raises(InputError, match="holds the protocol but no pictures: images_detected/ with"):
        opened(tmp_path)
    whole = config.read_bytes()
    for data in (b"", whole[:90], whole[:400], whole[:-40], b"x" * 400, whole[:200] + b"\0\0\0\0" + whole[204:]):
        config.write_bytes(data)
        with pytest.raises(InputError, match=r"config_detected\.mat: is no MATLAB file of the new protocol"):
            opened(tmp_path)
    savemat(config, {"labels": np.zeros(3)})
    with pytest.raises(InputError, match="holds no 'filelist'"):
        opened(tmp_path)
    write_config(tmp_path, "detected", train_idx=np.array([[99]], np.uint16))
    with pytest.raises(InputError, match=r"index 98 is out of bounds|list index out of range"):
        opened(tmp_path)
    config.unlink()
    for text in (
        "",
        "{}",
        "[]",
        "[{}, {}]",
        '[{"train": [], "query": []}]',
        '[{"train": [[]]}]',
        '[{"train": [1]}]',
        "3",
        "[" * 50_000,
    ):
        split.write_text(text)
        with pytest.raises(InputError, match=r"splits_new_detected\.json: is no JSON of the new protocol"):
            opened(tmp_path)


def test_a_release_that_is_none(tmp_path: Path) -> None:
    write_config(tmp_path, "detected")
    (tmp_path / "cuhk-03.mat").write_bytes(b"x" * 2000)
    with pytest.raises(InputError, match=r"is not CUHK03's cuhk-03\.mat"):
        opened(tmp_path)
    with h5py.File(tmp_path / "cuhk-03.mat", "w") as file:
        file.create_dataset("testsets", data=np.zeros(3))
    with pytest.raises(InputError, match=r"is not CUHK03's cuhk-03\.mat"):
        opened(tmp_path)


def test_another_layout_is_told(tmp_path: Path) -> None:
    market = write_market1501(tmp_path / "m" / "Market-1501", query=["0001_c1_1.png"])
    with pytest.raises(InputError, match=rf"is not in the layout cuhk03: expected .* was market1501:{market} meant\?"):
        opened(market.parent)


def test_without_h5py_the_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, "detected")
    write_release(tmp_path / "cuhk-03.mat")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"pip install 'urban-reid\[cuhk03\]'"):
        opened(tmp_path)
