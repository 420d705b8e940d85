"""Labeled pictures of people in memory."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Identity of detections that are no whole person; they are not used for training or ranking.
JUNK = -1


@dataclass(frozen=True)
class PersonPictures:
    """Prepared pictures with their labels, in the same order.

    pictures: uint8 RGB (N, H, W, 3), already of the model's input size.
    identities: int64 (N,), -1 for junk. Any other number is a person (Market-1501's 0: distractors of the gallery).
    cameras: int64 (N,).
    names: N file names for messages, or ().
    """

    pictures: NDArray[np.uint8]
    identities: NDArray[np.int64]
    cameras: NDArray[np.int64]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.pictures.dtype == np.uint8 and self.pictures.ndim == 4 and self.pictures.shape[3] == 3
        assert self.identities.shape == self.cameras.shape == (len(self.pictures),)
        assert len(self.names) in (0, len(self.pictures))

    def __len__(self) -> int:
        return len(self.pictures)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "PersonPictures":
        """The pictures of a mask or of indices; `self`, not a copy, if the mask keeps all."""
        if rows.dtype == bool and rows.all():
            return self
        names = tuple(self.names[row] for row in np.arange(len(self))[rows]) if self.names else ()
        return PersonPictures(self.pictures[rows], self.identities[rows], self.cameras[rows], names)

    def split_queries(self) -> "tuple[PersonPictures, PersonPictures]":
        """Splits into query and gallery: the first picture of an identity and camera is a query, as in Market-1501."""
        first = first_pictures(self.identities, self.cameras)
        return self.select(first), self.select(~first)

    def digest(self) -> str:
        """Hex SHA-256 of pictures and labels, without names."""
        found = hashlib.sha256(repr(self.pictures.shape).encode())
        for array in (self.pictures, self.identities, self.cameras):
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def first_pictures(identities: NDArray[np.int64], cameras: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask (N,) of the first picture of each identity and camera, without junk."""
    first = np.zeros(len(identities), bool)
    first[np.unique(np.stack([identities, cameras], 1), axis=0, return_index=True)[1]] = True
    first &= identities != JUNK
    return first
