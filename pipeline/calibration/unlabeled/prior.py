"""What is known of a model's distances before anything is learned: measured elsewhere, and stated in the catalog.

In units of different people's distances one place is like another: their median and spread are found in any sample. So
a prior is standardized by them. It counts as some pairs more, and the evidence of a city outweighs it as it grows.
"""

from dataclasses import replace

import numpy as np

from pipeline.association.log_odds import few_crops_share
from pipeline.calibration.unlabeled.mixture import (
    PRIOR_COUNT,
    OnePerson,
    fit_mixture,
)
from pipeline.calibration.unlabeled.strangers import Rows, Strangers, center_of, weighted_quantiles
from pipeline.registry import ModelRow
from reid_core.catalog import published_embedder
from schemas.arrays import Bools, Floats
from schemas.calibration import DistancePrior
from schemas.settings import Settings

#: Quantiles of different people's distances that a prior states.
_QUANTILES = 200


def prior_of(settings: Settings, model: ModelRow) -> DistancePrior | None:
    """The prior that the catalog states for the model, known by the hash of its file; None where there is none."""
    if model.base_id is not None:  # other distances than its base
        return None
    files = [name for name in model.card.sha256 if name.endswith((".xml", ".onnx"))]
    published = (published_embedder(model.directory(settings) / name) for name in files)
    return next((one.distances for one in published if one is not None), None)


def one_person(prior: DistancePrior, strangers: Strangers) -> OnePerson:
    """The prior of one person's distances beside these strangers, in units of distance."""
    mode = strangers.level + prior.mode * strangers.spread
    slope, near, far = (value * strangers.spread for value in (prior.slope, prior.near, prior.far))
    return OnePerson(mode, slope, near, far, prior.share)


def drawn(one: OnePerson, rng: np.random.Generator) -> OnePerson:
    """Another prior that is as likely: as far off as PRIOR_COUNT pairs may be."""
    off = rng.normal(size=2) / np.sqrt(PRIOR_COUNT)
    wider = float(np.exp(off[1] / 2))
    return OnePerson(
        one.mode + float(off[0]) * min(one.near, one.far), one.slope, one.near * wider, one.far * wider, one.middle
    )


def measure(
    distance: Floats, left_weight: Floats, right_weight: Floats, weight: Floats, same: Bools, source: str
) -> DistancePrior:
    """The prior that n labeled pairs of tracklets show. weight: (n,) how many pairs each stands for."""
    rows = Rows(
        different=~same,
        distance=distance,
        share=few_crops_share(left_weight, right_weight),
        weight=weight,
        stratum=np.zeros(len(distance), np.int64),
        label=same.astype(np.int64),
        untimely=np.zeros(len(distance)),
    )
    center = center_of(rows, ~same, 1)
    z = center.standardized(rows)
    labeled = replace(rows, different=np.zeros(len(z), bool), distance=z)
    nothing = np.empty(0)  # with every pair labeled, the density of strangers does not count
    strangers = Strangers(np.zeros(len(z)), z, nothing, nothing, np.empty(0, np.int64), 0, 0.0, 1.0)
    one = fit_mixture(labeled, strangers, np.zeros(len(z)), None, float(z.min())).one_person
    quantiles = weighted_quantiles(z[~same], weight[~same], (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    return DistancePrior(
        strangers=tuple(round(value, 2) for value in quantiles.tolist()),
        mode=round(one.mode, 2),
        slope=round(one.slope, 2),
        near=round(one.near, 2),
        far=round(one.far, 2),
        share=round(one.middle, 3),
        measured_on=source,
    )
