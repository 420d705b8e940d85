"""Two models on the same people: who is better, and on what. A promotion asks for it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from pipeline.governance.audit import Action, audit
from pipeline.registry import ModelRow
from reid_core.datasets import Dataset
from reid_core.files import model_digest, read_card
from schemas.errors import InputError
from schemas.keys import content_hash
from schemas.settings import Settings

#: Kept of each model; the first decides which one is worse.
METRICS = ("mAP", "rank1", "mINP")
#: Hears what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Comparison:
    """Metrics in percent, by name, by the distances that the city uses: attended where a model has diff attention."""

    model: str
    against: str
    held_out: str  # in words
    held_out_digest: bytes  # of its pictures' names, people and cameras
    metrics: Mapping[str, float]
    against_metrics: Mapping[str, float]

    @property
    def worse(self) -> bool:
        return self.metrics[METRICS[0]] < self.against_metrics[METRICS[0]]

    @property
    def difference(self) -> dict[str, float]:
        return {name: round(self.metrics[name] - self.against_metrics[name], 4) for name in METRICS}

    def __str__(self) -> str:
        figures = (f"{name} {self.metrics[name]:.1f} against {self.against_metrics[name]:.1f}" for name in METRICS)
        return f"{', '.join(figures)} on {self.held_out}"


def measure(
    settings: Settings, directory: Path, dataset: Dataset, progress: Progress | None = None
) -> dict[str, float]:
    """Metrics of a model's directory on the queries and gallery of `dataset`.

    Raises InputError where no query has a match.
    """
    from reid_core.evaluation.evaluate import evaluate

    convention = read_card(directory).input
    query, gallery = (dataset.load(split, convention) for split in ("query", "gallery"))
    scores = evaluate(settings, directory, query, gallery, progress=progress)
    found = scores.get("attended") or scores["plain"]
    if not found.queries:
        raise InputError(f"{dataset.source}: no query has a match at another camera, so it measures nothing")
    return {name: round(float(getattr(found, name)), 4) for name in METRICS}


def compare(
    settings: Settings, directory: Path, against: ModelRow, dataset: Dataset, progress: Progress | None = None
) -> Comparison:
    """The model of a directory and a registered one on the queries and gallery of `dataset`.

    Raises InputError where nothing can be measured there, or both are one model.
    """
    card = read_card(directory)
    if model_digest(card) == against.digest:
        raise InputError(f"{card.name} cannot be compared with itself")
    found = [measure(settings, where, dataset, progress) for where in (directory, against.directory(settings))]
    return Comparison(card.name, against.name, in_words(dataset), digest_of(dataset), *found)


def in_words(dataset: Dataset) -> str:
    """What is measured on."""
    people = dataset.counts("query").people
    return f"{len(dataset.query)} queries of {people} people of {dataset.source}"[:2000]


def digest_of(dataset: Dataset) -> bytes:
    """32 bytes that name what is measured on: pictures by name, with person and camera."""
    samples = (*dataset.query, *dataset.gallery)
    parts = (part for sample in samples for part in (sample.name, sample.identity, sample.camera))
    return content_hash("held out", (len(dataset.query), *parts))


def write_comparison(
    connection: Connection, model: ModelRow, against: ModelRow, found: Comparison, operator: str
) -> None:
    """Keeps a comparison, and the audit's row of who made it."""
    connection.execute(
        text(
            "INSERT INTO model_comparison (model_id, against_id, held_out, held_out_digest, metrics, against_metrics) "
            "VALUES (:model, :against, :held_out, :digest, CAST(:metrics AS jsonb), CAST(:others AS jsonb))"
        ),
        {
            "model": model.id,
            "against": against.id,
            "held_out": found.held_out,
            "digest": found.held_out_digest,
            "metrics": json.dumps(dict(found.metrics)),
            "others": json.dumps(dict(found.against_metrics)),
        },
    )
    audit(
        connection,
        operator,
        Action.MODEL_COMPARE,
        details={"model": model.name, "against": against.name, "held_out": found.held_out},
    )


def read_comparison(connection: Connection, model: ModelRow, against: ModelRow) -> Comparison | None:
    """The newest one of these two."""
    row = connection.execute(
        text(
            "SELECT held_out, held_out_digest, metrics, against_metrics FROM model_comparison "
            "WHERE model_id = :model AND against_id = :against ORDER BY id DESC LIMIT 1"
        ),
        {"model": model.id, "against": against.id},
    ).one_or_none()
    if row is None:
        return None
    digest = bytes(row.held_out_digest)
    metrics, against_metrics = _renamed(row.metrics), _renamed(row.against_metrics)
    return Comparison(model.name, against.name, row.held_out, digest, metrics, against_metrics)


def _renamed(metrics: Mapping[str, float]) -> dict[str, float]:
    """Stored metrics under their current names: version 0.1 wrote `rank_1` for `rank1`."""
    return {name.replace("rank_", "rank"): value for name, value in metrics.items()}
