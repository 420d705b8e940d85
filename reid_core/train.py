"""The one training loop: plain, joint and separate (paper, 'Training strategies').

Notable: batches, augmentation and learning rate are pure functions of (settings, epoch), so a checkpoint is the weights
and the optimiser's moments alone, and an interrupted run that goes on gives the same weights, bit for bit. The loop
takes the model as it is built or loaded: plain and joint train all of it, separate its diff attention alone, on
features of the frozen rest.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from reid_core.augment import augment
from reid_core.data import JUNK, PersonPictures
from reid_core.devices import choose_device, use_bfloat16
from reid_core.files import read_tensors
from reid_core.losses import CentreLoss, batch_hard_triplet, weighted_regularised_triplet
from reid_core.models import ReIDModel
from reid_core.sampling import identity_batches
from schemas.errors import CoreError
from schemas.settings import Settings

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"

Strategy = Literal["plain", "joint", "separate"]


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a run's weights, besides the model it starts from and the pictures.

    The defaults are the paper's for BagTricks, plain and joint; `paper_settings` gives the other columns.
    """

    strategy: Strategy = "joint"
    triplet: Literal["batch_hard", "weighted"] = "batch_hard"
    margin: float | None = 0.3  # of the batch-hard triplet; None is the soft margin
    triplet_weight: float = 1.0  # 10 in separate training
    label_smoothing: float = 0.1  # of the cross-entropy on the post-BN feature
    centre_weight: float = 5e-4  # of the centre loss on the pre-BN feature; 0 leaves it out
    centre_learning_rate: float = 0.5  # of the centres' SGD
    epochs: int = 120
    learning_rate: float = 3.5e-4  # Adam's, before warm-up and decay
    weight_decay: float = 5e-4  # Adam's, added to the gradient
    warmup: float = 10 / 120  # share of the epochs in which the rate grows from 1 %
    milestones: tuple[float, ...] = (40 / 120, 70 / 120)  # shares of the epochs; x 0.1 at each
    identities_per_batch: int = 16  # P
    pictures_per_identity: int = 4  # K
    seed: int = 0  # of batches, augmentation and centres
    validate_every: int = 10  # epochs between validations; the last epoch always has one


def paper_settings(strategy: Strategy, baseline: Literal["bagtricks", "agw"]) -> TrainSettings:
    """The paper's settings of a strategy and a baseline."""
    triplet: Literal["batch_hard", "weighted"] = "weighted" if baseline == "agw" else "batch_hard"
    if strategy != "separate":
        return TrainSettings(strategy=strategy, triplet=triplet)
    return TrainSettings(
        strategy=strategy,
        triplet=triplet,
        margin=None,
        triplet_weight=10,
        epochs=60,
        learning_rate=0.05,
        warmup=0,
        milestones=(20 / 60, 40 / 60),
    )


@dataclass(frozen=True)
class EpochRecord:
    """One line of the log: means over the epoch's batches, each loss with its weight."""

    epoch: int  # from 1
    learning_rate: float  # of the last batch
    losses: Mapping[str, float]
    pictures: int
    seconds: float
    metrics: Mapping[str, float]  # what `validate` returned, empty in epochs without


def train(
    model: ReIDModel,
    people: PersonPictures,
    plan: TrainSettings,
    directory: Path,
    settings: Settings,
    *,
    validate: Callable[[ReIDModel], Mapping[str, float]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[EpochRecord]:
    """Trains `model` in place on the device of `settings` and returns the log, which `directory` holds as JSON Lines.

    Each epoch ends with a checkpoint in `directory`; a later call with the same arguments goes on from there. Plain and
    joint need a model whose classifier has one class an identity of `people` (junk aside), joint and separate one with
    diff attention. `progress` hears of (batches done, all batches) of each epoch. Raises CoreError where the model does
    not fit, the checkpoint is another run's, or a loss is no longer a number; InputError with too few identities.
    """
    people = people.select(people.identities != JUNK)
    labels = np.unique(people.identities, return_inverse=True)[1]
    _check(model, plan, int(labels.max(initial=-1)) + 1)
    device = choose_device(settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = _Run(model, plan, device, use_bfloat16(settings, device))
    identity = {
        "plan": asdict(plan),
        "input": model.config.input.model_dump(),
        "people": people.digest(),
    }

    directory.mkdir(parents=True, exist_ok=True)
    records = run.restore(directory / CHECKPOINT, identity)
    for epoch in range(len(records), plan.epochs):
        started = time.perf_counter()
        batches = identity_batches(labels, plan.identities_per_batch, plan.pictures_per_identity, (plan.seed, epoch))
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence((plan.seed, epoch)).generate_state(1)[0]))
        sums: dict[str, float] = {}
        run.set_training()
        for done, rows in enumerate(batches):
            rate = learning_rate(plan, epoch + done / len(batches))
            images = augment(torch.from_numpy(people.pictures[rows]).to(device), model.config.input, generator)
            losses = run.step(images, torch.from_numpy(labels[rows]).to(device), rate)
            if not math.isfinite(sum(losses.values())):
                raise CoreError(
                    f"training stopped: the loss is no number in epoch {epoch + 1}, batch {done + 1} ({losses}); "
                    f"{directory} keeps the epoch before; lower the learning rate of {plan.learning_rate:g}"
                )
            sums = {name: sums.get(name, 0.0) + value for name, value in losses.items()}
            if progress:
                progress(done + 1, len(batches))
        seconds = time.perf_counter() - started
        due = (epoch + 1) % plan.validate_every == 0 or epoch + 1 == plan.epochs
        record = EpochRecord(
            epoch + 1,
            rate,
            {name: total / len(batches) for name, total in sums.items()},
            sum(len(rows) for rows in batches),
            round(seconds, 3),
            dict(validate(model)) if validate and due else {},
        )
        records.append(record)
        run.save(directory / CHECKPOINT, identity, records)
        _write_log(directory / LOG, records)
    model.eval()
    return records


def learning_rate(plan: TrainSettings, moment: float) -> float:
    """Adam's rate at a moment, counted in epochs from 0: linear warm-up from 1 %, then x 0.1 at each milestone."""
    share = moment / plan.epochs
    rate = plan.learning_rate * 0.1 ** sum(share >= milestone for milestone in plan.milestones)
    return rate * (0.01 + 0.99 * share / plan.warmup) if share < plan.warmup else rate


def _check(model: ReIDModel, plan: TrainSettings, classes: int) -> None:
    if plan.strategy != "plain" and model.diff_attention is None:
        raise CoreError(f"{plan.strategy} training needs a model with diff attention; this one has none")
    if plan.strategy != "separate":
        classifier = model.neck.classifier
        known = 0 if classifier is None else classifier.out_features
        if known != classes:
            raise CoreError(f"the pictures show {classes} identities, the model's classifier has {known} classes")


class _Run:
    """What changes while training: the model, its optimisers, the centres."""

    def __init__(self, model: ReIDModel, plan: TrainSettings, device: torch.device, bfloat16: bool) -> None:
        self.model = model
        self.plan = plan
        self.device = device
        self.bfloat16 = bfloat16
        self.trained: nn.Module = model
        if plan.strategy == "separate":
            assert model.diff_attention is not None
            self.trained = model.diff_attention
        parameters = [parameter for parameter in self.trained.parameters() if parameter.requires_grad]
        self.adam = torch.optim.Adam(parameters, weight_decay=plan.weight_decay, fused=True)
        self.centre_loss: CentreLoss | None = None
        if plan.strategy != "separate" and plan.centre_weight > 0:
            assert model.neck.classifier is not None
            with torch.random.fork_rng([]):
                torch.manual_seed(plan.seed)
                self.centre_loss = CentreLoss(model.neck.classifier.out_features, model.dims).to(device)
            self.sgd = torch.optim.SGD(self.centre_loss.parameters(), lr=plan.centre_learning_rate)

    def set_training(self) -> None:
        self.model.eval()  # separate: the frozen rest keeps its running means
        self.trained.train()

    def step(self, images: Tensor, labels: Tensor, rate: float) -> dict[str, float]:
        """One batch, `images` (n, 3, H, W) and `labels` (n,); returns each weighted loss as it was before the step."""
        losses = self._losses(images, labels)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.zero_grad(set_to_none=True)
        if self.centre_loss is not None:
            self.sgd.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        if self.centre_loss is not None:
            self.centre_loss.undo_weight(self.plan.centre_weight)
            self.sgd.step()
        return {name: loss.item() for name, loss in losses.items()}

    def _losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        plan, attention = self.plan, self.model.diff_attention
        frozen = plan.strategy == "separate"
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16),
            torch.set_grad_enabled(not frozen),
        ):
            features = self.model.features(images)
        losses: dict[str, Tensor] = {}
        if plan.strategy == "plain":
            distances = torch.cdist(
                features.pre_bn, features.pre_bn, compute_mode="donot_use_mm_for_euclid_dist"
            )  # (n, n)
        else:
            assert attention is not None
            distances = attention.distance_matrix(features.post_bn, features.post_bn, normalize=False)
        if plan.triplet == "weighted":
            triplet = weighted_regularised_triplet(distances, labels)
        else:
            triplet = batch_hard_triplet(distances, labels, plan.margin)
        losses["triplet"] = plan.triplet_weight * triplet
        if not frozen:
            assert features.logits is not None
            losses["identity"] = F.cross_entropy(features.logits, labels, label_smoothing=plan.label_smoothing)
        if self.centre_loss is not None:
            losses["centre"] = plan.centre_weight * self.centre_loss(features.pre_bn, labels)
        return losses

    def save(self, path: Path, identity: Mapping[str, object], records: list[EpochRecord]) -> None:
        """All of the run's state in one safetensors file, in place of the one before or not at all."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, moments in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
        if self.centre_loss is not None:
            tensors["centres"] = self.centre_loss.centres.detach()
        text = json.dumps({"identity": identity, "records": [asdict(record) for record in records]})
        partial = path.with_name(path.name + ".partial")
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial, {"run": text})
        partial.replace(path)

    def restore(self, path: Path, identity: Mapping[str, object]) -> list[EpochRecord]:
        """The records of the epochs done, none without a checkpoint; everything else goes back as it was."""
        if not path.exists():
            return []
        tensors = read_tensors(path)
        with safe_open(path, "pt") as file:
            saved = json.loads((file.metadata() or {}).get("run", "{}"))
        if saved.get("identity") != json.loads(json.dumps(identity)):
            raise CoreError(
                f"{path}: a checkpoint of other settings or pictures; choose another directory or remove it"
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "adam": {}, "centres": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        try:
            self.model.load_state_dict(parts["model"])
            if self.centre_loss is not None:
                self.centre_loss.load_state_dict({"centres": parts["centres"][""]})
        except (RuntimeError, KeyError) as error:
            raise CoreError(f"{path}: a checkpoint of another model: {str(error).splitlines()[-1].strip()}") from None
        moments: dict[int, dict[str, Tensor]] = {}
        parameters = self.adam.param_groups[0]["params"]
        for name, tensor in parts["adam"].items():
            index, _, moment = name.partition(".")
            like = parameters[int(index)]
            # The fused step walks a parameter and its moments in memory order: both must lie channels_last.
            moments.setdefault(int(index), {})[moment] = torch.empty_like(like).copy_(tensor) if tensor.ndim else tensor
        self.adam.load_state_dict({"state": moments, "param_groups": self.adam.state_dict()["param_groups"]})
        return [EpochRecord(**record) for record in saved["records"]]


def _write_log(path: Path, records: list[EpochRecord]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))
    partial.replace(path)
