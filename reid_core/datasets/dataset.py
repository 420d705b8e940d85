"""A data set as a light description: which picture shows whom from where. Pictures are decoded when they are loaded."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from reid_core.data import PersonPictures
from reid_core.pictures import prepare
from schemas.cards import InputConvention
from schemas.errors import PictureError

SplitName = Literal["train", "query", "gallery"]
SPLITS: tuple[SplitName, ...] = ("train", "query", "gallery")
Progress = Callable[[int, int], None]  # hears of (done, total)


@dataclass(frozen=True)
class Sample:
    """One picture of one person.

    name: as messages call it, such as `query/0002_c1s1_000451_03.jpg`.
    identity: -1 for junk; one number is one person in all splits of a data set.
    camera: one number is one camera in all splits.
    read: the picture at its own size, uint8 RGB (h, w, 3); raises PictureError.
    path: its file, None for a picture that has none of its own.
    """

    name: str
    identity: int
    camera: int
    read: Callable[[], NDArray[np.uint8]]
    path: Path | None = None


@dataclass(frozen=True)
class Counts:
    """Of a split: pictures, and people among them; neither counts junk, and distractors are no people."""

    pictures: int
    people: int


@dataclass(frozen=True)
class Published:
    """A known data set with the counts that its authors published."""

    name: str
    train: Counts
    query: Counts
    gallery: Counts


@dataclass(frozen=True)
class Dataset:
    """Three splits, in the order of their files or lists.

    source: what `open_dataset` was given.
    published: the known data set that this is, if it is one.
    distractor: the identity of people who were never told apart; they are only ever in the gallery.
    wrong: what the files or lists hold that could not be used, a line each; empty unless opened to be checked.
    """

    source: str
    train: tuple[Sample, ...]
    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]
    published: Published | None = None
    distractor: int | None = None
    wrong: tuple[str, ...] = ()

    def load(self, split: SplitName, convention: InputConvention, progress: Progress | None = None) -> PersonPictures:
        """All pictures of a split, decoded once, at the model's input size.

        Raises PictureError naming the first picture that cannot be read: none is left out.
        """
        samples: tuple[Sample, ...] = getattr(self, split)
        pictures = np.empty((len(samples), convention.height, convention.width, 3), np.uint8)
        with ThreadPoolExecutor() as pool:  # OpenCV decodes and resizes outside the interpreter's lock
            prepared = pool.map(lambda sample: prepare(sample.read(), convention), samples)
            for done, picture in enumerate(prepared):
                pictures[done] = picture
                if progress:
                    progress(done + 1, len(samples))
        identities = np.array([sample.identity for sample in samples], np.int64)
        cameras = np.array([sample.camera for sample in samples], np.int64)
        return PersonPictures(pictures, identities, cameras, tuple(sample.name for sample in samples))


def picture_file(path: Path, name: str, identity: int, camera: int) -> Sample:
    """A sample whose picture is a file of its own."""
    return Sample(name, identity, camera, partial(read_picture, path), path)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture file as uint8 RGB (h, w, 3). Raises PictureError naming it."""
    try:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise PictureError(f"{path}: cannot be decoded: {error.err}") from None
    if picture is None:
        what = "no picture that can be decoded; remove it or get it again" if path.exists() else "no such file"
        raise PictureError(f"{path}: {what}")
    return np.asarray(picture[:, :, ::-1], np.uint8)
