"""Market-1501, and any folder in its form: names such as `bounding_box_test/0002_c1s1_000451_03.jpg`.

Identity -1 is junk: detections that are no whole person. Identity 0, if no query shows it, stands for Market-1501's
distractors: people who were never told apart and stay in the gallery. In other data sets, and among training people, 0
is a person like any other.
"""

import re
from pathlib import Path
from typing import NamedTuple

from reid_core.datasets.dataset import Dataset, Sample, picture_file
from reid_core.datasets.published import MARKET1501, known_by_counts

EXPECTED = "bounding_box_train/, query/ and bounding_box_test/ with pictures such as 0002_c1s1_000451_03.jpg"
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")  # train, query, gallery

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_NAME = re.compile(
    r"(-1|\d{1,9})_c(\d{1,6})(?:s(\d{1,4})_(\d{1,9})_\d{1,6}|(?:s\d+)?(?:_.*)?)\.(?:jpe?g|png|bmp|webp)", re.IGNORECASE
)


class MarketName(NamedTuple):
    """The parts of a file name; sequence and frame are None if the name leaves them out."""

    identity: int
    camera: int
    sequence: int | None
    frame: int | None


def is_market1501(directory: Path) -> bool:
    return any((directory / name).is_dir() for name in FOLDERS)


def open_market1501(directory: Path, source: str) -> Dataset:
    """Opens a folder in this form. A missing folder is an empty split."""
    wrong: list[str] = []
    train, query, gallery = (tuple(_list(directory / name, wrong)) for name in FOLDERS)
    distractor = None if any(sample.identity == 0 for sample in query) else 0
    by_name = MARKET1501 if re.search(r"market.?1501", directory.resolve().name, re.IGNORECASE) else None
    published = by_name or known_by_counts(train, query, gallery, distractor)
    return Dataset(source, train, query, gallery, published, distractor, tuple(wrong))


def parse_name(name: str) -> MarketName | None:
    """Parses a file name; None if it is not of the form.

    `0002_c1s1_000451_03.jpg` is person 2, camera 1, sequence 1, frame 451 (and detection 3, which is not used);
    `0002_c1_anything.png` holds person and camera only.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    identity, camera, sequence, frame = match.groups()
    return MarketName(int(identity), int(camera), int(sequence) if sequence else None, int(frame) if frame else None)


def _list(folder: Path, wrong: list[str]) -> list[Sample]:
    """The samples of one folder by name; adds a line to `wrong` for each name that does not parse."""
    if not folder.is_dir():
        return []
    samples: list[Sample] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        said = parse_name(path.name)
        if said is None:
            wrong.append(f"{folder.name}/{path.name}: the name is not of the form 0002_c1s1_000451_03.jpg")
        else:
            samples.append(picture_file(path, f"{folder.name}/{path.name}", said.identity, said.camera))
    return samples
