"""How alike two identities are: the core's diff attention on their prototypes, calibrated, plus the transit time."""

from dataclasses import dataclass

import numpy as np

from pipeline.association.geometry import Closest, Geometry, closest
from pipeline.association.log_odds import log_odds
from pipeline.association.nodes import Nodes
from pipeline.association.transit import UnitTransit
from reid_core.serving.core import ReIDCore, symmetric_distances
from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import LevelCalibration

#: One pair may not decide a whole cluster: log-odds are cut here.
CLIP = 8.0


@dataclass(frozen=True)
class Scores:
    """Of p node pairs. Without a calibration `appearance` and `log_odds` are NaN."""

    distance: Floats  # (p,) attended, mean of both orders
    appearance: Floats  # (p,) log-odds from the distance alone
    transit: Floats  # (p,) log-odds from the time between
    log_odds: Floats  # (p,) their sum, within +-CLIP
    impossible: Bools  # (p,)
    timed: Bools  # (p,) both have times
    gap_us: Ints  # (p,) between the two that are nearest in time
    way_s: Floats  # (p,) between the cameras of those two, see Geometry
    left_child: Ints  # (p,)
    right_child: Ints  # (p,)

    def take(self, rows: Ints) -> "Scores":
        return Scores(**{name: column[rows] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Scorer:
    nodes: Nodes
    world: Geometry
    core: ReIDCore
    calibration: LevelCalibration | None
    transit: UnitTransit

    def score(self, left: Ints, right: Ints, near: Closest | None = None) -> Scores:
        """Each row depends on its own pair alone. `near`: of these pairs, where it is known."""
        near = near or closest(self.nodes, self.world, left, right)
        distance = prototype_distances(self.core, self.nodes, left, right)
        timed = self.nodes.timed[left] & self.nodes.timed[right]
        left_child, right_child = self.world.child[near.left_camera], self.world.child[near.right_camera]
        way_s = self.world.way_s[near.left_camera, near.right_camera]
        transit = np.where(timed, self.transit.log_odds(left_child, right_child, way_s, near.gap_us / 1e6), 0.0)
        if self.calibration is None:
            appearance = np.full(len(left), np.nan)
        else:
            nothing = np.zeros(len(left))
            weights = self.nodes.weight[left], self.nodes.weight[right]
            appearance = log_odds(self.calibration.terms, distance, nothing, *weights)
            transit = self.calibration.terms.transit * transit
        return Scores(
            distance,
            appearance,
            transit,
            np.clip(appearance + transit, -CLIP, CLIP),
            near.impossible,
            timed,
            near.gap_us,
            way_s,
            left_child,
            right_child,
        )


def prototype_distances(core: ReIDCore, nodes: Nodes, left: Ints, right: Ints) -> Floats:
    """(p,) Between the means of two nodes: the attended distance, mean of both orders, in float64."""
    if not len(left):
        return np.empty(0)
    return symmetric_distances(core, nodes.mean[left], nodes.mean[right])
