"""A data set as a light description: person and camera of each picture. Pictures are decoded when they are loaded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from reid_core.datasets.person_pictures import JUNK, PersonPictures, first_pictures
from reid_core.decoding import read_picture
from reid_core.preprocessing import prepare
from schemas.cards import InputConvention

SplitName = Literal["train", "query", "gallery"]
SPLITS: tuple[SplitName, ...] = ("train", "query", "gallery")
Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]  # called with (done, total)


@dataclass(frozen=True)
class Sample:
    """One picture of one person.

    name: its name in messages, such as `query/0002_c1s1_000451_03.jpg`.
    identity: -1 for junk; one number is one person in all splits of a data set.
    camera: one number is one camera in all splits.
    read: the picture at its own size, uint8 RGB (h, w, 3); raises PictureError.
    path: its file; None if it has no file of its own.
    """

    name: str
    identity: int
    camera: int
    read: Callable[[], NDArray[np.uint8]] = field(compare=False)
    path: Path | None = None


@dataclass(frozen=True)
class Counts:
    """Counts of a split: pictures without junk, and people without distractors."""

    pictures: int
    people: int


@dataclass(frozen=True)
class Published:
    """A data set with published figures, and its counts."""

    name: str
    train: Counts
    query: Counts
    gallery: Counts


@dataclass(frozen=True)
class Dataset:
    """Three splits, each in the order of its files or its list.

    source: the text that `open_dataset` was given.
    published: the published data set that this is, if it is one.
    distractor: the identity that stands for gallery people who were never told apart, if there is one.
    wrong: a line for each entry that cannot be used; empty unless opened with `strict=False`.
    """

    source: str
    train: tuple[Sample, ...]
    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]
    published: Published | None = None
    distractor: int | None = None
    wrong: tuple[str, ...] = ()

    def load(self, split: SplitName, convention: InputConvention, progress: Progress | None = None) -> PersonPictures:
        """Decodes a split at the model's input size into N * H * W * 3 bytes.

        `progress` is called with (done, N). Raises PictureError with the first picture that cannot be read; none is
        left out.
        """
        samples = self.split(split)
        pictures = np.empty((len(samples), convention.height, convention.width, 3), np.uint8)
        with in_threads(lambda sample: prepare(sample.read(), convention), samples) as prepared:
            for done, picture in enumerate(prepared):
                pictures[done] = picture
                if progress:
                    progress(done + 1, len(samples))
        names = tuple(sample.name for sample in samples)
        return PersonPictures(pictures, *labels_of(samples), names)

    def split(self, name: SplitName) -> tuple[Sample, ...]:
        return {"train": self.train, "query": self.query, "gallery": self.gallery}[name]

    def counts(self, name: SplitName) -> Counts:
        return count(self.split(name), None if name == "train" else self.distractor)


@contextmanager
def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Iterator[Result]]:
    """Yields an iterator of `work(item)` in the order of `items`, computed in threads.

    Decoders, OpenCV and hashes release the interpreter's lock. If the block ends early, by an error or Ctrl-C, only
    items already begun are finished.
    """
    pool = ThreadPoolExecutor()
    try:
        yield pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def labels_of(samples: Iterable[Sample]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Identities (N,) and cameras (N,)."""
    labels = np.array([(sample.identity, sample.camera) for sample in samples], np.int64).reshape(-1, 2)
    return labels[:, 0], labels[:, 1]


def split_queries(samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Splits into query and gallery: the first picture of each identity and camera is a query, as in Market-1501."""
    first = first_pictures(*labels_of(samples))
    query = tuple(sample for sample, asks in zip(samples, first, strict=True) if asks)
    return query, tuple(sample for sample, asks in zip(samples, first, strict=True) if not asks)


def count(samples: Iterable[Sample], distractor: int | None) -> Counts:
    shown = [sample.identity for sample in samples if sample.identity != JUNK]
    return Counts(len(shown), len(set(shown) - {distractor}))


def picture_file(path: Path, name: str, identity: int, camera: int) -> Sample:
    """A sample whose picture is a file."""
    return Sample(name, identity, camera, partial(read_picture, path), path)
