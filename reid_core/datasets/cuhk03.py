"""CUHK03 in the new protocol: 767 people to train on, 700 to test (Zhong et al., 'Re-ranking Person Re-identification
with k-reciprocal Encoding', CVPR 2017), boxes by a detector or by hand.

A picture is named `1_001_1_01.png`: camera pair 1, its person 001, view 1, picture 01 of ten, of which 01 to 05 are
view 1 and 06 to 10 are view 2. The protocol counts the two views as cameras. People are numbered 1 to 1,467 through
the five pairs, as in the protocol's own files. The data set comes in one of these forms:

- a protocol file and pictures. The protocol: `cuhk03_new_protocol_config_detected.mat` (or `_labeled`) of Zhong et al.,
  or the JSON commonly made from it, `splits_new_detected.json`, one split of lists of [path, person, camera]. Only the
  file names of its paths are used, since the folders belong to another machine, and not its person numbers, which
  count training and test people differently. The pictures: a folder `images_detected` (`images_labeled`, or
  `cuhk03_...`), or the authors' `cuhk-03.mat`, here or in `cuhk03_release/`, which is HDF5 and needs h5py;
- folders in Market-1501's form below `detected/` and `labeled/`, which Zhong et al. publish too.
"""

import json
import re
import zlib
from functools import partial
from pathlib import Path

from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from reid_core.datasets.cuhk03_release import Boxes, Release
from reid_core.datasets.dataset import SPLITS, Dataset, Sample, SplitName, picture_file
from reid_core.datasets.market1501 import is_market1501, open_market1501
from reid_core.datasets.published import CUHK03_DETECTED, CUHK03_LABELED
from schemas.errors import InputError

EXPECTED = (
    "cuhk03_new_protocol_config_detected.mat (_labeled.mat) or splits_new_detected.json (_labeled.json), and the "
    "pictures in images_detected/ (images_labeled/) or in cuhk-03.mat; or folders in Market-1501's form in detected/ "
    "(labeled/)"
)
_FOLDERS = ("images_{}", "cuhk03_{}")
_RELEASE = ("cuhk-03.mat", "cuhk03_release/cuhk-03.mat", "CUHK03_release/cuhk-03.mat")
#: People under each pair of cameras.
PAIRS = (843, 440, 77, 58, 49)
_MAX_PROTOCOL_BYTES = 16_000_000
_NAME = re.compile(r"([1-5])_(\d{3})_([12])_(\d{2})\.png")

Lists = dict[SplitName, list[str]]  # names of pictures
Pictures = Path | Release  # a folder, or cuhk-03.mat


def is_cuhk03(directory: Path, boxes: Boxes) -> bool:
    return is_market1501(directory / boxes) or any(path.is_file() for path in _protocols(directory, boxes))


def open_cuhk03(directory: Path, source: str, boxes: Boxes) -> Dataset:
    """Opens a folder in any of the forms. Raises InputError for a protocol file that cannot be read."""
    published = CUHK03_DETECTED if boxes == "detected" else CUHK03_LABELED
    if is_market1501(directory / boxes):
        found = open_market1501(directory / boxes, source)
        return Dataset(source, found.train, found.query, found.gallery, published, None, found.wrong)
    config, split = _protocols(directory, boxes)
    lists = _read_config(config) if config.is_file() else _read_json(split)
    pictures = _pictures(directory, boxes)
    wrong: list[str] = []
    train, query, gallery = (tuple(_samples(lists[name], name, pictures, wrong)) for name in SPLITS)
    return Dataset(source, train, query, gallery, published, None, tuple(wrong))


def _protocols(directory: Path, boxes: Boxes) -> tuple[Path, Path]:
    return directory / f"cuhk03_new_protocol_config_{boxes}.mat", directory / f"splits_new_{boxes}.json"


def _read_config(path: Path) -> Lists:
    """Picture names by split, from the authors' file: a list of all names, and 1-based indices into it."""
    try:
        _refuse_large(path)
        found = loadmat(str(path))
        names = [str(cell[0]) for cell in found["filelist"].ravel()]
        rows = {name: found[f"{name}_idx"].ravel().astype(int) - 1 for name in SPLITS}
        return {name: [names[row] for row in rows[name]] for name in SPLITS}
    except KeyError as error:
        raise InputError(f"{path}: holds no {error}; is it the file of the new protocol?") from None
    except (MatReadError, zlib.error, OSError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise InputError(f"{path}: is no MATLAB file of the new protocol: {str(error)[:120]}") from None


def _read_json(path: Path) -> Lists:
    """Picture names by split, from the common JSON file: one split, whose parts are lists of [path, person, camera]."""
    try:
        _refuse_large(path)
        found = json.loads(path.read_text(encoding="utf-8"))
        (split,) = found if isinstance(found, list) else [found]
        return {name: [re.split(r"[/\\]", entry[0])[-1] for entry in split[name]] for name in SPLITS}
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        said = f"{type(error).__name__}: {str(error)[:120]}"
        raise InputError(
            f"{path}: is no JSON of the new protocol, one split with train, query and gallery as lists of "
            f"[path, person, camera] ({said})"
        ) from None


def _refuse_large(path: Path) -> None:
    if path.stat().st_size > _MAX_PROTOCOL_BYTES:
        raise InputError(f"{path}: larger than {_MAX_PROTOCOL_BYTES // 10**6} MB, which no protocol file is")


def _samples(names: list[str], split: str, pictures: Pictures, wrong: list[str]) -> list[Sample]:
    samples: list[Sample] = []
    for name in names:
        match = _NAME.fullmatch(name)
        pair, person, view, number = map(int, match.groups()) if match else (0, 0, 0, 0)
        if not pair or not 1 <= person <= PAIRS[pair - 1] or not 1 <= number <= 10:
            wrong.append(f"{split}: {name[:80]!r} is not of the form 1_001_1_01.png")
            continue
        identity, shown = sum(PAIRS[: pair - 1]) + person, f"{split}/{name}"
        if isinstance(pictures, Path):
            samples.append(picture_file(pictures / name, shown, identity, view))
        else:
            samples.append(Sample(shown, identity, view, partial(pictures.read, pair, person, number)))
    return samples


def _pictures(directory: Path, boxes: Boxes) -> Pictures:
    folders = [directory / name.format(boxes) for name in _FOLDERS]
    files = [directory / name for name in _RELEASE]
    for folder in folders:
        if folder.is_dir():
            return folder
    for file in files:
        if file.is_file():
            return Release(file, boxes)
    raise InputError(
        f"{directory}: holds the protocol but no pictures: {folders[0].name}/ with pictures such as 1_001_1_01.png, or "
        "cuhk-03.mat"
    )
