"""Splits the training people for validation, so that no setting is chosen on the test people."""

from dataclasses import replace
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from reid_core.datasets.dataset import Dataset, labels_of
from reid_core.datasets.person_pictures import JUNK, PersonPictures, first_pictures
from schemas.errors import InputError


class HeldOut(NamedTuple):
    """Pictures to train on, and queries and gallery of the people held out."""

    train: PersonPictures
    query: PersonPictures
    gallery: PersonPictures


@overload
def hold_out(given: Dataset, people: int = ..., seed: int = ...) -> Dataset: ...
@overload
def hold_out(given: PersonPictures, people: int = ..., seed: int = ...) -> HeldOut: ...
def hold_out(given: Dataset | PersonPictures, people: int = 100, seed: int = 0) -> Dataset | HeldOut:
    """Draws `people` of the training people by `seed` and makes them query and gallery; the others stay for training.

    given: a data set, whose training split is divided and whose test people are left out of the result, or pictures,
        which are all divided. Both forms draw the same people.

    The first picture of a person and camera is a query, as in Market-1501. Junk stays with the training pictures. Only
    people are drawn whose queries all have a match: two or more pictures under each of two or more cameras. Raises
    InputError if there are fewer than `people` of them, or if nobody would be left to train on.
    """
    if isinstance(given, PersonPictures):
        return HeldOut(*(given.select(rows) for rows in _rows(given.identities, given.cameras, people, seed)))
    train, query, gallery = (
        tuple(given.train[row] for row in rows) for rows in _rows(*labels_of(given.train), people, seed)
    )
    return replace(given, train=train, query=query, gallery=gallery, published=None, distractor=None)


def _rows(identities: NDArray[np.int64], cameras: NDArray[np.int64], people: int, seed: int) -> list[NDArray[np.intp]]:
    """Ascending indices of the training pictures, the queries and the gallery."""
    keys, counts = np.unique(np.stack([identities, cameras], 1), axis=0, return_counts=True)
    known, views = np.unique(keys[(counts >= 2) & (keys[:, 0] != JUNK), 0], return_counts=True)
    eligible = known[views >= 2]
    others = len(np.unique(identities[identities != JUNK])) - people
    if people < 1 or people > len(eligible) or others < 1:
        raise InputError(
            f"{people} people cannot be held out: {len(eligible)} have two pictures under each of two cameras, "
            "and at least one person must be left to train on"
        )
    chosen = np.isin(identities, np.random.default_rng(seed).choice(eligible, people, replace=False))
    query = first_pictures(identities, cameras)
    return [np.flatnonzero(rows) for rows in (~chosen, chosen & query, chosen & ~query)]
