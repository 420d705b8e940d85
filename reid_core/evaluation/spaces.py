"""Feature spaces of an evaluation: means of the data set's cameras, and a basis."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.feature_space import FeatureSpace, learn_basis, learn_means
from schemas.arrays import Floats


class Labeled(NamedTuple):
    """Raw features (N, D) and the N pictures that they are of."""

    features: Tensor
    people: PersonPictures


def camera_codes(people: PersonPictures) -> list[str]:
    """The code of each picture's camera in a feature space: "3" for camera 3."""
    return list(map(str, people.cameras.tolist()))


def evaluated_spaces(
    query: Labeled, gallery: Labeled, normalize: bool, basis: Floats | Labeled | None
) -> dict[str, FeatureSpace]:
    """The spaces in which queries and gallery are ranked, by the names of their scores; empty where none is asked for.

    "normalized": the mean of each camera's queries and gallery pictures, without their labels.
    "basis": a basis (D, D'), or one learned from labeled pictures, whose cameras have their own means. On top of the
        means if `normalize`; else the mean of everything alone is taken off, there and here.
    """
    spaces = {}
    if normalize:
        spaces["normalized"] = _means([query, gallery], normalize)
    if basis is not None:
        found = _learned(basis, normalize) if isinstance(basis, Labeled) else basis
        means = spaces.get("normalized") or _means([query, gallery], normalize)
        spaces["basis"] = FeatureSpace(means.units, means.means, found)
    return spaces


def _learned(given: Labeled, normalize: bool) -> Floats:
    rows = np.flatnonzero(given.people.identities != JUNK)
    known = Labeled(given.features[rows], given.people.select(rows))
    features = _means([known], normalize).apply(_numbers(known), camera_codes(known.people))
    return learn_basis(features, known.people.identities.tolist())


def _means(sides: list[Labeled], normalize: bool) -> FeatureSpace:
    cameras = [code if normalize else "" for side in sides for code in camera_codes(side.people)]
    return learn_means(np.concatenate([_numbers(side) for side in sides]), cameras)


def _numbers(side: Labeled) -> Floats:
    found: Floats = side.features.cpu().double().numpy()
    return found
