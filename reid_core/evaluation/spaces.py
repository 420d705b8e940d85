"""Feature spaces of an evaluation: means of the data set's cameras, and a basis."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.feature_space import Basis, FeatureSpace, learn_basis, learn_means
from schemas.arrays import Floats
from schemas.errors import InputError


class Labeled(NamedTuple):
    """Raw features (N, D) and the N pictures that they are of."""

    features: Tensor
    people: PersonPictures


def camera_codes(people: PersonPictures) -> list[str]:
    """The code of each picture's camera in a feature space: "3" for camera 3."""
    return list(map(str, people.cameras.tolist()))


def evaluated_spaces(
    query: Labeled, gallery: Labeled, normalize: bool, basis: Basis | Labeled | None
) -> dict[str, FeatureSpace]:
    """The spaces in which queries and gallery are ranked, by the names of their scores; empty where none is asked for.

    "normalized": the mean of each camera's queries and gallery pictures, without their labels.
    "basis": a basis, or one learned from labeled pictures, whose cameras have their own means. On top of the
        means if `normalize`; else the mean of everything alone is taken off, there and here.
    """
    spaces = {}
    if normalize:
        spaces["normalized"] = _means([query, gallery], normalize)
    if basis is not None:
        found = basis_of(_numbers(basis), basis.people, normalize) if isinstance(basis, Labeled) else basis
        means = spaces.get("normalized") or _means([query, gallery], normalize)
        spaces["basis"] = FeatureSpace(means.units, means.means, found)
    return spaces


def basis_of(features: Floats, people: PersonPictures, normalize: bool = True) -> Basis:
    """The basis that labeled pictures teach by their raw features (N, D).

    Their cameras' own means are taken off first if `normalize`, else the mean of everything. Junk is left out. Raises
    what `learn_basis` raises.
    """
    rows = np.flatnonzero(people.identities != JUNK)
    known = people.select(rows)
    codes = camera_codes(known) if normalize else [""] * len(known)
    if not len(known):
        raise InputError("there are no labeled people to learn a basis from")
    return learn_basis(learn_means(features[rows], codes).apply(features[rows], codes), known.identities.tolist())


def _means(sides: list[Labeled], normalize: bool) -> FeatureSpace:
    cameras = [code if normalize else "" for side in sides for code in camera_codes(side.people)]
    return learn_means(np.concatenate([_numbers(side) for side in sides]), cameras)


def _numbers(side: Labeled) -> Floats:
    found: Floats = side.features.cpu().double().numpy()
    return found
