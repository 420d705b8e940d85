"""Registered models as a page shows them: comparisons, and how sure their probabilities are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from pipeline.registry import ModelRow
from pipeline.report.curves import Curve, Reliabilities, draw_curve, draw_reliabilities, furthest_shown
from pipeline.report.distance_histograms import read_distance_histograms
from pipeline.resolve.calibrations import current_calibrations
from pipeline.training.comparison import Comparison, read_comparison
from pipeline.training.data import Taught, taught
from pipeline.training.promotion import objections
from schemas.levels import UPWARD


@dataclass(frozen=True)
class ModelShown:
    """`comparison`: with the model in use. `against`: why it should not be promoted; empty for the one in use."""

    model: ModelRow
    registered_at: datetime
    comparison: Comparison | None
    against: Sequence[str]
    taught: Taught | None  # by reviewers


@dataclass(frozen=True)
class Switch:
    """A model that came into use."""

    at: datetime
    kind: str  # use, promote, rollback
    model: str
    operator: str
    reason: str | None


_REGISTERED = text("SELECT id, registered_at FROM model")
_SWITCHES = text(
    "SELECT s.at, s.kind::text AS kind, m.name AS model, s.operator, s.reason FROM model_switch s "
    "JOIN model m ON m.id = s.model_id ORDER BY s.id DESC LIMIT 20"
)


def read_models(connection: Connection, models: Sequence[ModelRow]) -> list[ModelShown]:
    """The model in use first."""
    registered = {row.id: row.registered_at for row in connection.execute(_REGISTERED)}
    used = next((model for model in models if model.in_use), None)
    found = []
    for model in sorted(models, key=lambda one: (not one.in_use, one.name)):
        compared = used is not None and not model.in_use
        comparison = read_comparison(connection, model, used) if compared and used else None
        against = objections(connection, model, used) if compared and used else []
        found.append(ModelShown(model, registered[model.id], comparison, against, taught(connection, model.card)))
    return found


def read_switches(connection: Connection) -> list[Switch]:
    """The last models that came into use, the newest first."""
    return [Switch(**row._mapping) for row in connection.execute(_SWITCHES)]


@dataclass(frozen=True)
class Sureness:
    """Of one district: the probability over the distance with the decisions made, and whether it came true."""

    district: str
    curves: Sequence[Curve]
    reliabilities: Sequence[Reliabilities]


def read_sureness(connection: Connection, model: ModelRow, district: str) -> Sureness:
    calibrations = current_calibrations(connection, model.id, district)
    histograms = read_distance_histograms(connection, district, model.id)
    furthest = furthest_shown(list(histograms.values()))
    curves = [draw_curve(level, calibrations.get(level), histograms[level], furthest) for level in UPWARD[1:]]
    judged = [
        draw_reliabilities(level, calibration.reliability)
        for level, calibration in calibrations.items()
        if calibration.reliability
    ]
    return Sureness(district, curves, judged)
