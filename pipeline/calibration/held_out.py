"""A first calibration of a trained model from the held-out people of its data set: fast, and without a city.

The pictures of one person at one camera stand for a tracklet. Each tracklet is compared with its nearest ones at other
cameras, as in a resolve, and logistic regression gives the log-odds of a distance. Log-odds mean the same under every
model, so the operating points are those of the model in use. `urban-reid models calibrate` resolves a labeled city
instead, and finds the model's own operating points.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.association.nodes import unit_rows
from pipeline.calibration.level_fit import learned_range
from pipeline.calibration.pairs import MIN_PAIRS
from reid_core.datasets import Dataset
from reid_core.datasets.person_pictures import JUNK
from reid_core.evaluation.verification import logistic
from reid_core.serving.core import symmetric_distances
from reid_core.serving.factory import open_core
from schemas.calibration import LevelCalibration, straight_line
from schemas.levels import UPWARD, Level
from schemas.settings import Settings

#: Operating point without a model in use: join what is more likely than not; review from a little below.
_JOIN_LOG_ODDS, _REVIEW_LOG_ODDS = 0.0, -1.0


def calibrate_held_out(
    settings: Settings, directory: Path, dataset: Dataset, in_use: Mapping[Level, LevelCalibration]
) -> tuple[LevelCalibration, ...]:
    """One fit for all levels, with the operating points of `in_use`; () with fewer than MIN_PAIRS pairs of one person.

    directory: of the trained model. in_use: the calibrations of the model in use, empty if there is none.
    """
    core = open_core(settings, directory)
    splits = [dataset.load(split, core.card.input) for split in ("query", "gallery")]
    features = np.concatenate([core.embed(people.pictures) for people in splits]).astype(np.float64)
    labels = np.concatenate([np.stack([people.identities, people.cameras], 1) for people in splits])  # (N, 2)
    is_person = labels[:, 0] != JUNK
    tracklets, tracklet = np.unique(labels[is_person], axis=0, return_inverse=True)  # (T, 2), (N,)
    tracklet = tracklet.reshape(-1)
    means = np.zeros((len(tracklets), features.shape[1]))
    np.add.at(means, tracklet, features[is_person])
    means /= np.bincount(tracklet, minlength=len(tracklets))[:, None]
    left, right = _nearest_pairs(means, tracklets[:, 1], settings.association.neighbors)
    same = tracklets[left, 0] == tracklets[right, 0]
    if same.sum() < MIN_PAIRS:
        return ()
    distance = symmetric_distances(core, means[left], means[right])
    slope, intercept = logistic(distance, same)
    return tuple(
        LevelCalibration(
            level=level,
            terms=straight_line(slope, intercept),
            learned=learned_range(distance),
            join_log_odds=in_use[level].join_log_odds if level in in_use else _JOIN_LOG_ODDS,
            review_log_odds=in_use[level].review_log_odds if level in in_use else _REVIEW_LOG_ODDS,
            fitted_on=f"held-out people of {dataset.source}"[:500],
            pairs=len(same),
            positives=int(same.sum()),
        )
        for level in UPWARD[1:]
    )


def _nearest_pairs(
    means: NDArray[np.float64], cameras: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Left (p,) and right (p,) of the pairs of each tracklet (T, D) with its k nearest at other cameras, by cosine."""
    directions = unit_rows(means)
    pairs: set[tuple[int, int]] = set()
    for row in range(len(means)):
        near = np.argsort(-(directions @ directions[row]), kind="stable")
        near = near[cameras[near] != cameras[row]][:k]
        pairs |= {(min(row, other), max(row, other)) for other in near.tolist()}
    found = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]
