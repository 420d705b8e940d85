"""The one training loop: plain, joint and separate (paper, 'Training strategies').

Notable: batches, augmentation, dropout and learning rate are pure functions of (settings, epoch, batch), so a
checkpoint is the weights and the optimizers' moments alone, and an interrupted run that goes on gives the same weights,
bit for bit on a CPU with the same threads and settings (some of CUDA's kernels add in any order). Pictures stay decoded
in memory, on the GPU where there is one. The loop takes the model as it is built or loaded: plain and joint train all
of it, separate its diff attention alone, on features of the frozen rest.
"""

import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.diff_attention import DiffAttention
from reid_core.heads import Features
from reid_core.models import ReIDModel
from reid_core.serving.devices import choose_device, use_bfloat16
from reid_core.training.augment import augment
from reid_core.training.checkpoint import Position, load_checkpoint, save_checkpoint
from reid_core.training.frozen import FrozenEmbedder
from reid_core.training.log import EpochRecord, draw_curves, write_log
from reid_core.training.losses import CenterLoss, batch_hard_triplet, circle_loss, weighted_regularized_triplet
from reid_core.training.plans import TrainSettings, learning_rate
from reid_core.training.sampling import identity_batches
from schemas.errors import CoreError
from schemas.settings import Settings

Model = TypeVar("Model", bound=ReIDModel | FrozenEmbedder)

FAILED_BATCH = "failed_batch.txt"
#: Pictures whose features are cached at a time.
_CACHE_BLOCK = 128


def train(
    model: Model,
    people: PersonPictures,
    plan: TrainSettings,
    directory: Path,
    settings: Settings,
    *,
    validate: Callable[[Model], Mapping[str, float]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[EpochRecord]:
    """Trains `model` in place on the device of `settings` and returns the log.

    `directory` gets the log (JSON Lines, and a picture of the curves) and, after each epoch and on Ctrl-C, a
    checkpoint; a later call with the same arguments goes on from there. Plain and joint need a model whose classifier
    has one class an identity of `people` (junk aside), joint and separate one with diff attention; a frozen embedder
    can be trained separately only. `progress` hears of (batches done, batches in all) over the whole run.

    Raises CoreError where the model does not fit, the checkpoint is another run's, or a loss is no longer a number (the
    batch's file names are then in `directory`); InputError with too few identities.
    """
    people = people.select(people.identities != JUNK)
    labels = np.unique(people.identities, return_inverse=True)[1]
    _check(model, plan, int(labels.max(initial=-1)) + 1)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    directory.mkdir(parents=True, exist_ok=True)
    identity = _identity(model, plan, people)
    with torch.random.fork_rng(), _interrupts() as interrupted:
        run = _Run(model, plan, people, labels, settings)
        position: Position = run.restore(directory, identity)
        if len(position.records) < plan.epochs:
            run.cache_views()
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
                    raise _no_number(people, batches[number], epoch, number, losses, plan, directory)
                for name, value in losses.items():
                    position.sums[name] = position.sums.get(name, 0.0) + value
                position.batches = number + 1
                position.seconds = before_s + time.perf_counter() - started
                if progress:
                    progress(epoch * len(batches) + number + 1, plan.epochs * len(batches))
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
            if interrupted():  # in the epoch's last moments, or while it was validated
                raise KeyboardInterrupt
        run.finish()
    if position.records:
        draw_curves(directory, position.records)
    return position.records


def _identity(model: ReIDModel | FrozenEmbedder, plan: TrainSettings, people: PersonPictures) -> dict[str, object]:
    """What a checkpoint must be of to go on from: settings, pictures, the model and the weights that it begins with."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "plan": asdict(plan),
        "model": model.config.model_dump(mode="json"),
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
        raise CoreError("the circle loss takes cosine similarities, and diff attention gives distances: plain only")
    if plan.strategy == "separate":
        return
    if isinstance(model, FrozenEmbedder):
        raise CoreError(f"a foreign embedder cannot be trained itself; {plan.strategy} training needs a torch model")
    classifier = model.neck.classifier
    known = 0 if classifier is None else classifier.out_features
    if known != classes:
        raise CoreError(f"the pictures show {classes} identities, the model's classifier has {known} classes")


def _no_number(
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
        f"training stopped: the loss is no number in epoch {epoch + 1}, batch {number + 1} ({losses}); its pictures "
        f"are listed in {directory / FAILED_BATCH} ({', '.join(names[:3])}, ...); {directory} keeps the epoch before; "
        f"lower the learning rate of {plan.learning_rate:g}"
    )


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed since; a second one interrupts at once. Only the main thread can hear of it."""
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


class _Run:
    """What changes while training: the model, its optimizers, the centers, the average of the weights."""

    def __init__(
        self,
        model: ReIDModel | FrozenEmbedder,
        plan: TrainSettings,
        people: PersonPictures,
        labels: NDArray[np.int64],
        settings: Settings,
    ) -> None:
        self.model = model
        self.plan = plan
        self.device = choose_device(settings)
        self.bfloat16 = use_bfloat16(settings, self.device)
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features: Callable[[Tensor], Features] = model.features
        if settings.compiles(self.device.type) and plan.strategy != "separate":
            self.features = torch.compile(model.features)
        self.pictures = torch.from_numpy(people.pictures).to(self.device)
        self.labels = torch.from_numpy(labels).to(self.device)
        self.views: Tensor | None = None
        self.trained: nn.Module = self._attention if plan.strategy == "separate" else model
        parameters = [parameter for parameter in self.trained.parameters() if parameter.requires_grad]
        module = set(model.diff_attention.parameters()) if plan.strategy == "joint" and model.diff_attention else set()
        groups = [{"params": [p for p in parameters if (p in module) is own]} for own in (False, True)]
        self.adam = torch.optim.Adam(
            [group for group in groups if group["params"]], weight_decay=plan.weight_decay, fused=True
        )
        self.average = [value.detach().clone() for value in self._averaged] if plan.average_decay else []
        self.center_loss: CenterLoss | None = None
        if isinstance(model, ReIDModel) and plan.strategy != "separate" and plan.center_weight > 0:
            assert model.neck.classifier is not None
            torch.manual_seed(plan.seed)
            self.center_loss = CenterLoss(model.neck.classifier.out_features, model.dims).to(self.device)
            self.sgd = torch.optim.SGD(self.center_loss.parameters(), lr=plan.center_learning_rate)

    @property
    def _attention(self) -> DiffAttention:
        assert self.model.diff_attention is not None
        return self.model.diff_attention

    @property
    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.adam.param_groups for parameter in group["params"]]

    @property
    def _averaged(self) -> list[Tensor]:
        """Parameters, and BatchNorm's means and variances, which belong to them."""
        return [*self._parameters, *(buffer for buffer in self.trained.buffers() if buffer.is_floating_point())]

    def set_training(self) -> None:
        self.model.eval()  # separate: the frozen rest keeps its running means
        self.trained.train()

    def step(self, rows: NDArray[np.int64], epoch: int, number: int, rates: tuple[float, float]) -> dict[str, float]:
        """The batch `number` of pictures `rows`; returns each weighted loss as it was before the step.

        rates: of the parameters, and of the module's where the backbone learns beside it.
        """
        losses = self._losses(rows, epoch, number)
        for group, rate in zip(self.adam.param_groups, rates, strict=False):
            group["lr"] = rate
        self.adam.zero_grad(set_to_none=True)
        if self.center_loss is not None:
            self.sgd.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values()))
        total.sum().backward()  # type: ignore[no-untyped-call]
        if self.plan.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.plan.clip_norm)
        self.adam.step()
        if self.center_loss is not None:
            self.center_loss.undo_weight(self.plan.center_weight)
            self.sgd.step()
        if self.average:
            torch._foreach_lerp_(self.average, [v.detach() for v in self._averaged], 1 - self.plan.average_decay)
        return dict(zip(losses, total.tolist(), strict=True))  # one wait for the device a batch

    def _losses(self, rows: NDArray[np.int64], epoch: int, number: int) -> dict[str, Tensor]:
        plan = self.plan
        where = torch.from_numpy(rows).to(self.device)
        labels = self.labels[where]
        if self.views is not None:
            view = self.views[epoch % len(self.views), where]
            features = Features(view, view, None)
        else:
            features = self._features(where, (plan.seed, epoch, number))
        losses: dict[str, Tensor] = {}
        match plan.triplet:
            case "batch_hard":
                triplet = batch_hard_triplet(self._distances(features), labels, plan.margin)
            case "weighted":
                triplet = weighted_regularized_triplet(self._distances(features), labels)
            case "circle":
                directions = F.normalize(features.post_bn)
                triplet = circle_loss(directions @ directions.T, labels)
        losses["triplet"] = plan.triplet_weight * triplet
        if plan.strategy != "separate":
            assert features.logits is not None
            losses["identity"] = F.cross_entropy(features.logits, labels, label_smoothing=plan.label_smoothing)
        if self.center_loss is not None:
            losses["center"] = plan.center_weight * self.center_loss(features.pre_bn, labels)
        return losses

    def _distances(self, features: Features) -> Tensor:  # (n, n)
        tested = self.plan.triplet_distance == "test"
        if self.plan.strategy == "plain":
            compared = F.normalize(features.post_bn) if tested else features.pre_bn
            return torch.cdist(compared, compared, compute_mode="donot_use_mm_for_euclid_dist")
        return self._attention.distance_matrix(features.post_bn, features.post_bn, normalize=tested)

    def _features(self, where: Tensor, seed: tuple[int, ...]) -> Features:
        """Of pictures augmented as `seed` says, which decides dropout too."""
        number = int(np.random.SeedSequence(seed).generate_state(1)[0])
        torch.manual_seed(number)
        images = augment(self.pictures[where], self.model.config.input, torch.Generator().manual_seed(number))
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16),
            torch.set_grad_enabled(self.plan.strategy != "separate"),
        ):
            return self.features(images)

    def cache_views(self) -> None:
        """Separate: the features of `cached_views` augmented views of each picture, (views, N, D)."""
        plan = self.plan
        if plan.strategy != "separate" or not plan.cached_views:
            return
        self.model.eval()
        views = []
        for view in range(plan.cached_views):
            blocks = torch.split(torch.arange(len(self.pictures), device=self.device), _CACHE_BLOCK)
            found = [self._features(block, (plan.seed, view, number)) for number, block in enumerate(blocks)]
            views.append(torch.cat([features.post_bn for features in found]))
        self.views = torch.stack(views)

    def validated(self, validate: Callable[[], Mapping[str, float]]) -> dict[str, float]:
        """What `validate` says while the model is as it would be kept."""
        current = [value.detach().clone() for value in self._averaged] if self.average else []
        self.finish()
        found = dict(validate())
        self._put(current)
        return found

    def finish(self) -> None:
        """Leaves the model in eval mode, with its averaged weights where there are any."""
        self._put(self.average)
        self.model.eval()

    @torch.no_grad()
    def _put(self, weights: list[Tensor]) -> None:
        if weights:
            for value, kept in zip(self._averaged, weights, strict=True):
                value.copy_(kept)

    def save(self, directory: Path, identity: Mapping[str, object], position: Position) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for number, moments in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": tensor for name, tensor in moments.items()}
        tensors |= {f"average.{index}": tensor for index, tensor in enumerate(self.average)}
        if self.center_loss is not None:
            tensors["centers"] = self.center_loss.centers.detach()
        save_checkpoint(directory, identity, position, tensors)

    def restore(self, directory: Path, identity: Mapping[str, object]) -> Position:
        """Where the run stands, at its beginning without a checkpoint; everything else goes back as it was."""
        loaded = load_checkpoint(directory, identity)
        if loaded is None:
            return Position()
        position, tensors = loaded
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "adam": {}, "average": {}, "centers": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        try:
            self.model.load_state_dict(parts["model"])
            if self.center_loss is not None:
                self.center_loss.load_state_dict({"centers": parts["centers"][""]})
            for index, average in enumerate(self.average):
                average.copy_(parts["average"][str(index)])
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise CoreError(f"{directory}: its checkpoint is of another model: {reason}") from None
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["adam"].items():
            number, _, moment = name.partition(".")
            # The fused step walks a parameter and its moments in memory order: both must lie channels_last.
            laid_out = torch.empty_like(self._parameters[int(number)]).copy_(tensor) if tensor.ndim else tensor
            moments.setdefault(int(number), {})[moment] = laid_out
        self.adam.load_state_dict({"state": moments, "param_groups": self.adam.state_dict()["param_groups"]})
        return position
