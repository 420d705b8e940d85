"""From labeled pictures to a model directory: what is built, and with which plans it is trained in turn.

plain       one plan
joint       one plan, or a plain one first
separate    a plain plan and then the module's, or only the module's on an existing model
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.diff_attention import DiffAttention
from reid_core.evaluation.evaluate import features_of, load_attention, rank_features
from reid_core.evaluation.ranking import RankingScores
from reid_core.evaluation.spaces import Labeled, evaluated_spaces
from reid_core.files import load_model, model_digest, read_card, save_model
from reid_core.models import ReIDModel, build_model
from reid_core.progress import Progress
from reid_core.tensors import sha256_of
from reid_core.training.frozen import FrozenEmbedder
from reid_core.training.log import EpochRecord
from reid_core.training.plans import TrainSettings, described, described_config
from reid_core.training.train import train
from schemas.cards import ModelCard, ModelConfig
from schemas.errors import CoreError
from schemas.settings import Settings


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a model, except the pictures.

    config: of the resulting model; with a `start`, only its diff attention is used.
    plans: carried out in turn on one model; the diff attention module is added before the first that needs it.
    start: the directory of a model to train further, which may be foreign; None builds a new model.
    pretrained: weights of the new model's backbone, a safetensors file with its public names, or "imagenet"; None:
        random weights.
    half: matrices and kernels are stored as float16.
    """

    config: ModelConfig
    plans: tuple[TrainSettings, ...]
    start: Path | None = None
    pretrained: Path | Literal["imagenet"] | None = None
    half: bool = False

    def details(self) -> dict[str, Any]:
        """All of this as JSON for the card, with hashes in place of files."""
        pretrained = self.pretrained if self.pretrained in (None, "imagenet") else sha256_of(Path(self.pretrained))
        found: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "plans": [described(plan) for plan in self.plans],
                    "config": described_config(self.config),
                    "start": None if self.start is None else model_digest(read_card(self.start)).hex(),
                    "pretrained": None if self.start is not None else pretrained,
                }
            )
        )
        return found


def make_model(
    recipe: Recipe,
    people: PersonPictures,
    validation: tuple[PersonPictures, PersonPictures],
    work: Path,
    out: Path,
    settings: Settings,
    *,
    name: str,
    trained_on: str = "",
    progress: Progress | None = None,
) -> tuple[ModelCard, list[EpochRecord]]:
    """Trains by `recipe` and writes the model directory `out`; returns its card and the log of all plans.

    `work` gets checkpoints, logs and curves, in one folder per plan; an interrupted call resumes from there. The card's
    metrics are those of the last validation, on the query and gallery of `validation`, with and without their cameras'
    means. Raises what building, training and evaluation raise.
    """
    torch.manual_seed(recipe.plans[0].seed)
    details = recipe.details()
    model = _begin(recipe, people, settings)

    def write(directory: Path, metrics: Mapping[str, float]) -> ModelCard:
        if isinstance(model, FrozenEmbedder):
            return model.save(directory, name=name, trained_on=trained_on, metrics=metrics, details=details)
        strategy = recipe.plans[-1].strategy
        return save_model(
            model,
            directory,
            name=name,
            strategy=strategy,
            trained_on=trained_on,
            metrics=metrics,
            details=details,
            half=recipe.half,
        )

    query, gallery = validation
    gallery = gallery.select(gallery.identities != JUNK)

    def validating(step: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"validation, {step}", done, total)

    def validation_of(plan: TrainSettings) -> Callable[[ReIDModel | FrozenEmbedder], Mapping[str, float]]:
        features: list[Tensor] = []

        def validate(_: ReIDModel | FrozenEmbedder) -> Mapping[str, float]:
            nonlocal features
            with tempfile.TemporaryDirectory(dir=work) as name:
                folder = Path(name)
                write(folder, {})
                # Separate training changes only the module: the pictures' features stay the same.
                if not features or plan.strategy != "separate":
                    features = features_of(settings, folder, (query, gallery), progress=validating)
                left, right = features
                spaces = evaluated_spaces(Labeled(left, query), Labeled(right, gallery), normalize=True, basis=None)
                attention = load_attention(folder)
                return metrics_of(
                    rank_features(left, right, attention, query, gallery, spaces=spaces, progress=validating)
                )

        return validate

    work.mkdir(parents=True, exist_ok=True)
    records: list[EpochRecord] = []
    for number, plan in enumerate(recipe.plans):
        if plan.strategy != "plain" and model.diff_attention is None:
            assert isinstance(model, ReIDModel) and recipe.config.diff_attention is not None
            model.diff_attention = DiffAttention(model.dims, recipe.config.diff_attention)
        folder = work / f"{number + 1}-{plan.strategy}"
        records += train(model, people, plan, folder, settings, validate=validation_of(plan), progress=progress)
    return write(out, records[-1].metrics), records


def _begin(recipe: Recipe, people: PersonPictures, settings: Settings) -> ReIDModel | FrozenEmbedder:
    if any(plan.strategy != "plain" for plan in recipe.plans) and recipe.config.diff_attention is None:
        raise CoreError("joint and separate training need a recipe whose model has diff attention")
    classes = len(set(people.identities[people.identities != JUNK].tolist()))
    if recipe.start is None:
        attention = recipe.config.diff_attention if recipe.plans[0].strategy == "joint" else None
        cameras = tuple(sorted(set(people.cameras.tolist()))) if recipe.config.baseline == "transreid" else ()
        config = recipe.config.model_copy(update={"diff_attention": attention, "cameras": cameras})
        return build_model(config, num_classes=classes, pretrained=recipe.pretrained)
    card = read_card(recipe.start)
    separate = all(plan.strategy == "separate" for plan in recipe.plans)
    if card.engine != "torch":
        if not separate or recipe.config.diff_attention is None:
            raise CoreError(f"{recipe.start}: is an {card.engine} model, which can only be trained separately")
        return FrozenEmbedder(recipe.start, card, settings, recipe.config.diff_attention)
    model = load_model(recipe.start)
    if separate:
        assert recipe.config.diff_attention is not None
        model.diff_attention = DiffAttention(model.dims, recipe.config.diff_attention)
        return model
    # Model directories hold no classifier: its classes would be other people.
    attention = recipe.config.diff_attention if recipe.plans[0].strategy == "joint" else None
    grown = build_model(model.config.model_copy(update={"diff_attention": attention}), num_classes=classes)
    kept = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if attention == model.config.diff_attention or not name.startswith("diff_attention.")
    }
    grown.load_state_dict(grown.state_dict() | kept)
    return grown


def metrics_of(scores: Mapping[str, RankingScores]) -> dict[str, float]:
    """Rank-1, mAP and mINP in percent for each kind of distances, by names such as `attended_mAP`."""
    return {
        f"{kind}_{name}": round(getattr(found, name), 2)
        for kind, found in scores.items()
        for name in ("rank1", "mAP", "mINP")
    }
