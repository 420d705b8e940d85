"""Camera level: the crops of one passage before one camera become a tracklet.

Where the source tracks, its track ids say which crops belong together. Elsewhere crops are linked in time order to the
open tracklet that looks most alike. A pause longer than the passage gap ends a tracklet.
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
    """Crops of one camera with their features, by (time, key)."""

    ids: Sequence[int]
    keys: Sequence[bytes]
    time_us: Sequence[int]
    timed: Sequence[bool]
    tracks: Sequence[str | None]
    quality: Floats  # (n,)
    features: Floats  # (n, D) raw post-BN


def group(crops: CropColumns, gap_us: int, core: ReIDCore, calibration: LevelCalibration | None) -> list[list[int]]:
    """Tracklets as lists of row numbers, each by time.

    Crops without a time are each their own. Crops without a track are linked only with a calibration (the building's:
    the same person seen again) whose operating point they reach.
    """
    result = [[row] for row in range(len(crops.ids)) if not crops.timed[row]]
    open_tracks: dict[str, list[int]] = {}
    loose: list[int] = []
    for row in range(len(crops.ids)):
        if not crops.timed[row]:
            continue
        track = crops.tracks[row]
        if track is None:
            loose.append(row)
            continue
        passage = open_tracks.get(track)
        if passage is None or crops.time_us[row] - crops.time_us[passage[-1]] > gap_us:
            passage = open_tracks[track] = []
            result.append(passage)
        passage.append(row)
    return result + _link(crops, loose, gap_us, core, calibration)


def _link(
    crops: CropColumns, rows: list[int], gap_us: int, core: ReIDCore, calibration: LevelCalibration | None
) -> list[list[int]]:
    """Links trackless crops, the crops of one instant at once (a person is there once)."""
    if calibration is None:
        return [[row] for row in rows]
    furthest = distance_at(calibration.terms, calibration.join_log_odds)
    passages: list[list[int]] = []
    is_open: list[list[int]] = []
    for instant in _instants(crops, rows):
        now = crops.time_us[instant[0]]
        is_open = [passage for passage in is_open if now - crops.time_us[passage[-1]] <= gap_us]
        taken: dict[int, list[int]] = {}
        if is_open:
            # Loads for most of a second, which a city whose sources track need not wait for.
            from scipy.optimize import linear_sum_assignment

            means = np.stack([crops.features[passage].mean(axis=0) for passage in is_open])
            left = np.repeat(crops.features[instant], len(is_open), axis=0)
            distance = symmetric_distances(core, left, np.tile(means, (len(instant), 1)))
            cost = distance.reshape(len(instant), len(is_open))
            for i, j in zip(*linear_sum_assignment(np.where(cost <= furthest, cost, 1e6)), strict=True):
                if cost[i, j] <= furthest:
                    taken[instant[i]] = is_open[j]
        for row in instant:
            passage = taken.get(row)
            if passage is None:
                passage = []
                passages.append(passage)
                is_open.append(passage)
            passage.append(row)
    return passages


def _instants(crops: CropColumns, rows: list[int]) -> list[list[int]]:
    instants: list[list[int]] = []
    for row in rows:
        if instants and crops.time_us[instants[-1][0]] == crops.time_us[row]:
            instants[-1].append(row)
        else:
            instants.append([row])
    return instants
