"""Market-1501, and any folder in its form: names such as `bounding_box_test/0002_c1s1_000451_03.jpg`.

Identity -1 is junk, detections that are no whole person. In the test folders identity 0 are distractors, people who
were never told apart; they stay in the gallery. Among the training people 0 is a person like any other.
"""

import re
from pathlib import Path

from reid_core.datasets.dataset import Counts, Dataset, Published, Sample, picture_file
from schemas.errors import InputError

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
DISTRACTOR = 0
PUBLISHED = Published("Market-1501", Counts(12_936, 751), Counts(3_368, 750), Counts(15_913, 750))

#: Identity, camera (of any number of digits), perhaps a sequence, then anything.
_NAME = re.compile(r"(?P<identity>-1|\d{1,9})_c(?P<camera>\d{1,6})(?:s\d+)?(?:_.*)?\.(?:jpe?g|png)", re.IGNORECASE)
_SUFFIXES = {".jpg", ".jpeg", ".png"}


def labels_of(name: str) -> tuple[int, int] | None:
    """Identity and camera of a file name; None where it does not parse."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match["identity"]), int(match["camera"]))


def open_market1501(directory: Path, source: str) -> Dataset:
    """The data set below `directory`, by name in each folder. A folder that is missing is an empty split.

    Raises InputError where none of the three is there, or all are empty.
    """
    present = [name for name in FOLDERS.values() if (directory / name).is_dir()]
    if not present:
        raise InputError(f"{directory}: holds no folder {', '.join(FOLDERS.values())}")
    wrong: list[str] = []
    train, query, gallery = (tuple(list_folder(directory / name, wrong)) for name in FOLDERS.values())
    return Dataset(source, train, query, gallery, None, DISTRACTOR, tuple(wrong))


def list_folder(folder: Path, wrong: list[str]) -> list[Sample]:
    """The pictures of one folder by name; names that do not parse are added to `wrong`."""
    if not folder.is_dir():
        return []
    samples: list[Sample] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES):
        labels = labels_of(path.name)
        name = f"{folder.name}/{path.name}"
        if labels is None:
            wrong.append(f"{name}: not of the form 0002_c1s1_000451_03.jpg")
        else:
            samples.append(picture_file(path, name, *labels))
    return samples
