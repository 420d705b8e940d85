"""Learning a feature space: cameras' means from their own crops, a basis from people or from tracklets."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from reid_core.feature_space.space import FeatureSpace, unit_rows
from schemas.arrays import Floats, Ints
from schemas.errors import InputError

#: A camera's mean of this many passages counts as much as its parent's mean.
STRENGTH = 20.0
#: The part of the mean variance within a person that is added to the variance in each direction.
RIDGE = 0.5


def learn_means(
    features: NDArray[np.floating],
    cameras: Sequence[str],
    passages: Sequence[Hashable] | None = None,
    *,
    strength: float = STRENGTH,
) -> FeatureSpace:
    """Means of cameras and of all units above them, without any label of a person.

    features: raw features (n, D). cameras: their n codes; the units above "d1/s1/b1/c1" are "d1/s1/b1", "d1/s1", "d1"
    and "", above "3" only "".
    passages: which of them are of one passage (a tracklet, or a person where known). Each passage counts once, however
    many crops it has, so that nobody who loiters before a camera moves its mean. None: each crop counts.
    strength: the mean of a unit with p passages is (p mean + strength parent's) / (p + strength), from "" down, so that
    a camera with few of them stays near its building, and a building near its street.

    Raises InputError where there are no features, VectorError for NaN and rows of zeros.
    """
    rows = np.asarray(features, np.float64)
    if not len(rows):
        raise InputError("no features: the means of cameras are learned from crops that they have taken")
    assert rows.ndim == 2 and len(cameras) == len(rows) and strength >= 0
    rows = unit_rows(rows.copy(), 0, "is zero, NaN or infinite")
    seen = [(code, row if passages is None else passages[row]) for row, code in enumerate(cameras)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(seen))}
    means, _ = _means_of(rows, np.array([numbers[key] for key in seen], np.int64))
    below: dict[str, list[int]] = {"": []}
    for number, (code, _) in enumerate(numbers):
        for unit in _path(code):
            below.setdefault(unit, []).append(number)
    found: dict[str, Floats] = {}
    for unit in sorted(below):  # a unit's parent comes before it
        mean, passed = means[below[unit]].mean(axis=0), len(below[unit])
        if unit:
            mean = (passed * mean + strength * found[unit.rpartition("/")[0]]) / (passed + strength)
        found[unit] = mean
    return FeatureSpace(tuple(found), np.stack(list(found.values())))


def learn_basis(features: Floats, people: Sequence[Hashable], *, ridge: float = RIDGE) -> Floats:
    """A basis (D, D) in which the features of one person spread alike in all directions (whitening within persons).

    features: (n, D), as `FeatureSpace.apply` of a space without basis returns them: with camera means from the same
    crops where cameras are to be compared. people: who each of them shows; or its tracklet, which needs no label and
    knows only how one camera sees a person. Those with one feature say nothing.
    ridge: this part of the mean variance is added to each direction's, since small variances are estimated too small.

    The basis is (S + ridge tr(S) / D)^(-1/2) of the covariance S within persons. Raises InputError where nobody has two
    features that differ.
    """
    rows = np.asarray(features, np.float64)
    assert rows.ndim == 2 and len(people) == len(rows) and ridge > 0
    numbers = {person: number for number, person in enumerate(dict.fromkeys(people))}
    of_row = np.array([numbers[person] for person in people], np.int64)
    means, counts = _means_of(rows, of_row)
    rest = rows - means[of_row]
    variance, directions = np.linalg.eigh(rest.T @ rest / max(1, len(rows) - len(counts)))
    if not variance.mean() > 0:
        raise InputError(
            "a basis is learned from people or tracklets with two or more crops that differ; there are none"
        )
    basis: Floats = (directions * (variance.clip(min=0) + ridge * variance.mean()) ** -0.5) @ directions.T
    return basis


def _means_of(rows: Floats, numbers: Ints) -> tuple[Floats, Ints]:
    """The mean row (P, D) of each of the numbers 0..P-1, and how many rows have it."""
    counts = np.bincount(numbers)
    sums = np.add.reduceat(rows[np.argsort(numbers, kind="stable")], np.cumsum(counts) - counts)
    return sums / counts[:, None], counts


def _path(code: str) -> Iterable[str]:
    """`code`, the units above it, and ""."""
    while code:
        yield code
        code = code.rpartition("/")[0]
    yield ""
