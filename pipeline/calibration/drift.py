"""Drift: whether the distances of the current decisions are still distributed as at calibration."""

from collections.abc import Mapping

import numpy as np
from pydantic import Field
from scipy.stats import chi2
from sqlalchemy import Connection

from pipeline.store.copy import copy_out
from schemas.arrays import Floats
from schemas.calibration import LevelCalibration, Profile
from schemas.levels import Level
from schemas.settings import Frozen

#: A population stability index above this is a drift (Siddiqi 2006: below 0.1 none, above 0.25 a large one).
PSI_LIMIT = 0.25
#: A Kolmogorov-Smirnov distance above this is a drift, in either direction.
KS_LIMIT = 0.15
#: Few values make both statistics large by chance: their limits are then those exceeded by chance at this rate.
_FALSE_ALARM_RATE = 0.01

_DISTANCES = (
    "SELECT d.distance FROM match_decision d JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NULL "
    "AND r.model_id = :model AND r.level = CAST(:level AS unit_level) "
    "AND (CAST(:within AS text) IS NULL OR r.unit = :within OR starts_with(r.unit, :within || '/'))"
)


def decision_distances(connection: Connection, level: Level, model_id: int, within: str | None = None) -> Floats:
    """(d,) Distances of a level's current joins, reviews and runners-up under a model.

    within: only decisions at and below this unit; all of the city if None.
    """
    at = {"level": level.value, "model": model_id, "within": within}
    return np.asarray(copy_out(connection, _DISTANCES, at, {"distance": "float8"})["distance"], np.float64)


class Drift(Frozen):
    """How far new values are from a profile."""

    psi: float = Field(description="population stability index over the profile's ten bins")
    psi_limit: float
    ks: float = Field(description="Kolmogorov-Smirnov distance, at the profile's deciles")
    ks_limit: float
    count: int = Field(description="number of new values")

    @property
    def drifted(self) -> bool:
        """Whether the new values are distributed differently from those of the calibration."""
        return self.psi > self.psi_limit or self.ks > self.ks_limit


def drifts(
    connection: Connection, calibrations: Mapping[Level, LevelCalibration], model_id: int, within: str | None = None
) -> dict[Level, Drift]:
    """The drift of the current decisions against those made at calibration, by level; `within` as above.

    Levels whose calibration does not hold its decisions are left out.
    """
    return {
        level: drift(calibration.decisions, decision_distances(connection, level, model_id, within))
        for level, calibration in calibrations.items()
        if calibration.decisions is not None
    }


def profile(values: Floats) -> Profile:
    """The profile of n values, n > 0."""
    assert len(values), "a profile needs values"
    deciles = np.quantile(values, np.arange(1, 10) / 10)
    return Profile(deciles=tuple(deciles.tolist()), shares=tuple(_shares(values, deciles).tolist()), count=len(values))


def drift(before: Profile, values: Floats) -> Drift:
    """Compares n new values with the profile. Limits are wider for few values; no values are no drift."""
    expected, count = np.array(before.shares), len(values)
    if not count:
        return Drift(psi=0.0, psi_limit=PSI_LIMIT, ks=0.0, ks_limit=KS_LIMIT, count=0)
    observed = _shares(values, np.array(before.deciles))
    variance = 1 / before.count + 1 / count
    # Half a value is added to each bin, so that an empty one does not make the logarithm infinite.
    a = (expected * before.count + 0.5) / (before.count + 0.5 * len(expected))
    b = (observed * count + 0.5) / (count + 0.5 * len(expected))
    return Drift(
        psi=float(np.sum((b - a) * np.log(b / a))),
        psi_limit=max(PSI_LIMIT, float(chi2.ppf(1 - _FALSE_ALARM_RATE, len(expected) - 1)) * variance),
        ks=float(np.abs(np.cumsum(observed - expected))[:-1].max()),
        ks_limit=max(KS_LIMIT, float(np.sqrt(-np.log(_FALSE_ALARM_RATE / 2) / 2 * variance))),
        count=count,
    )


def _shares(values: Floats, edges: Floats) -> Floats:
    """(len(edges) + 1,) Share of the values in each bin between the edges."""
    return np.asarray(np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / len(values))
