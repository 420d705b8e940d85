"""The one training loop: plain, joint and separate (paper, 'Training strategies').

Notable: batches, augmentation, dropout and learning rate depend only on (settings, epoch, batch). A checkpoint is
therefore the weights and the optimizers' moments alone, and a resumed run gives the same weights as one that was not
interrupted: bit for bit on a CPU with the same threads and settings (some kernels of CUDA add in any order). Pictures
stay decoded in memory, on the GPU where they take a small part of it. Plain and joint training change the whole model,
separate training its diff attention alone, on features of the frozen rest.
"""

import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.device_memory import out_of_memory_names
from reid_core.models import ReIDModel
from reid_core.progress import Progress
from reid_core.training.checkpoint import Position
from reid_core.training.frozen import FrozenEmbedder
from reid_core.training.log import EpochRecord, draw_curves, write_log
from reid_core.training.plans import TrainSettings, described, described_config, learning_rate
from reid_core.training.run import Run
from reid_core.training.sampling import identity_batches
from schemas.errors import CoreError
from schemas.settings import Settings

Model = TypeVar("Model", bound=ReIDModel | FrozenEmbedder)

FAILED_BATCH = "failed_batch.txt"


def train(
    model: Model,
    people: PersonPictures,
    plan: TrainSettings,
    directory: Path,
    settings: Settings,
    *,
    validate: Callable[[Model], Mapping[str, float]] | None = None,
    progress: Progress | None = None,
) -> list[EpochRecord]:
    """Trains `model` in place on the device of `settings` and returns the log, one record per epoch.

    `directory` gets the log (JSON Lines, and a picture of the curves) and, after each epoch and on Ctrl-C, a
    checkpoint; a later call with the same arguments resumes from there. Plain and joint training need a model whose
    classifier has one class per identity of `people` (junk aside), joint and separate training one with diff
    attention; a foreign embedder can only be trained separately. `progress` counts the batches of the whole run.

    Raises CoreError where the model does not fit, the checkpoint is another run's, or a loss is NaN or infinite (the
    batch's file names are then in `directory`); InputError with too few identities; OutOfDeviceMemory.
    """
    people = people.select(people.identities != JUNK)
    labels = np.unique(people.identities, return_inverse=True)[1]
    _check(model, plan, int(labels.max(initial=-1)) + 1)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    directory.mkdir(parents=True, exist_ok=True)
    identity = _identity(model, plan, people)
    with torch.random.fork_rng(), _interrupts() as interrupted, _enough_memory(plan, people):
        run = Run(model, plan, people, labels, settings)
        position: Position = run.restore(directory, identity)
        if len(position.records) < plan.epochs:
            run.compile(progress)
            run.cache_views(progress)
        for epoch in range(len(position.records), plan.epochs):
            batches = identity_batches(
                labels, plan.identities_per_batch, plan.pictures_per_identity, (plan.seed, epoch)
            )
            run.set_training()
            before_s, started = position.seconds, time.perf_counter()
            for number in range(position.batches, len(batches)):
                moment = epoch + number / len(batches)
                rate = learning_rate(plan, moment)
                of_module = rate if moment >= plan.module_start * plan.epochs else 0.0
                losses = run.step(batches[number], epoch, number, (rate, of_module))
                if not math.isfinite(sum(losses.values())):
                    raise _not_finite(people, batches[number], epoch, number, losses, plan, directory)
                for name, value in losses.items():
                    position.sums[name] = position.sums.get(name, 0.0) + value
                position.batches = number + 1
                position.seconds = before_s + time.perf_counter() - started
                if progress:
                    done = epoch * len(batches) + number + 1
                    progress(f"{plan.strategy} training", done, plan.epochs * len(batches))
                if interrupted():
                    run.save(directory, identity, position)
                    raise KeyboardInterrupt
            record = EpochRecord(
                epoch + 1,
                learning_rate(plan, epoch + 1 - 1 / len(batches)),
                {name: total / len(batches) for name, total in position.sums.items()},
                sum(len(rows) for rows in batches),
                round(position.seconds, 3),
                run.validated(partial(validate, model)) if validate and _is_due(plan, epoch) else {},
            )
            position = Position([*position.records, record])
            run.save(directory, identity, position)
            write_log(directory, position.records)
            if interrupted():  # after the epoch's last batch, or while it was validated
                raise KeyboardInterrupt
        run.finish()
    if position.records:
        draw_curves(directory, position.records)
    return position.records


def _enough_memory(plan: TrainSettings, people: PersonPictures) -> AbstractContextManager[None]:
    height, width = people.pictures.shape[1:3]
    count = plan.identities_per_batch * plan.pictures_per_identity
    return out_of_memory_names(
        f"training on batches of {count} pictures of {height}x{width}",
        "use fewer identities or pictures per batch or a smaller input, or set URBAN_REID_DEVICE=cpu",
    )


def _identity(model: ReIDModel | FrozenEmbedder, plan: TrainSettings, people: PersonPictures) -> dict[str, object]:
    """Identifies the run that a checkpoint belongs to: settings, pictures, the model and its first weights."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "plan": described(plan),
        "model": described_config(model.config),
        "files": model.files if isinstance(model, FrozenEmbedder) else {},
        "weights": weights.hexdigest(),
        "people": people.digest(),
    }


def _is_due(plan: TrainSettings, epoch: int) -> bool:
    return (epoch + 1) % plan.validate_every == 0 or epoch + 1 == plan.epochs


def _check(model: ReIDModel | FrozenEmbedder, plan: TrainSettings, classes: int) -> None:
    if plan.strategy != "plain" and model.diff_attention is None:
        raise CoreError(f"{plan.strategy} training needs a model with diff attention; this one has none")
    if plan.strategy != "plain" and plan.triplet == "circle":
        raise CoreError("the circle loss needs cosines, and diff attention gives distances: use it in plain training")
    if plan.strategy == "separate":
        return
    if isinstance(model, FrozenEmbedder):
        raise CoreError(f"a foreign embedder cannot be trained; {plan.strategy} training needs a torch model")
    known = model.neck.classes or 0
    if known != classes and model.neck.identity_weights:
        raise CoreError(f"the pictures show {classes} identities, the model's classifier has {known} classes")


def _not_finite(
    people: PersonPictures,
    rows: NDArray[np.int64],
    epoch: int,
    number: int,
    losses: Mapping[str, float],
    plan: TrainSettings,
    directory: Path,
) -> CoreError:
    names = [people.names[row] if people.names else f"picture {row}" for row in rows]
    (directory / FAILED_BATCH).write_text("\n".join(names) + "\n", encoding="utf-8")
    return CoreError(
        f"training stopped: the loss is not finite in epoch {epoch + 1}, batch {number + 1} ({losses}); its pictures "
        f"are listed in {directory / FAILED_BATCH} ({', '.join(names[:3])}, ...); {directory} has the checkpoint of "
        f"the epoch before; use a lower learning rate than {plan.learning_rate:g}"
    )


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C was pressed meanwhile; a second Ctrl-C interrupts at once. Only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def remember(*_: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, remember)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
