"""Learning a feature space: cameras' means from their own crops, a basis from people or from tracklets."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from reid_core.feature_space.space import Basis, FeatureSpace, unit_rows
from schemas.arrays import Floats, Ints
from schemas.errors import InputError

#: A camera's mean of this many passages counts as much as its parent's mean.
STRENGTH = 20.0
#: The part of the mean variance within a person that is added to the variance in each direction.
RIDGE = 1.0
#: Features of a camera are alike within this part of the distance within which so many of its pairs lie.
_ALIKE, _MOST_PAIRS = 0.7, 0.9
#: Tracklets whose neighbors are looked for at a time.
_BLOCK = 512
#: People whose spread in each direction counts as much as its mean over all directions.
PEOPLE = 100


def learn_means(
    features: NDArray[np.floating],
    cameras: Sequence[str],
    passages: Sequence[Hashable] | None = None,
    *,
    weights: Floats | None = None,
    strength: float = STRENGTH,
) -> FeatureSpace:
    """Means of cameras and of all units above them, without any label of a person.

    features: raw features (n, D). cameras: their n codes; the units above "d1/s1/b1/c1" are "d1/s1/b1", "d1/s1", "d1"
    and "", above "3" only "".
    passages: which of them are of one passage (a tracklet, or a person where known). Each passage counts once, however
    many crops it has, so that nobody who loiters before a camera moves its mean. None: each crop counts.
    weights: (n,) how much each counts in place of 1, such as `shared_votes`; not with passages.
    strength: the mean of a unit with p passages is (p mean + strength parent's) / (p + strength), from "" down, so that
    a camera with few of them stays near its building, and a building near its street.

    Raises InputError where there are no features, VectorError for NaN and rows of zeros.
    """
    rows = np.asarray(features, np.float64)
    if not len(rows):
        raise InputError("no features: the means of cameras are learned from crops that they have taken")
    assert rows.ndim == 2 and len(cameras) == len(rows) and strength >= 0
    assert weights is None or passages is None
    rows = unit_rows(rows.copy(), 0, "is zero, NaN or infinite")
    counted = np.ones(len(rows)) if weights is None else weights
    seen = [(code, row if passages is None else passages[row]) for row, code in enumerate(cameras)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(seen))}
    means, _ = _means_of(rows, np.array([numbers[key] for key in seen], np.int64))
    below: dict[str, list[int]] = {"": []}
    for number, (code, _) in enumerate(numbers):
        for unit in _path(code):
            below.setdefault(unit, []).append(number)
    found: dict[str, Floats] = {}
    for unit in sorted(below):  # a unit's parent comes before it
        passed = float(counted[below[unit]].sum())
        mean = (means[below[unit]] * counted[below[unit], None]).sum(axis=0) / passed
        if unit:
            mean = (passed * mean + strength * found[unit.rpartition("/")[0]]) / (passed + strength)
        found[unit] = mean
    return FeatureSpace(tuple(found), np.stack(list(found.values())))


def shared_votes(features: NDArray[np.floating], cameras: Sequence[str]) -> Floats:
    """How much each of n features (n, D) should count in its camera's mean, (n,): those that are alike share one vote.

    So somebody who loiters counts about once, whether his crops have a track, none, or many. Alike are features of one
    camera nearer to each other than 0.7 of the distance within which 9 of 10 of its pairs lie.
    """
    rows = unit_rows(np.asarray(features, np.float64).copy(), 0, "is zero, NaN or infinite")
    at = np.unique(np.asarray(cameras, str), return_inverse=True)[1]
    votes = np.ones(len(rows))
    for camera in range(at.max(initial=-1) + 1):
        there = np.flatnonzero(at == camera)
        distance = np.sqrt((2 - 2 * rows[there] @ rows[there].T).clip(min=0))
        votes[there] = 1 / (distance <= _ALIKE * np.quantile(distance, _MOST_PAIRS)).sum(axis=1).clip(min=1)
    return votes


def learn_basis(features: Floats, people: Sequence[Hashable], *, ridge: float = RIDGE) -> Basis:
    """A basis of D directions, in which one person's features spread alike, weighted by how they tell people apart.

    features: (n, D), as `FeatureSpace.apply` of a space without basis returns them: with camera means from the same
    crops where cameras are to be compared. people: who each of them shows, known or guessed (`mutual_neighbors`).
    ridge: this part of the mean variance is added to each direction's, since small variances are estimated too small.

    With S the covariance within persons, W = (S + ridge tr(S)/D)^(-1/2) whitens it. In each direction that the means
    of people then spread in, b is their variance, without what crops add to it, and w that within persons. The
    direction's weight is b / (b + w), the share of what tells people apart (intraclass correlation). What few people
    show of b is drawn toward its mean. Columns are in the order of their variance between people, the largest first.
    The scale is that in which the mean square length of these features is 1, as is the constant channel beside them.

    Whitening within classes: Hatch and Stolcke 2006; both variances: probabilistic linear discriminant analysis, Prince
    and Elder 2007. Raises InputError for fewer than two people who differ, and where nobody has two features that do.
    """
    rows = np.asarray(features, np.float64)
    assert rows.ndim == 2 and len(people) == len(rows) and ridge > 0
    numbers = {person: number for number, person in enumerate(dict.fromkeys(people))}
    of_row = np.array([numbers[person] for person in people], np.int64)
    means, counts = _means_of(rows, of_row) if len(rows) else (rows, of_row)
    rest = rows - means[of_row]
    within = rest.T @ rest / max(1, len(rows) - len(counts))
    variance, axes = np.linalg.eigh(within)
    if not variance.mean() > 0:
        raise InputError("a basis is learned from people or tracklets with two or more crops; none has two that differ")
    whitening = (axes * (variance.clip(min=0) + ridge * variance.mean()) ** -0.5) @ axes.T
    centered = (means - means.mean(axis=0)) @ whitening
    spread, directions = np.linalg.eigh(centered.T @ centered / max(1, len(means) - 1))
    spread, directions = spread[::-1], directions[:, ::-1]
    basis = whitening @ directions
    left = np.einsum("df,de,ef->f", basis, within, basis)  # variance within persons, in each direction
    between = (spread - left * np.mean(1 / counts)).clip(min=0)
    if not between.mean() > 0:
        raise InputError("a basis is learned from two or more people or tracklets that differ more than their crops do")
    between = (len(means) * between + PEOPLE * between.mean()) / (len(means) + PEOPLE)
    basis *= between / (between + left)
    basis /= np.sqrt(np.square(rows @ basis).sum(axis=1).mean())
    return Basis(basis * np.where(np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0) < 0, -1, 1))


def mutual_neighbors(features: Floats, tracklets: Sequence[int], cameras: Sequence[str]) -> Ints:
    """Who each of n features shows, (n,), guessed without labels, to learn a basis from.

    Two tracklets at two cameras that are each other's nearest, by the cosine of their means, show one person; every
    other tracklet shows one of its own. They are looked for within a street, "d1/s1" of a camera "d1/s1/b1/c1", and
    where that has one camera only, everywhere: most people go to a camera nearby, and the fewer strangers there are,
    the fewer look like them. features: (n, D), as for `learn_basis`. tracklets, cameras: of each feature.
    """
    _, first, of_row = np.unique(tracklets, return_index=True, return_inverse=True)
    means = unit_rows(_means_of(features, of_row)[0], 0, "is the mean of a tracklet, and has no direction")
    codes, at = np.unique(np.asarray(cameras, str)[first], return_inverse=True)  # `at`: (T,) camera of each tracklet
    street = np.array([code.rsplit("/", 2)[0] if code.count("/") > 1 else "" for code in codes.tolist()])
    others = ~np.eye(len(codes), dtype=bool)
    near = others & (street[:, None] == street)
    near = np.where(near.any(axis=1, keepdims=True), near, others)  # (C, C) where a camera's people are looked for
    number = np.arange(len(means))
    nearest = np.empty_like(number)
    for start in range(0, len(means), _BLOCK):
        part = slice(start, start + _BLOCK)
        likeness = np.where(near[at[part]][:, at], means[part] @ means.T, -np.inf)
        nearest[part] = np.where(np.isfinite(likeness).any(axis=1), likeness.argmax(axis=1), number[part])
    mutual = nearest[nearest] == number
    return np.where(mutual, np.minimum(number, nearest), number)[of_row]


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
