"""Market-1501, and any folder in its form: names such as `bounding_box_test/0002_c1s1_000451_03.jpg`.

Identity -1 is junk, detections that are no whole person. Identity 0 is no person where no query shows it: Market-1501's
distractors, people never told apart, which stay in the gallery. In other data sets, and among training people, 0 is a
person like any other.
"""

import re
from pathlib import Path

from reid_core.datasets.dataset import Dataset, Sample, picture_file
from reid_core.datasets.published import MARKET1501, known_by_counts

EXPECTED = "bounding_box_train/, query/ and bounding_box_test/ with pictures such as 0002_c1s1_000451_03.jpg"
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")  # train, query, gallery

#: Identity, camera (of any number of digits), perhaps a sequence, then anything.
_NAME = re.compile(r"(?P<identity>-1|\d{1,9})_c(?P<camera>\d{1,6})(?:s\d+)?(?:_.*)?\.(?:jpe?g|png)", re.IGNORECASE)
_SUFFIXES = {".jpg", ".jpeg", ".png"}


def is_market1501(directory: Path) -> bool:
    return any((directory / name).is_dir() for name in FOLDERS)


def open_market1501(directory: Path, source: str) -> Dataset:
    """The data set of a folder in this form. One of the three folders that is missing is an empty split."""
    wrong: list[str] = []
    train, query, gallery = (tuple(_list(directory / name, wrong)) for name in FOLDERS)
    distractor = None if any(sample.identity == 0 for sample in query) else 0
    by_name = MARKET1501 if re.search(r"market.?1501", directory.resolve().name, re.IGNORECASE) else None
    published = by_name or known_by_counts(train, query, gallery, distractor)
    return Dataset(source, train, query, gallery, published, distractor, tuple(wrong))


def labels_of(name: str) -> tuple[int, int] | None:
    """Identity and camera of a file name; None where it does not parse."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match["identity"]), int(match["camera"]))


def _list(folder: Path, wrong: list[str]) -> list[Sample]:
    """The pictures of one folder by name; a line for each that cannot be used is added to `wrong`."""
    if not folder.is_dir():
        return []
    samples: list[Sample] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES):
        labels = labels_of(path.name)
        if labels is None:
            wrong.append(f"{folder.name}/{path.name}: the name is not of the form 0002_c1s1_000451_03.jpg")
        else:
            samples.append(picture_file(path, f"{folder.name}/{path.name}", *labels))
    return samples
