"""How alike two identities are: the core's diff attention on their prototypes, calibrated, plus the transit time."""

from dataclasses import dataclass

import numpy as np

from pipeline.association.geometry import Geometry, closest
from pipeline.association.nodes import Bools, Floats, Ints, Nodes
from pipeline.association.transit import TransitModel
from reid_core.core import ReIDCore, symmetric_distances
from schemas.cards import LevelCalibration

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
    gap_us: Ints  # (p,)
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
    transit: TransitModel

    def score(self, left: Ints, right: Ints) -> Scores:
        """Each row depends on its own pair alone."""
        near = closest(self.nodes, self.world, left, right)
        distance = prototype_distances(self.core, self.nodes, left, right)
        timed = self.nodes.timed[left] & self.nodes.timed[right]
        transit = np.where(timed, self.transit.log_odds(near.left_child, near.right_child, near.gap_us / 1e6), 0.0)
        if self.calibration is None:
            appearance = np.full(len(left), np.nan)
        else:
            appearance = self.calibration.intercept - self.calibration.slope * distance
        return Scores(
            distance,
            appearance,
            transit,
            np.clip(appearance + transit, -CLIP, CLIP),
            near.impossible,
            near.gap_us,
            near.left_child,
            near.right_child,
        )


def prototype_distances(core: ReIDCore, nodes: Nodes, left: Ints, right: Ints) -> Floats:
    """(p,) Between the means of two nodes: the attended distance, mean of both orders, in float64."""
    if not len(left):
        return np.empty(0)
    return symmetric_distances(core, nodes.mean[left], nodes.mean[right])
