"""Makes a candidate: trains it, compares it with the model in use on the same held-out people, and registers it.

Each step first checks whether it was done before, so that an interrupted run continues where it was.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.calibration.held_out import calibrate_held_out
from pipeline.crops.crop_store import CropStore
from pipeline.governance.audit import Action, audit
from pipeline.registry import ModelRow, find_model, models, register_model
from pipeline.resolve.calibrations import current_calibrations
from pipeline.resolve.progress import Progress
from pipeline.store import Store
from pipeline.training.comparison import Comparison, compare, in_words, measure, read_comparison, write_comparison
from pipeline.training.data import learned_from, open_training_data
from reid_core.datasets import SPLITS, Dataset
from reid_core.files import CARD, read_card, refuse_space, write_card
from reid_core.training.methods import METHODS
from schemas.calibration import LevelCalibration
from schemas.cards import Arithmetic, DiffAttentionSettings, ModelConfig
from schemas.errors import InputError, ModelFileError
from schemas.levels import Level
from schemas.parameters import TrainParameters

if TYPE_CHECKING:
    from reid_core.training.plans import Strategy
    from reid_core.training.recipe import Recipe


def train_model(store: Store, crops: CropStore, parameters: TrainParameters, progress: Progress | None = None) -> None:
    """Trains the model of `parameters` into the home's `training` folder, without registering it.

    The audit row (who trains on which data set, and why) is written before a picture is read. Raises InputError if
    another model has the name or the data set does not exist, CoreError if the parameters do not fit together.
    """
    settings = store.settings
    folder = settings.training_dir(parameters.name)
    if _registered(store, parameters) is not None or _is_trained(folder / "model", parameters):
        return
    recipe = recipe_of(store, parameters)
    dataset = open_training_data(store, crops, parameters.dataset)
    people, learned = dataset.counts("train"), learned_from(store, parameters.dataset)
    with store.begin() as connection:
        audit(
            connection,
            parameters.operator,
            Action.MODEL_TRAIN,
            reason=parameters.reason,
            details={
                "model": parameters.name,
                "dataset": parameters.dataset,
                "people": people.people,
                "pictures": people.pictures,
            },
        )
    from reid_core.training.recipe import make_model

    pictures, *validation = (
        dataset.load(split, recipe.config.input, _named(progress, "pictures read")) for split in SPLITS
    )
    words = f"{people.pictures} pictures of {people.people} people of {dataset.source}"[:2000]
    card, _ = make_model(
        recipe,
        pictures,
        (validation[0], validation[1]),
        folder,
        folder / "model",
        settings,
        name=parameters.name,
        trained_on=words,
        progress=progress,
    )
    # Written last: its digest marks the training as complete.
    details = card.details | {"training": _digest(parameters)}
    if learned is not None:
        details["reviewed"] = learned.as_details
    write_card(card.model_copy(update={"details": details}), folder / "model")


def register_candidate(
    store: Store, crops: CropStore, parameters: TrainParameters, progress: Progress | None = None
) -> Comparison | None:
    """Compares the trained model with the one in use, calibrates it and registers it. Call `train_model` before.

    Returns the comparison, None if no model is in use yet.
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
    arithmetic = _choose_arithmetic(store, folder, dataset, progress)
    if used is None:
        comparison, metrics = None, measure(settings, folder, dataset, progress)
    else:
        comparison = compare(settings, folder, used, dataset, progress)
        metrics = dict(comparison.metrics)
    if row is None:
        with store.begin() as connection:
            earlier = {} if used is None else current_calibrations(connection, used.id)
        _complete_card(store, folder, dataset, metrics, comparison, earlier)
        register_model(store, settings, folder, parameters.name, arithmetic=arithmetic)
    if comparison is not None and used is not None:
        with store.begin() as connection:
            model = find_model(connection, parameters.name)
            write_comparison(connection, model, used, comparison, parameters.operator)
    return comparison


def config_of(parameters: TrainParameters) -> ModelConfig:
    """The network that fresh weights are made for."""
    attention = None
    if parameters.strategy != "plain":
        attention = DiffAttentionSettings(transform=parameters.transform, reduction=parameters.reduction)
    return ModelConfig(
        architecture=parameters.architecture,
        baseline=parameters.baseline,
        input=METHODS[parameters.baseline].input.model_copy(
            update={"height": parameters.height, "width": parameters.width}
        ),
        diff_attention=attention,
    )


def recipe_of(store: Store, parameters: TrainParameters) -> "Recipe":
    """The paper's recipe for the strategy and baseline, with the settings of `parameters` in place of the paper's.

    A model to start from has a baseline of its own, by which it is trained; a foreign embedder has none.

    The strategy `separate` with fresh weights first trains them with the strategy `plain`. Raises InputError if the
    model to start from is not registered, or is a feature space.
    """
    from reid_core.training.plans import paper_settings
    from reid_core.training.recipe import Recipe

    config = config_of(parameters)
    start, baseline = None, parameters.baseline
    strategies: list[Strategy] = [parameters.strategy]
    if parameters.start_from is not None:
        with store.begin() as connection:
            row = find_model(connection, parameters.start_from)
        refuse_space(row.card, "nothing is trained on it")
        start = row.directory(store.settings)
        config = config.model_copy(update={"input": row.card.input})
        baseline = baseline if row.card.baseline == "foreign" else row.card.baseline
    elif parameters.strategy == "separate":
        strategies.insert(0, "plain")
    plans = []
    for strategy in strategies:
        paper = paper_settings(strategy, baseline)
        learning_rate = parameters.learning_rate if strategy == parameters.strategy else None
        plans.append(
            replace(
                paper,
                epochs=parameters.epochs or paper.epochs,
                learning_rate=learning_rate or paper.learning_rate,
                triplet_distance=parameters.triplet_distance,
                identities_per_batch=parameters.identities_per_batch,
                pictures_per_identity=parameters.pictures_per_identity,
                seed=parameters.seed,
            )
        )
    return Recipe(config, tuple(plans), start, "imagenet" if parameters.pretrained and start is None else None)


def _choose_arithmetic(store: Store, folder: Path, dataset: Dataset, progress: Progress | None) -> Arithmetic | None:
    """What the candidate is computed with from now on: compared, calibrated, and in the city. Written into its card.

    The held-out people judge whether bfloat16 costs accuracy.
    """
    from reid_core.export.chosen import choose_arithmetic
    from reid_core.export.export import Labeled

    card = read_card(folder)
    if card.arithmetic is None:
        query, gallery = (
            dataset.load(split, card.input, _named(progress, "pictures read")) for split in ("query", "gallery")
        )
        found = choose_arithmetic(store.settings, folder, Labeled(in_words(dataset), query, gallery))
        card = card.model_copy(update={"arithmetic": found})
        write_card(card, folder)
    return card.arithmetic


def _complete_card(
    store: Store,
    folder: Path,
    dataset: Dataset,
    metrics: dict[str, float],
    comparison: Comparison | None,
    earlier: dict[Level, LevelCalibration],
) -> None:
    """Writes metrics and calibration into the trained model's card.

    `earlier`: calibrations of the model in use, whose operating points are kept.
    """
    card = read_card(folder)
    details = card.details | {"held_out": in_words(dataset)}
    if comparison is not None:
        details["compared_with"] = {
            "model": comparison.against,
            "held_out_digest": comparison.held_out_digest.hex(),
            "metrics": dict(comparison.against_metrics),
            "difference": comparison.difference,
        }
    calibration = calibrate_held_out(store.settings, folder, dataset, earlier)
    write_card(
        card.model_copy(update={"metrics": card.metrics | metrics, "calibration": calibration, "details": details}),
        folder,
    )


def _digest(parameters: TrainParameters) -> str:
    """Hex digest of what determines the model: all parameters but operator and reason."""
    return hashlib.sha256(parameters.model_dump_json(exclude={"operator", "reason"}).encode()).hexdigest()


def _is_trained(folder: Path, parameters: TrainParameters) -> bool:
    if not (folder / CARD).exists():
        return False
    try:
        return bool(read_card(folder).details.get("training") == _digest(parameters))
    except ModelFileError:
        return False  # interrupted while the card was written: training ends again at once, from its checkpoint


def _registered(store: Store, parameters: TrainParameters) -> ModelRow | None:
    """The model, if a run with these parameters registered it before. Raises InputError if another has its name."""
    row = next((row for row in models(store) if row.name == parameters.name), None)
    if row is not None and row.card.details.get("training") != _digest(parameters):
        raise InputError(
            f"another model is registered as {parameters.name}, and models do not change; choose another name"
        )
    return row


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    """`progress` of one step, whose name is `what`."""
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)
