"""Compares two models on the same people. A promotion needs the comparison."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from pipeline.governance.audit import Action, audit
from pipeline.registry import ModelRow
from pipeline.resolve.progress import Progress
from reid_core.datasets import Dataset
from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.files import model_digest, open_space, read_card
from schemas.errors import InputError
from schemas.keys import content_hash
from schemas.settings import Settings

if TYPE_CHECKING:
    from reid_core.evaluation.ranking import RankingScores

#: Metrics that a comparison holds; the first decides whether a model is worse.
METRICS = ("mAP", "rank1", "mINP")


@dataclass(frozen=True)
class Comparison:
    """Metrics of two models in percent, by name.

    They rank by the distances that the city uses: attended ones if the model has diff attention, those in its space
    if it is a feature space.
    """

    model: str
    against: str
    held_out: str  # description of the queries
    held_out_digest: bytes  # see digest_of
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
    """Metrics (METRICS, in percent) of the model in `directory` on the queries and gallery of `dataset`.

    A feature space ranks by means of the data set's own cameras, which are others than the city's, and by its basis.
    Raises InputError if no query has a match.
    """
    from reid_core.evaluation.evaluate import evaluate

    card = read_card(directory)
    query, gallery = (dataset.load(split, card.input) for split in ("query", "gallery"))
    space = open_space(directory, card)
    if space is not None and space.recentered:
        scores = _recentered(settings, directory, query, gallery, progress)
    else:
        scores = evaluate(
            settings,
            directory,
            query,
            gallery,
            normalize=space is not None,
            basis=None if space is None else space.basis,
            known_cameras=False,  # as in the city
            progress=progress,
        )
    found = list(scores.values())[-1]  # by the distances that the city uses
    if not found.queries:
        raise InputError(f"{dataset.source}: no query has a match at another camera, so nothing can be measured on it")
    return {name: round(float(getattr(found, name)), 4) for name in METRICS}


def _recentered(
    settings: Settings, directory: Path, query: PersonPictures, gallery: PersonPictures, progress: Progress | None
) -> "dict[str, RankingScores]":
    """Scores by diff attention on features whose cameras' means are taken off, learned as `evaluate` does."""
    import torch

    from reid_core.evaluation.evaluate import features_of, load_attention, rank_features
    from reid_core.evaluation.spaces import Labeled, camera_codes, evaluated_spaces

    gallery = gallery.select(gallery.identities != JUNK)
    left, right = features_of(settings, directory, (query, gallery), known_cameras=False, progress=progress)
    of_means = evaluated_spaces(Labeled(left, query), Labeled(right, gallery), True, None)["normalized"]
    space = replace(of_means, recentered=True)
    sides = [
        torch.from_numpy(space.apply(features.cpu().numpy(), camera_codes(people))).to(features)
        for features, people in ((left, query), (right, gallery))
    ]
    return rank_features(sides[0], sides[1], load_attention(directory), query, gallery, progress=progress)


def compare(
    settings: Settings, directory: Path, against: ModelRow, dataset: Dataset, progress: Progress | None = None
) -> Comparison:
    """Compares the model in `directory` with a registered one on the queries and gallery of `dataset`.

    Raises InputError if both are the same model or nothing can be measured on the data set.
    """
    card = read_card(directory)
    if model_digest(card) == against.digest:
        raise InputError(f"{card.name} cannot be compared with itself")
    metrics = measure(settings, directory, dataset, progress)
    against_metrics = measure(settings, against.directory(settings), dataset, progress)
    return Comparison(card.name, against.name, in_words(dataset), digest_of(dataset), metrics, against_metrics)


def in_words(dataset: Dataset) -> str:
    """The data set's queries, for people to read; at most 2000 characters."""
    people = dataset.counts("query").people
    return f"{len(dataset.query)} queries of {people} people of {dataset.source}"[:2000]


def digest_of(dataset: Dataset) -> bytes:
    """32 bytes: hash of the names, people and cameras of queries and gallery."""
    samples = (*dataset.query, *dataset.gallery)
    parts = (part for sample in samples for part in (sample.name, sample.identity, sample.camera))
    return content_hash("held out", (len(dataset.query), *parts))


def write_comparison(
    connection: Connection, model: ModelRow, against: ModelRow, found: Comparison, operator: str
) -> None:
    """Writes a comparison and its audit row."""
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
    """The newest comparison of these two models, None if there is none."""
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
