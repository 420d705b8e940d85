"""Simulated features, drawn from a model that was fitted to the features of a real embedder.

A crop's feature is

    mean + camera shift + g * person + h * (view + passage) + n * crop

with normal vectors for the person, the person's view by this camera (at any time), the passage and the crop. `h` is how
much a passage hides the person, `n` how much its crops vary; `g` decreases as `h` increases, so that the length of the
feature is kept. A part of each person's vector is shared by all who wear the same kind of upper or lower clothes. This
makes some strangers alike: the distribution of their cosines is skewed to the right, unlike that of normal vectors.

Fitted to person-reidentification-retail-0277 (raw output, D = 256) on the 743 training people of a real set with two
cameras, with one passage of about five crops per person and camera:

- Variances by moments: person from the covariance between a person's means at the two cameras, view + passage from the
  variance of their difference, crop from the variance within passages; mean and camera shift from the cameras' means.
- Spectra: the log variance is a power of the axis number, by least squares over the first 140 (person) or 200 axes.
- Directions: along the person axes, the other variances decrease with the person's and are large again in the last
  quarter, in which people hardly differ (`_nuisance_order`). Mean and camera shift follow the variance of the view.
- Tails of `h` and `n` from the spread of log energies. Then these, the kinds of clothes and, by a tenth at most, the
  total variances by search, until the quantiles of distances (within a passage, one person across cameras, strangers,
  the nearest stranger) and the Rank-1 and mAP of groups of a hundred training people matched. The figures of the
  hundred test people were known during the search, but not used.
- The share of the view in view + passage cannot be measured, since nobody passes a camera twice. It is assumed to be a
  half: crops of one passage are most alike, those of one camera at other times less, those of other cameras least.

`python -m benchmarks.simulated_features` compares simulated figures with the real ones of the test people.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from schemas.arrays import Ints, Singles
from synthetic.seeds import generator

DIMS = 256
#: Total variances over all axes.
_PERSON, _PASSAGE, _CROP, _CAMERA = 15.8, 14.6, 10.4, 1.8
_MEAN_LENGTH = 3.04
#: Decay of the log variance: factor, and power of the axis number.
_PERSON_DECAY, _PASSAGE_DECAY, _CROP_DECAY = (0.1195, 0.73), (0.0195, 1.0), (0.087, 0.62)
#: Share of the view in view + passage. Assumed.
_VIEW_SHARE = 0.5
#: Spread of log `h` by passage (normal), and of log `n` by passage (normal) and by crop (exponential).
_HIDING, _BLUR, _CROP_BLUR = 0.18, 0.16, 0.2
#: Number of kinds of upper and of lower clothes, and the share of each in the variance between people.
_KINDS, _KIND_SHARES = (40, 25), (0.4, 0.25)


@dataclass(frozen=True)
class FeatureModel:
    """Standard deviations along the model's axes, and the rotation from axes to features."""

    mean: Singles  # (D,)
    person: Singles  # (D,)
    camera: Singles  # (D,)
    passage: Singles  # (D,) of view + passage
    crop: Singles  # (D,)
    rotation: Singles  # (D, D)

    def draw(
        self, rng: np.random.Generator, own: Singles, views: int, view: Ints, crops: Ints
    ) -> tuple[Singles, Singles]:
        """One person's crops along the axes (m, D), without mean and camera shift, and their noise `n` (m,), about 1.

        own: (D,) vector of the person, with variance 1 along each axis. views: number of cameras. view: (n,) camera of
        each tracklet, 0 .. views - 1. crops: (n,) number of crops of each tracklet.
        """
        count, total = len(view), int(crops.sum())
        by_view = rng.standard_normal((views, DIMS), np.float32)
        passages = rng.standard_normal((count, DIMS), np.float32)
        draws = rng.standard_normal((2, count), np.float32)
        noise = np.repeat(np.exp(_BLUR * draws[1] - _BLUR**2), crops)
        noise *= np.exp(_CROP_BLUR * rng.standard_exponential(total, np.float32)) * (1 - 2 * _CROP_BLUR) ** 0.5
        hides = np.exp(_HIDING * draws[0] - _HIDING**2)
        shows = np.sqrt(np.maximum(1 + _PASSAGE / _PERSON * (1 - hides**2), 0))
        both = np.float32(_VIEW_SHARE**0.5) * by_view[view] + np.float32((1 - _VIEW_SHARE) ** 0.5) * passages
        seen = shows[:, None] * (own * self.person) + hides[:, None] * (both * self.passage)
        crop = rng.standard_normal((total, DIMS), np.float32) * self.crop * noise[:, None]
        return np.repeat(seen, crops, axis=0) + crop, noise

    def features(self, axes: Singles) -> Singles:
        """(m, D) Raw features, from the crops of `draw` with the camera shift added.

        In float64, rounded: a product in float32 depends on the number of threads and of rows in its last bits.
        """
        rotated = np.matmul(axes + self.mean, self.rotation, dtype=np.float64)
        return np.asarray(rotated, np.float32)


@cache
def retail_0277() -> FeatureModel:
    """The model fitted to person-reidentification-retail-0277."""
    rng = generator(277, "embedding city axes")
    rotation, _ = np.linalg.qr(rng.standard_normal((DIMS, DIMS)))
    order = np.argsort(np.argsort(_nuisance_order(rng)))
    passage = _deviations(_PASSAGE, *_PASSAGE_DECAY)[order]
    mean = rng.standard_normal(DIMS).astype(np.float32) * passage
    return FeatureModel(
        mean=mean * np.float32(_MEAN_LENGTH / np.linalg.norm(mean)),
        person=_deviations(_PERSON, *_PERSON_DECAY),
        camera=passage * np.float32((_CAMERA / _PASSAGE) ** 0.5),
        passage=passage,
        crop=_deviations(_CROP, *_CROP_DECAY)[order],
        rotation=rotation.astype(np.float32),
    )


def _deviations(total: float, factor: float, power: float) -> Singles:
    """(D,) Standard deviations along the axes, descending; their squares sum to `total`."""
    variances = np.exp(-factor * np.arange(1, DIMS + 1) ** power)
    deviations: Singles = np.sqrt(total * variances / variances.sum()).astype(np.float32)
    return deviations


def _nuisance_order(rng: np.random.Generator) -> NDArray[np.float64]:
    """(D,) Sort key of the axes: the variances of view and crop are largest where it is smallest."""
    axis = np.arange(1, DIMS + 1)
    order: NDArray[np.float64] = np.minimum(axis + 15, 1.5 * (DIMS - axis) + 10) + 60 * rng.standard_normal(DIMS)
    return order


@cache
def kinds(seed: int) -> tuple[Singles, ...]:
    """Vectors of the kinds of upper and of lower clothes, each (k, D), with variance 1 along each axis."""
    rng = generator(seed, "embedding city kinds")
    return tuple(rng.standard_normal((count, DIMS), np.float32) for count in _KINDS)


def draw_person(rng: np.random.Generator, clothes: tuple[Singles, ...]) -> Singles:
    """(D,) The vector of a person, with variance 1 along each axis."""
    own = rng.standard_normal(DIMS, np.float32) * np.float32((1 - sum(_KIND_SHARES)) ** 0.5)
    for share, vectors in zip(_KIND_SHARES, clothes, strict=True):
        own += np.float32(share**0.5) * vectors[rng.integers(len(vectors))]
    return own


@dataclass(frozen=True)
class TwoCameras:
    """Crops of the same people at two cameras, about five per person and camera."""

    query: Singles  # (q, D)
    query_person: Ints  # (q,)
    gallery: Singles  # (g, D)
    gallery_person: Ints  # (g,)


def two_cameras(seed: int, people: int = 100) -> TwoCameras:
    """Simulated features in the form of the real set: one passage per person and camera."""
    model, clothes = retail_0277(), kinds(seed)
    sides: tuple[list[Singles], list[Singles]] = ([], [])
    shifts = generator(seed, "embedding city", 9).standard_normal((2, DIMS), np.float32) * model.camera
    counts = 5 - generator(seed, "embedding city", 9, 0).binomial(4, (0.12, 0.03), (people, 2))
    for person in range(people):
        rng = generator(seed, "embedding city", 9, 1, person)
        axes, _ = model.draw(rng, draw_person(rng, clothes), 2, np.arange(2), counts[person])
        for side, part in enumerate(np.split(axes, [counts[person, 0]])):
            sides[side].append(part + shifts[side])
    query, gallery = (model.features(np.concatenate(side)) for side in sides)
    numbers = np.arange(people)
    return TwoCameras(query, np.repeat(numbers, counts[:, 0]), gallery, np.repeat(numbers, counts[:, 1]))
