"""Camera level: the crops of one person in one passage before a camera are grouped into a tracklet.

Where the source tracks people, its track ids say which crops belong together. Other crops are linked in time order to
the open tracklet that looks most like them. A pause longer than the passage gap ends a tracklet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.association.log_odds import distance_at
from reid_core.serving.core import ReIDCore, symmetric_distances
from schemas.arrays import Floats
from schemas.calibration import LevelCalibration


@dataclass(frozen=True)
class CropColumns:
    """n crops of one camera with their features, sorted by time and key."""

    ids: Sequence[int]
    keys: Sequence[bytes]
    time_us: Sequence[int]
    timed: Sequence[bool]
    tracks: Sequence[str | None]
    quality: Floats  # (n,)
    features: Floats  # (n, D) as the model compares them


def group(crops: CropColumns, gap_us: int, core: ReIDCore, calibration: LevelCalibration | None) -> list[list[int]]:
    """Tracklets as lists of row numbers in time order.

    A crop without a time is a tracklet of its own. Crops without a track are linked only with a calibration (that of
    the building: the same person seen again), at distances that reach its operating point.
    """
    result = [[row] for row in range(len(crops.ids)) if not crops.timed[row]]
    open_tracks: dict[str, list[int]] = {}
    untracked: list[int] = []
    for row in range(len(crops.ids)):
        if not crops.timed[row]:
            continue
        track = crops.tracks[row]
        if track is None:
            untracked.append(row)
            continue
        passage = open_tracks.get(track)
        if passage is None or crops.time_us[row] - crops.time_us[passage[-1]] > gap_us:
            passage = open_tracks[track] = []
            result.append(passage)
        passage.append(row)
    return result + _link(crops, untracked, gap_us, core, calibration)


def _link(
    crops: CropColumns, rows: list[int], gap_us: int, core: ReIDCore, calibration: LevelCalibration | None
) -> list[list[int]]:
    """Links crops without a track by appearance. Crops of one instant are assigned together: they are different people.

    The cost of (crop, open passage) is the symmetric distance between the crop and the passage's mean feature.
    """
    if calibration is None:
        return [[row] for row in rows]
    furthest = distance_at(calibration.terms, calibration.join_log_odds)
    passages: list[list[int]] = []
    open_passages: list[list[int]] = []
    for instant in _instants(crops, rows):
        now = crops.time_us[instant[0]]
        open_passages = [passage for passage in open_passages if now - crops.time_us[passage[-1]] <= gap_us]
        assigned: dict[int, list[int]] = {}
        if open_passages:
            # Takes most of a second to import, which a city whose sources track people does not need.
            from scipy.optimize import linear_sum_assignment

            means = np.stack([crops.features[passage].mean(axis=0) for passage in open_passages])
            left = np.repeat(crops.features[instant], len(open_passages), axis=0)
            distance = symmetric_distances(core, left, np.tile(means, (len(instant), 1)))
            cost = distance.reshape(len(instant), len(open_passages))
            for i, j in zip(*linear_sum_assignment(np.where(cost <= furthest, cost, 1e6)), strict=True):
                if cost[i, j] <= furthest:
                    assigned[instant[i]] = open_passages[j]
        for row in instant:
            passage = assigned.get(row)
            if passage is None:
                passage = []
                passages.append(passage)
                open_passages.append(passage)
            passage.append(row)
    return passages


def _instants(crops: CropColumns, rows: list[int]) -> list[list[int]]:
    """Consecutive rows with the same time, together."""
    instants: list[list[int]] = []
    for row in rows:
        if instants and crops.time_us[instants[-1][0]] == crops.time_us[row]:
            instants[-1].append(row)
        else:
            instants.append([row])
    return instants
