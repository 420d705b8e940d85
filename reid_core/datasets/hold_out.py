"""A validation split of the training people, so that no setting is chosen on the test people."""

from dataclasses import replace
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from reid_core.datasets.dataset import Dataset, labels_of
from reid_core.datasets.person_pictures import JUNK, PersonPictures, first_pictures
from schemas.errors import InputError


class HeldOut(NamedTuple):
    """What is left to train on, and the queries and gallery of the people held out."""

    train: PersonPictures
    query: PersonPictures
    gallery: PersonPictures


@overload
def hold_out(given: Dataset, people: int = ..., seed: int = ...) -> Dataset: ...
@overload
def hold_out(given: PersonPictures, people: int = ..., seed: int = ...) -> HeldOut: ...
def hold_out(given: Dataset | PersonPictures, people: int = 100, seed: int = 0) -> Dataset | HeldOut:
    """`people` of the training people, drawn by `seed`, become query and gallery; the others are left to train on.

    Of a data set, its training split is meant, and the answer is a data set without its test people; of pictures, all.
    Both draw the same people. The first picture of a person and camera is a query, as in Market-1501; junk stays with
    the training pictures. Only people whose every query then has a match are drawn: those with two pictures or more
    before each of two cameras or more. Raises InputError where there are not so many of them, or nobody would be left
    to train on.
    """
    if isinstance(given, PersonPictures):
        return HeldOut(*(given.select(rows) for rows in _rows(given.identities, given.cameras, people, seed)))
    train, query, gallery = (
        tuple(given.train[row] for row in rows) for rows in _rows(*labels_of(given.train), people, seed)
    )
    return replace(given, train=train, query=query, gallery=gallery, published=None, distractor=None)


def _rows(identities: NDArray[np.int64], cameras: NDArray[np.int64], people: int, seed: int) -> list[NDArray[np.intp]]:
    """Ascending indices of what is left to train on, of queries and of gallery."""
    keys, counts = np.unique(np.stack([identities, cameras], 1), axis=0, return_counts=True)
    known, views = np.unique(keys[(counts >= 2) & (keys[:, 0] != JUNK), 0], return_counts=True)
    eligible = known[views >= 2]
    others = len(np.unique(identities[identities != JUNK])) - people
    if people < 1 or people > len(eligible) or others < 1:
        raise InputError(
            f"{people} people cannot be held out: {len(eligible)} have two pictures before each of two cameras, and "
            "somebody has to be left to train on"
        )
    chosen = np.isin(identities, np.random.default_rng(seed).choice(eligible, people, replace=False))
    query = first_pictures(identities, cameras)
    return [np.flatnonzero(rows) for rows in (~chosen, chosen & query, chosen & ~query)]
