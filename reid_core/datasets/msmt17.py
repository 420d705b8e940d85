"""MSMT17, version 1 (`train`, `test`) and version 2 with faces masked (`mask_train_v2`, `mask_test_v2`).

Each split has a list with one line a picture, `0000/0000_045_12_0303morning_0006_2.jpg 0`: the path below the split's
folder, and the person. The third part of the name is the camera, 1 to 15. Person 0 is a person.

The lists of training and test people both count from 0; here the test people's numbers continue after the training
people's. `list_val.txt` shows the same 1,041 people as `list_train.txt`; together they are the 32,621 training pictures
that papers report on, so both are the training split. To choose settings, use `hold_out`, which holds out people rather
than pictures.
"""

import re
from pathlib import Path

from reid_core.datasets.dataset import Dataset, Sample, picture_file
from reid_core.datasets.published import MSMT17
from schemas.errors import InputError

EXPECTED = (
    "list_train.txt, list_val.txt, list_query.txt and list_gallery.txt beside train/ and test/ "
    "(version 2: mask_train_v2/ and mask_test_v2/)"
)
_LINE = re.compile(r"(?P<picture>(?:.*/)?[^/_]+_[^/_]+_(?P<camera>\d{1,6})_[^/]+) (?P<person>\d{1,9})", re.ASCII)
_EXAMPLE = "0000/0000_045_12_0303morning_0006_2.jpg 0"
TRAIN_LISTS, TEST_LISTS = ("list_train.txt", "list_val.txt"), ("list_query.txt", "list_gallery.txt")
_TRAIN_FOLDERS, _TEST_FOLDERS = ("train", "mask_train_v2"), ("test", "mask_test_v2")


def is_msmt17(directory: Path) -> bool:
    return any((directory / name).is_file() for name in (*TRAIN_LISTS, *TEST_LISTS))


def open_msmt17(directory: Path, source: str) -> Dataset:
    """Opens a folder in this form. A missing list is empty."""
    wrong: list[str] = []
    train = [sample for name in TRAIN_LISTS for sample in _list(directory, name, _TRAIN_FOLDERS, 0, wrong)]
    after = 1 + max((sample.identity for sample in train), default=-1)
    query, gallery = (_list(directory, name, _TEST_FOLDERS, after, wrong) for name in TEST_LISTS)
    return Dataset(source, tuple(train), tuple(query), tuple(gallery), MSMT17, None, tuple(wrong))


def _list(directory: Path, name: str, folders: tuple[str, ...], after: int, wrong: list[str]) -> list[Sample]:
    """The samples of one list, people numbered from `after`; adds a line to `wrong` for each that cannot be used."""
    path = directory / name
    if not path.is_file():
        return []
    folder = next((folder for folder in folders if (directory / folder).is_dir()), None)
    if folder is None:
        raise InputError(f"{directory}: holds {name}, but neither {folders[0]}/ nor {folders[1]}/ with its pictures")
    samples: list[Sample] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        said = _LINE.fullmatch(line.strip())
        if said is None:
            wrong.append(f"{name}, line {number}: {line.strip()[:80]!r} is not of the form {_EXAMPLE}")
        elif Path(said["picture"]).is_absolute() or ".." in Path(said["picture"]).parts:
            wrong.append(f"{name}, line {number}: {said['picture'][:80]!r} lies outside {folder}/")
        else:
            file, shown = directory / folder / said["picture"], f"{folder}/{said['picture']}"
            samples.append(picture_file(file, shown, after + int(said["person"]), int(said["camera"])))
    return samples
