"""Labelled pictures of people in memory, and the folders that they are read from."""

import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from reid_core.pictures import prepare
from schemas.cards import InputConvention
from schemas.errors import InputError, PictureError

#: Identity of detections that are no whole person; they are neither trained on nor ranked.
JUNK = -1

#: `0002_c1s1_000451_03.jpg`: identity, camera (of any number of digits), then anything.
_MARKET1501 = re.compile(r"(?P<identity>-1|\d+)_c(?P<camera>\d+)(?:s\d+)?(?:_.*)?\.(?:jpe?g|png)", re.IGNORECASE)
_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class PersonPictures:
    """Prepared pictures with their labels, in one order.

    pictures: uint8 RGB (N, H, W, 3), already of the model's input size.
    identities: int64 (N,), -1 for junk. Any other number is a person (Market-1501's 0: distractors of the gallery).
    cameras: int64 (N,).
    """

    pictures: NDArray[np.uint8]
    identities: NDArray[np.int64]
    cameras: NDArray[np.int64]

    def __post_init__(self) -> None:
        assert self.pictures.dtype == np.uint8 and self.pictures.ndim == 4 and self.pictures.shape[3] == 3
        assert self.identities.shape == self.cameras.shape == (len(self.pictures),)

    def __len__(self) -> int:
        return len(self.pictures)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "PersonPictures":
        """The pictures of a mask or of indices."""
        return PersonPictures(self.pictures[rows], self.identities[rows], self.cameras[rows])

    def split_queries(self) -> "tuple[PersonPictures, PersonPictures]":
        """Query and gallery: the first picture of each identity and camera is a query, as in Market-1501."""
        keys = np.stack([self.identities, self.cameras], 1)
        first = np.zeros(len(self), bool)
        first[np.unique(keys, axis=0, return_index=True)[1]] = True
        first &= self.identities != JUNK
        return self.select(first), self.select(~first)

    def digest(self) -> str:
        """Hex SHA-256 of pictures and labels."""
        found = hashlib.sha256(repr(self.pictures.shape).encode())
        for array in (self.pictures, self.identities, self.cameras):
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def market1501_labels(name: str) -> tuple[int, int] | None:
    """Identity and camera of a file name in Market-1501's form; None where it does not parse."""
    match = _MARKET1501.fullmatch(name)
    return None if match is None else (int(match["identity"]), int(match["camera"]))


def read_market1501(
    folder: Path, convention: InputConvention, progress: Callable[[int, int], None] | None = None
) -> PersonPictures:
    """All JPEG and PNG pictures of one folder (`bounding_box_train`, `query`, ...) in the order of their names.

    Raises InputError for a folder that is missing, empty, or holds names that do not parse (the first ten are listed),
    and PictureError for a picture that cannot be decoded.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds pictures such as 0002_c1s1_000451_03.jpg")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise InputError(f"{folder}: holds no .jpg or .png picture")
    labels = [market1501_labels(file.name) for file in files]
    unread = [file.name for file, label in zip(files, labels, strict=True) if label is None]
    if unread:
        raise InputError(
            f"{folder}: {len(unread)} names are not of the form 0002_c1s1_000451_03.jpg: {', '.join(unread[:10])}"
        )
    pictures = np.empty((len(files), convention.height, convention.width, 3), np.uint8)
    with ThreadPoolExecutor(max_workers=4) as pool:  # OpenCV decodes outside the interpreter's lock
        for done, picture in enumerate(pool.map(lambda file: prepare(_decode(file), convention), files)):
            pictures[done] = picture
            if progress:
                progress(done + 1, len(files))
    found = np.array(labels, np.int64)  # (N, 2)
    return PersonPictures(pictures, found[:, 0], found[:, 1])


def _decode(file: Path) -> NDArray[np.uint8]:
    try:
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise PictureError(f"{file}: cannot be decoded: {error.err}") from None
    if picture is None:
        raise PictureError(f"{file}: no picture that can be decoded; remove it or get it again")
    return np.asarray(picture[:, :, ::-1], np.uint8)
