"""Scores of node pairs: diff attention on their prototypes, calibrated, plus the transit time."""

from dataclasses import dataclass

import numpy as np

from pipeline.association.geometry import Geometry, TimeGaps, time_gaps
from pipeline.association.log_odds import learned_part, log_odds
from pipeline.association.nodes import Nodes
from pipeline.association.transit import UnitTransit
from reid_core.serving.core import ReIDCore, symmetric_distances
from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import LevelCalibration

#: Log-odds of a pair are clipped to +-CLIP, so that one pair cannot decide a whole cluster.
CLIP = 8.0


@dataclass(frozen=True)
class Scores:
    """Scores of p node pairs. Without a calibration `appearance` and `log_odds` are NaN."""

    distance: Floats  # (p,) attended, mean of both orders
    appearance: Floats  # (p,) log-odds from the distance alone
    transit: Floats  # (p,) log-odds from the transit time
    log_odds: Floats  # (p,) their sum, within +-CLIP; below the operating point where the distance was not learned
    impossible: Bools  # (p,)
    timed: Bools  # (p,) whether both nodes have times
    gap_us: Ints  # (p,) between the two tracklets that are nearest in time
    expected_s: Floats  # (p,) expected walking time between the cameras of those two; NaN where unknown
    left_child: Ints  # (p,) child of the unit at which the left one of those two was seen
    right_child: Ints  # (p,)

    def take(self, rows: Ints) -> "Scores":
        return Scores(**{name: column[rows] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Scorer:
    nodes: Nodes
    geometry: Geometry
    core: ReIDCore
    calibration: LevelCalibration | None
    transit: UnitTransit

    def score(self, left: Ints, right: Ints, gaps: TimeGaps | None = None) -> Scores:
        """Scores of the pairs; each depends on its own pair alone. `gaps`: their time gaps, computed unless given."""
        gaps = gaps or time_gaps(self.nodes, self.geometry, left, right)
        distance = prototype_distances(self.core, self.nodes, left, right)
        timed = self.nodes.timed[left] & self.nodes.timed[right]
        left_child, right_child = self.geometry.child[gaps.left_camera], self.geometry.child[gaps.right_camera]
        expected_s = self.geometry.expected_s[gaps.left_camera, gaps.right_camera]
        transit = self.transit.log_odds(left_child, right_child, expected_s, gaps.gap_us / 1e6)
        transit = np.where(timed, transit, 0.0)
        if self.calibration is None:
            appearance = total = np.full(len(left), np.nan)
        else:
            no_transit = np.zeros(len(left))
            weights = self.nodes.weight[left], self.nodes.weight[right]
            within, outside = learned_part(self.calibration, distance)
            appearance = log_odds(self.calibration.terms, within, no_transit, *weights)
            transit = self.calibration.terms.transit * transit
            total = np.clip(appearance + transit, -CLIP, CLIP)
            below = np.nextafter(self.calibration.join_log_odds, -np.inf)
            total = np.where(outside, np.minimum(total, below), total)
        return Scores(
            distance=distance,
            appearance=appearance,
            transit=transit,
            log_odds=total,
            impossible=gaps.impossible,
            timed=timed,
            gap_us=gaps.gap_us,
            expected_s=expected_s,
            left_child=left_child,
            right_child=right_child,
        )


def prototype_distances(core: ReIDCore, nodes: Nodes, left: Ints, right: Ints) -> Floats:
    """(p,) Attended distances between the nodes' mean prototypes: mean of both orders, float64."""
    if not len(left):
        return np.empty(0)
    return symmetric_distances(core, nodes.mean[left], nodes.mean[right])
