"""From people to a candidate: train, measure beside the model in use on the same held-out people, register.

Each step looks first whether it was done before, so a run that was cut off goes on where it was.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from pipeline.audit import audit
from pipeline.calibrate_held_out import calibrate_held_out
from pipeline.compare import Comparison, compare, in_words, measure, read_comparison, write_comparison
from pipeline.crops import CropStore
from pipeline.models import ModelRow, find_model, models, register_model
from pipeline.resolve.unit import current_calibration
from pipeline.store import Store
from pipeline.training_data import open_training_data
from reid_core.data import JUNK
from reid_core.datasets import Dataset
from reid_core.files import CARD, load_model, read_card, save_model, write_card
from schemas.cards import DiffAttentionSettings, InputConvention, LevelCalibration, ModelConfig
from schemas.errors import InputError, ModelFileError
from schemas.levels import UPWARD, Level
from schemas.parameters import TrainParameters

if TYPE_CHECKING:
    from reid_core.frozen import FrozenEmbedder
    from reid_core.models import ReIDModel
    from reid_core.plans import TrainSettings

#: Hears what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


def train_model(store: Store, crops: CropStore, parameters: TrainParameters, progress: Progress | None = None) -> None:
    """Trains the model of `parameters` and keeps it under the home's `training` folder, not registered yet.

    Who trains on whose pictures, and why, is written to the audit before a picture is read. Raises InputError for a
    name that another model has, a data set that is not there, and what cannot be trained together.
    """
    settings = store.settings
    folder = settings.training_dir(parameters.name)
    if _registered(store, parameters) is not None or _is_trained(folder / "model", parameters):
        return
    dataset = open_training_data(store, crops, parameters.dataset)
    people = dataset.counts("train")
    with store.begin() as connection:
        audit(
            connection,
            parameters.operator,
            "model.train",
            reason=parameters.reason,
            details={
                "model": parameters.name,
                "dataset": parameters.dataset,
                "people": people.people,
                "pictures": people.pictures,
            },
        )
    from reid_core.frozen import FrozenEmbedder
    from reid_core.train import train

    model = _untrained(store, parameters, len({s.identity for s in dataset.train if s.identity != JUNK}))
    pictures = dataset.load("train", model.config.input, _named(progress, "pictures read"))
    plan, tell = plan_of(parameters), _named(progress, "batches trained")
    words = f"{people.pictures} pictures of {people.people} people of {dataset.source}"[:2000]
    details = {"training": _digest(parameters)}
    if isinstance(model, FrozenEmbedder):
        train(model, pictures, plan, folder, settings, progress=tell)
        model.save(folder / "model", name=parameters.name, trained_on=words, metrics={}, details=details)
    else:
        train(model, pictures, plan, folder, settings, progress=tell)
        save_model(
            model,
            folder / "model",
            name=parameters.name,
            strategy=parameters.strategy,
            trained_on=words,
            details=details,
        )


def register_candidate(
    store: Store, crops: CropStore, parameters: TrainParameters, progress: Progress | None = None
) -> Comparison | None:
    """Measures the trained model beside the one in use, calibrates it, and registers it with its card; the comparison.

    None where no model is in use yet. Call `train_model` before.
    """
    settings = store.settings
    folder = settings.training_dir(parameters.name) / "model"
    used = next((row for row in models(store) if row.in_use), None)
    row = _registered(store, parameters)
    if row is not None:
        with store.begin() as connection:
            known = read_comparison(connection, row, used) if used is not None else None
        if known is not None or used is None or row.in_use:
            return known
    dataset = open_training_data(store, crops, parameters.dataset)
    if used is None:
        comparison, metrics = None, measure(settings, folder, dataset, progress)
    else:
        comparison = compare(settings, folder, used, dataset, progress)
        metrics = dict(comparison.metrics)
    if row is None:
        with store.begin() as connection:
            like = {} if used is None else _calibrations(connection, used)
        _complete_card(store, folder, dataset, metrics, comparison, like)
        register_model(store, settings, folder, parameters.name)
    if comparison is not None and used is not None:
        with store.begin() as connection:
            model = find_model(connection, parameters.name)
            write_comparison(connection, model, used, comparison, parameters.operator)
    return comparison


def plan_of(parameters: TrainParameters) -> "TrainSettings":
    """The paper's settings of strategy and baseline, with what `parameters` says otherwise."""
    from reid_core.plans import paper_settings

    plan = paper_settings(parameters.strategy, parameters.baseline)
    return replace(
        plan,
        epochs=parameters.epochs or plan.epochs,
        learning_rate=parameters.learning_rate or plan.learning_rate,
        identities_per_batch=parameters.identities_per_batch,
        pictures_per_identity=parameters.pictures_per_identity,
        seed=parameters.seed,
    )


def _untrained(store: Store, parameters: TrainParameters, people: int) -> "ReIDModel | FrozenEmbedder":
    """The model that training begins with: fresh weights, or those of a registered model."""
    import torch

    from reid_core.models import build_model

    separate = parameters.strategy == "separate"
    attention = None
    if parameters.strategy != "plain":
        attention = DiffAttentionSettings(transform=parameters.transform, reduction=parameters.reduction)
    classes = None if separate else people
    with torch.random.fork_rng():
        torch.manual_seed(parameters.seed)
        if parameters.start_from is not None:
            with store.begin() as connection:
                start = find_model(connection, parameters.start_from)
            return _grown(store, start, attention, classes, separate)
        if separate:
            raise InputError("separate training goes on from a registered model: say which one it starts from")
        convention = InputConvention(height=parameters.height, width=parameters.width)
        config = ModelConfig(
            architecture=parameters.architecture,
            baseline=parameters.baseline,
            input=convention,
            diff_attention=attention,
        )
        return build_model(config, num_classes=classes)


def _grown(
    store: Store, start: ModelRow, attention: DiffAttentionSettings | None, classes: int | None, separate: bool
) -> "ReIDModel | FrozenEmbedder":
    from reid_core.frozen import FrozenEmbedder
    from reid_core.models import build_model

    directory = start.directory(store.settings)
    if start.card.engine != "torch":
        if not separate or attention is None:
            raise InputError(f"{start.name} is an {start.card.engine} file, on which only separate training goes on")
        return FrozenEmbedder(directory, start.card, store.settings, attention)
    loaded = load_model(directory)
    model = build_model(loaded.config.model_copy(update={"diff_attention": attention}), num_classes=classes)
    kept = {
        name: tensor
        for name, tensor in loaded.state_dict().items()
        if attention == loaded.config.diff_attention or not name.startswith("diff_attention.")
    }
    model.load_state_dict(model.state_dict() | kept)
    return model


def _complete_card(
    store: Store,
    folder: Path,
    dataset: Dataset,
    metrics: dict[str, float],
    comparison: Comparison | None,
    like: dict[Level, LevelCalibration],
) -> None:
    """Writes figures and calibration into the card of the trained model, which is measured as it will be used."""
    card = read_card(folder)
    details = card.details | {"held_out": in_words(dataset)}
    if comparison is not None:
        details["compared_with"] = {
            "model": comparison.against,
            "held_out_digest": comparison.held_out_digest.hex(),
            "metrics": dict(comparison.against_metrics),
            "difference": comparison.difference,
        }
    calibration = calibrate_held_out(store.settings, folder, dataset, like)
    write_card(card.model_copy(update={"metrics": metrics, "calibration": calibration, "details": details}), folder)


def _calibrations(connection: Connection, model: ModelRow) -> dict[Level, LevelCalibration]:
    found = {level: current_calibration(connection, model.id, level) for level in UPWARD[1:]}
    return {level: stored.value for level, stored in found.items() if stored is not None}


def _digest(parameters: TrainParameters) -> str:
    """Hex; the same for the same model of the same people, whoever trains it."""
    return hashlib.sha256(parameters.model_dump_json(exclude={"operator", "reason"}).encode()).hexdigest()


def _is_trained(folder: Path, parameters: TrainParameters) -> bool:
    if not (folder / CARD).exists():
        return False
    try:
        return bool(read_card(folder).details.get("training") == _digest(parameters))
    except ModelFileError:
        return False  # cut off while it was written: the checkpoint gives the same again


def _registered(store: Store, parameters: TrainParameters) -> ModelRow | None:
    """The model, where this very run registered it before. Raises InputError where another one has its name."""
    row = next((row for row in models(store) if row.name == parameters.name), None)
    if row is not None and row.card.details.get("training") != _digest(parameters):
        raise InputError(f"another model is registered as {parameters.name}, and models do not change; choose a name")
    return row


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)
