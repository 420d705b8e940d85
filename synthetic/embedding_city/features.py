"""Features as an embedder would give them, drawn from a model that is fitted to real ones.

A crop's feature is

    mean + camera shift + g * person + h * (view + passage) + n * crop

with normal vectors for the person, the person as this camera sees them (whenever), the passage and the crop. `h` says
how much a passage hides of who it is, `n` how much its crops differ; `g` falls as `h` rises, so that a feature's length
stays what it is. A person is in part one of a few kinds of upper and of lower clothes, which is what makes strangers
look alike: their cosines lean to the right, which no normal distribution gives.

Fitted to person-reidentification-retail-0277 (raw output, D = 256) on the 743 training people of a real set of two
cameras, about five crops of one passage a person and camera.

- Variances by moments: the person's from the covariance between the two cameras' means of a person, view + passage from
  that of their difference, the crop's within a passage; mean and camera shift from the cameras' means.
- Spectra: in logarithms a power of the axis' number, least squares over the first 140 axes (person) or 200.
- Directions: along the person's axes the other variances fall where people differ less, and are large again along the
  last quarter, which says nothing of people (`_nuisance_order`). Mean and camera shift follow the view's variance.
- Tails of `h` and `n` from the spread of the logarithms of energies; then these, the kinds of clothes and, by about a
  tenth at most, the sums of variances by search, until the quantiles of distances (within a passage, one person across
  the cameras, strangers, the nearest stranger) and Rank-1 and mAP of groups of a hundred training people were met. The
  search knew the hundred test people's figures, but no figure was taken from them.
- How much of view + passage is the view cannot be seen where nobody comes twice. A half each is assumed, so that crops
  of one passage are most alike, those of one camera at other times less, and those of other cameras least.

`benchmarks/simulated_features.py` prints simulated figures beside the real ones of the test people.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from schemas.arrays import Ints, Singles
from synthetic.seeds import generator

DIMS = 256
#: Sums of the variances along all axes.
_PERSON, _PASSAGE, _CROP, _CAMERA = 15.8, 14.6, 10.4, 1.8
_MEAN_LENGTH = 3.04
#: Decay of the logarithm of the variance: factor and power of the axis' number.
_PERSON_DECAY, _PASSAGE_DECAY, _CROP_DECAY = (0.1195, 0.73), (0.0195, 1.0), (0.087, 0.62)
#: How much of view + passage is the view. Assumed.
_VIEW_SHARE = 0.5
#: Spread of the logarithms of `h` by passage (normal), and of `n` by passage (normal) and by crop (exponential).
_HIDING, _BLUR, _CROP_BLUR = 0.18, 0.16, 0.2
#: Kinds of upper and lower clothes, and how much of a person's variance each is.
_KINDS, _KIND_SHARES = (40, 25), (0.4, 0.25)


@dataclass(frozen=True)
class FeatureModel:
    """Standard deviations along the model's axes, and the rotation from these to features."""

    mean: Singles  # (D,)
    person: Singles  # (D,)
    camera: Singles  # (D,)
    passage: Singles  # (D,) of view and passage together
    crop: Singles  # (D,)
    rotation: Singles  # (D, D)

    def draw(
        self, rng: np.random.Generator, own: Singles, views: int, view: Ints, crops: Ints
    ) -> tuple[Singles, Singles]:
        """One person's crops along the axes (m, D), less mean and camera shift, and each crop's noise (m,), about 1.

        own: (D,) what sets the person apart, of variance 1 along each axis. view: (n,) which of `views` cameras each
        tracklet is from. crops: (n,) how many crops each has.
        """
        count, total = len(view), int(crops.sum())
        by_view = rng.standard_normal((views, DIMS), np.float32)
        passages = rng.standard_normal((count, DIMS), np.float32)
        luck = rng.standard_normal((2, count), np.float32)
        noise = np.repeat(np.exp(_BLUR * luck[1] - _BLUR**2), crops)
        noise *= np.exp(_CROP_BLUR * rng.standard_exponential(total, np.float32)) * (1 - 2 * _CROP_BLUR) ** 0.5
        hides = np.exp(_HIDING * luck[0] - _HIDING**2)
        shows = np.sqrt(np.maximum(1 + _PASSAGE / _PERSON * (1 - hides**2), 0))
        both = np.float32(_VIEW_SHARE**0.5) * by_view[view] + np.float32((1 - _VIEW_SHARE) ** 0.5) * passages
        seen = shows[:, None] * (own * self.person) + hides[:, None] * (both * self.passage)
        crop = rng.standard_normal((total, DIMS), np.float32) * self.crop * noise[:, None]
        return np.repeat(seen, crops, axis=0) + crop, noise

    def features(self, axes: Singles) -> Singles:
        """(m, D) What the embedder gives, from what `draw` gives with the camera shift added."""
        turned: Singles = np.matmul(axes + self.mean, self.rotation, dtype=np.float32)
        return turned


@cache
def retail_0277() -> FeatureModel:
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
    """(D,) Standard deviations along the axes, largest first; their squares add up to `total`."""
    variances = np.exp(-factor * np.arange(1, DIMS + 1) ** power)
    deviations: Singles = np.sqrt(total * variances / variances.sum()).astype(np.float32)
    return deviations


def _nuisance_order(rng: np.random.Generator) -> NDArray[np.float64]:
    """(D,) Where the view's and the crop's variances are large: small numbers."""
    axis = np.arange(1, DIMS + 1)
    order: NDArray[np.float64] = np.minimum(axis + 15, 1.5 * (DIMS - axis) + 10) + 60 * rng.standard_normal(DIMS)
    return order


@cache
def kinds(seed: int) -> tuple[Singles, ...]:
    """Of upper and of lower clothes, each (k, D), of variance 1 along each axis."""
    rng = generator(seed, "embedding city kinds")
    return tuple(rng.standard_normal((count, DIMS), np.float32) for count in _KINDS)


def draw_person(rng: np.random.Generator, clothes: tuple[Singles, ...]) -> Singles:
    """(D,) What sets a person apart, of variance 1 along each axis."""
    own = rng.standard_normal(DIMS, np.float32) * np.float32((1 - sum(_KIND_SHARES)) ** 0.5)
    for share, worn in zip(_KIND_SHARES, clothes, strict=True):
        own += np.float32(share**0.5) * worn[rng.integers(len(worn))]
    return own


@dataclass(frozen=True)
class TwoCameras:
    """Crops of the same people from two cameras, about five of each from either."""

    query: Singles  # (q, D)
    query_person: Ints  # (q,)
    gallery: Singles  # (g, D)
    gallery_person: Ints  # (g,)


def two_cameras(seed: int, people: int = 100) -> TwoCameras:
    """Simulated features in the form of the real set that the model is fitted to: one passage a person and camera."""
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
    whose = np.arange(people)
    return TwoCameras(query, np.repeat(whose, counts[:, 0]), gallery, np.repeat(whose, counts[:, 1]))
