"""A first calibration of a trained model, from the held-out people of its data set: quick, and without a city.

A person's pictures before one camera stand for a tracklet. Each tracklet is compared with its nearest ones at other
cameras, as a resolve would compare it, and logistic regression gives the log-odds of a distance. Log-odds mean the same
whatever the model, so the operating points are those of the model in use. `urban-reid models calibrate` resolves a
labeled city instead, and finds operating points of the model's own.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.association.nodes import unit_rows
from pipeline.calibration.fit import ENOUGH
from reid_core.datasets import Dataset
from reid_core.datasets.person_pictures import JUNK
from reid_core.evaluation.verification import logistic
from reid_core.serving.core import symmetric_distances
from reid_core.serving.factory import open_core
from schemas.calibration import LevelCalibration, straight_line
from schemas.levels import UPWARD, Level
from schemas.settings import Settings

#: Where no model is in use: join what is more likely one person than not, ask from a little below.
_JOIN, _REVIEW = 0.0, -1.0


def calibrate_held_out(
    settings: Settings, directory: Path, dataset: Dataset, like: Mapping[Level, LevelCalibration]
) -> tuple[LevelCalibration, ...]:
    """One fit for all levels, with the operating points of `like`; () with fewer than 20 pairs of one person."""
    core = open_core(settings, directory)
    splits = [dataset.load(split, core.card.input) for split in ("query", "gallery")]
    features = np.concatenate([core.embed(people.pictures) for people in splits]).astype(np.float64)
    labels = np.concatenate([np.stack([people.identities, people.cameras], 1) for people in splits])  # (N, 2)
    known = labels[:, 0] != JUNK
    tracklets, of = np.unique(labels[known], axis=0, return_inverse=True)  # (T, 2), (N,)
    of = of.reshape(-1)
    means = np.zeros((len(tracklets), features.shape[1]))
    np.add.at(means, of, features[known])
    means /= np.bincount(of, minlength=len(tracklets))[:, None]
    left, right = _pairs(means, tracklets[:, 1], settings.association.neighbors)
    same = tracklets[left, 0] == tracklets[right, 0]
    if same.sum() < ENOUGH:
        return ()
    slope, intercept = logistic(symmetric_distances(core, means[left], means[right]), same)
    return tuple(
        LevelCalibration(
            level=level,
            terms=straight_line(slope, intercept),
            join_log_odds=like[level].join_log_odds if level in like else _JOIN,
            review_log_odds=like[level].review_log_odds if level in like else _REVIEW,
            fitted_on=f"held-out people of {dataset.source}"[:500],
            pairs=len(same),
            positives=int(same.sum()),
        )
        for level in UPWARD[1:]
    )


def _pairs(
    means: NDArray[np.float64], cameras: NDArray[np.int64], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each tracklet (T, D) with its `most` nearest at other cameras by cosine, each pair once."""
    directions = unit_rows(means)
    pairs: set[tuple[int, int]] = set()
    for row in range(len(means)):
        near = np.argsort(-(directions @ directions[row]), kind="stable")
        near = near[cameras[near] != cameras[row]][:most]
        pairs |= {(min(row, other), max(row, other)) for other in near.tolist()}
    found = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]
