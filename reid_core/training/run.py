"""One training run while it goes on: the model, its optimizers, the centers and the average of the weights."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from reid_core.datasets.person_pictures import PersonPictures
from reid_core.device_memory import is_out_of_memory, on_device_if_small
from reid_core.diff_attention import DiffAttention
from reid_core.heads import Features
from reid_core.models import Neck, ReIDModel
from reid_core.preprocessing import normalized
from reid_core.progress import Progress
from reid_core.serving.devices import choose_device, has_bfloat16, use_bfloat16
from reid_core.speed.kept import is_measured, measured
from reid_core.speed.trial import fastest_first
from reid_core.training.augment import augment
from reid_core.training.checkpoint import Position, load_checkpoint, save_checkpoint
from reid_core.training.frozen import FrozenEmbedder
from reid_core.training.losses import CenterLoss, batch_hard_triplet, circle_loss, weighted_regularized_triplet
from reid_core.training.optimizer import optimizer_of
from reid_core.training.plans import TrainSettings
from schemas.errors import CoreError
from schemas.settings import Settings

#: Pictures whose features are cached at a time.
_CACHE_BLOCK = 128
#: Pictures of a step whose time is measured.
_TRIAL_PICTURES = 8
#: Share of the device's free memory that the pictures, or their cached features, may take. Otherwise they stay on the
#: host, and each batch is copied to the device: weights, moments and activations need the rest.
_SHARE = 0.25


class Run:
    """The parts of a run that change with each step, on the device of `settings`.

    Losses are float32, and so are the products of what they are computed from: only the backbone computes in bfloat16
    where the device has it, and `choose_device` turns TF32 off.
    """

    def __init__(
        self,
        model: ReIDModel | FrozenEmbedder,
        plan: TrainSettings,
        people: PersonPictures,
        labels: NDArray[np.int64],
        settings: Settings,
    ) -> None:
        """`labels` (N,): the class of each picture of `people`, 0..C-1."""
        self.model = model
        self.plan = plan
        self.settings = settings
        self.device = choose_device(settings)
        # Other methods have linear layers before the triplet loss: in bfloat16 their losses do not fall on a processor.
        on_cpu, baseline = self.device.type == "cpu", model.config.baseline if isinstance(model, ReIDModel) else None
        may_round = not on_cpu or baseline in ("bagtricks", "agw")
        self.bfloat16 = may_round and use_bfloat16(settings, self.device)
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features: Callable[..., Features] = model.features
        self.pictures = on_device_if_small(torch.from_numpy(people.pictures), self.device, _SHARE)
        self.labels = torch.from_numpy(labels).to(self.device)
        self.cameras: Tensor | None = None
        if isinstance(model, ReIDModel) and model.looks_at_cameras:
            self.cameras = torch.from_numpy(model.camera_rows(people.cameras)).to(self.device)
        self.views: Tensor | None = None
        self.trained: nn.Module = self._attention if plan.strategy == "separate" else model
        if on_cpu and may_round and plan.strategy != "separate" and is_measured(settings) and has_bfloat16():
            self.bfloat16 = self._faster_in_bfloat16()
        self.optimizer = optimizer_of(model, self.trained, plan)
        self.average = [value.detach().clone() for value in self._averaged] if plan.average_decay else []
        self.center_loss: CenterLoss | None = None
        if isinstance(model, ReIDModel) and plan.strategy != "separate" and plan.center_weight > 0:
            torch.manual_seed(plan.seed)
            self.center_loss = CenterLoss(int(labels.max()) + 1, model.dims).to(self.device)
            self.sgd = torch.optim.SGD(self.center_loss.parameters(), lr=plan.center_learning_rate)

    @property
    def _attention(self) -> DiffAttention:
        assert self.model.diff_attention is not None
        return self.model.diff_attention

    @property
    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def _averaged(self) -> list[Tensor]:
        """The trained parameters, and BatchNorm's running means and variances, which belong to them."""
        return [*self._parameters, *(buffer for buffer in self.trained.buffers() if buffer.is_floating_point())]

    def set_training(self) -> None:
        self.model.eval()  # separate: the frozen rest keeps its running means
        self.trained.train()
        if self.cameras is not None and self.plan.strategy == "separate" and isinstance(self.model, ReIDModel):
            self.model.normalize_batches()

    def compile(self, progress: Progress | None = None) -> None:
        """Compiles the network where `settings` ask for it: "on" everywhere, "auto" on CUDA, "off" nowhere.

        torch.compile compiles when it is first used, so a trial step on blank pictures shows whether it works; it
        leaves weights and running means as they are. Where it fails, "auto" warns and trains without, and "on" raises
        CoreError.
        """
        if self.plan.strategy == "separate" or not self.settings.compiles(self.device.type):
            return
        if progress is not None:
            progress("compiling", 0, 0)
        compiled: Callable[..., Features] = torch.compile(self.model.features)
        with self._left_as_it_is():
            try:
                self._trial(compiled, self.plan.identities_per_batch * self.plan.pictures_per_identity)
            except Exception as error:
                # Where memory is what is missing, the first step reports it.
                if not is_out_of_memory(error):
                    compiled = self._uncompiled(error)
        self.features = compiled

    def _faster_in_bfloat16(self) -> bool:
        """Whether this processor trains the network faster so, by a trial."""
        config = self.model.config
        what = f"training, {config.architecture} {config.baseline} {config.input.height}x{config.input.width}"

        def step(bfloat16: bool) -> None:
            self.bfloat16 = bfloat16
            self._trial(self.model.features, _TRIAL_PICTURES)

        forms = {name: partial(step, name == "bfloat16") for name in ("float32", "bfloat16")}
        with self._left_as_it_is():
            return fastest_first(measured(self.settings, what, lambda: forms), "float32")[0] == "bfloat16"

    @contextmanager
    def _left_as_it_is(self) -> Iterator[None]:
        """Steps within change neither weights nor running means, gradients or what is random afterwards."""
        before = [buffer.clone() for buffer in self.model.buffers()]
        try:
            with torch.random.fork_rng():
                yield
        finally:
            self.model.zero_grad(set_to_none=True)
            with torch.no_grad():
                for buffer, value in zip(self.model.buffers(), before, strict=True):
                    buffer.copy_(value)

    def _trial(self, features: Callable[..., Features], count: int) -> None:
        """A step on blank pictures, of which no gradient is used."""
        self.set_training()
        size = (self.model.config.input.height, self.model.config.input.width)
        blank = torch.zeros(count, *size, 3, dtype=torch.uint8, device=self.device)
        images = normalized(blank, self.model.config.input).contiguous(memory_format=torch.channels_last)
        cameras = () if self.cameras is None else (torch.zeros_like(self.cameras[:1]).expand(count),)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            found = features(images, *cameras)
        torch.stack([part.float().sum() for part in found if part is not None]).sum().backward()  # type: ignore[no-untyped-call]

    def _uncompiled(self, error: Exception) -> Callable[..., Features]:
        reason = " ".join(str(error).split())[:300]
        message = f"the network cannot be compiled here ({reason}); a processor needs a C++ compiler for it"
        if self.settings.compile == "on":
            raise CoreError(f"{message}; set URBAN_REID_COMPILE=off to train without") from None
        warnings.warn(f"{message}; training without, as URBAN_REID_COMPILE=off does", stacklevel=3)
        return self.model.features

    def step(self, rows: NDArray[np.int64], epoch: int, number: int, rates: tuple[float, float]) -> dict[str, float]:
        """Trains on batch `number`, the pictures `rows`; returns each weighted loss as it was before the step.

        rates: learning rates of the parameters, and in joint training of the diff attention's.
        """
        losses = self.losses(rows, epoch, number)
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["of_module"]] * group["share"]
        self.optimizer.zero_grad(set_to_none=True)
        if self.center_loss is not None:
            self.sgd.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values()))
        total.sum().backward()  # type: ignore[no-untyped-call]
        if self.plan.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.plan.clip_norm)
        self.optimizer.step()
        if self.center_loss is not None:
            self.center_loss.undo_weight(self.plan.center_weight)
            self.sgd.step()
        if self.average:
            blend = get_ema_multi_avg_fn(self.plan.average_decay)  # type: ignore[no-untyped-call]
            blend(self.average, [value.detach() for value in self._averaged], None)
        return dict(zip(losses, total.tolist(), strict=True))  # one wait for the device per batch

    def losses(self, rows: NDArray[np.int64], epoch: int, number: int) -> dict[str, Tensor]:
        """Each weighted loss of batch `number`, a float32 scalar with its graph."""
        plan = self.plan
        where = torch.from_numpy(rows)
        labels = self.labels[where.to(self.device)]
        if self.views is not None:
            view = self.views[epoch % len(self.views), where.to(self.views.device)].to(self.device)
            features = Features(view, view, None)
        else:
            features = self._features(where, (plan.seed, epoch, number))
        losses: dict[str, Tensor] = {}
        if plan.triplet_weight > 0:
            losses["triplet"] = plan.triplet_weight * self._triplet(features, labels)
        weights = () if plan.strategy == "separate" else self._neck.identity_weights
        if weights:
            assert features.logits is not None
            parts = features.logits.view(len(labels), len(weights), -1).unbind(1)
            entropies = [F.cross_entropy(part, labels, label_smoothing=plan.label_smoothing) for part in parts]
            losses["identity"] = _weighted(weights, entropies)
        if self.center_loss is not None:
            losses["center"] = plan.center_weight * self.center_loss(features.pre_bn, labels)
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        return losses

    @property
    def _neck(self) -> Neck:
        assert isinstance(self.model, ReIDModel)
        return self.model.neck

    def _triplet(self, features: Features, labels: Tensor) -> Tensor:
        if self.plan.triplet == "circle":
            directions = F.normalize(features.post_bn)
            return circle_loss(directions @ directions.T, labels)
        weights, distances = self._distances(features)
        if self.plan.triplet == "weighted":
            return _weighted(weights, [weighted_regularized_triplet(part, labels) for part in distances])
        return _weighted(weights, [batch_hard_triplet(part, labels, self.plan.margin) for part in distances])

    def _distances(self, features: Features) -> tuple[tuple[float, ...], list[Tensor]]:
        """Weights and distances (n, n) of each triplet loss: of the whole feature, or of its parts before BN."""
        tested = self.plan.triplet_distance == "test"
        if self.plan.strategy != "plain":
            whole = self._attention.distance_matrix(features.post_bn, features.post_bn, normalize=tested)
            return (1.0,), [whole]
        if tested:
            return (1.0,), [_plain_distances(F.normalize(features.post_bn))]
        weights = self._neck.triplet_weights
        parts = features.pre_bn.chunk(len(weights), dim=1)
        used = [(weight, part) for weight, part in zip(weights, parts, strict=True) if weight]
        return tuple(weight for weight, _ in used), [_plain_distances(part) for _, part in used]

    def _features(self, where: Tensor, seed: tuple[int, ...]) -> Features:
        """Features of the pictures `where`; `seed` decides augmentation and dropout."""
        number = int(np.random.SeedSequence(seed).generate_state(1)[0])
        torch.manual_seed(number)
        pictures = self.pictures[where.to(self.pictures.device)].to(self.device)
        generator, plan = torch.Generator().manual_seed(number), self.plan
        images = augment(pictures, self.model.config.input, generator, crop=plan.crop, erase=plan.erase)
        cameras = () if self.cameras is None else (self.cameras[where.to(self.device)],)
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16),
            torch.set_grad_enabled(self.plan.strategy != "separate"),
        ):
            return self.features(images, *cameras)

    def cache_views(self, progress: Progress | None = None) -> None:
        """Separate training: computes the features of `cached_views` augmented views of each picture, (views, N, D)."""
        plan, count = self.plan, len(self.pictures)
        if plan.strategy != "separate" or not plan.cached_views:
            return
        self.set_training()
        found: Tensor | None = None
        for view in range(plan.cached_views):
            for number, block in enumerate(torch.split(torch.arange(count), _CACHE_BLOCK)):
                features = self._features(block, (plan.seed, view, number)).post_bn
                if found is None:
                    found = torch.empty(plan.cached_views, count, features.shape[1], dtype=features.dtype)
                found[view, block] = features.cpu()
                if progress is not None:
                    done = view * count + int(block[-1]) + 1
                    progress("computing the features to train on", done, plan.cached_views * count)
        self.views = None if found is None else on_device_if_small(found, self.device, _SHARE)

    def validated(self, validate: Callable[[], Mapping[str, float]]) -> dict[str, float]:
        """What `validate` returns when it is called with the model in the form that would be kept."""
        current = [value.detach().clone() for value in self._averaged] if self.average else []
        self.finish()
        found = dict(validate())
        self._put(current)
        return found

    def finish(self) -> None:
        """Leaves the model in eval mode, with the averaged weights if weights are averaged."""
        self._put(self.average)
        self.model.eval()

    @torch.no_grad()
    def _put(self, weights: list[Tensor]) -> None:
        if weights:
            for value, kept in zip(self._averaged, weights, strict=True):
                value.copy_(kept)

    def save(self, directory: Path, identity: Mapping[str, object], position: Position) -> None:
        """Writes the checkpoint of the run `identity`."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": tensor for name, tensor in moments.items() if tensor is not None}
        tensors |= {f"average.{index}": tensor for index, tensor in enumerate(self.average)}
        if self.center_loss is not None:
            tensors["centers"] = self.center_loss.centers.detach()
        save_checkpoint(directory, identity, position, tensors)

    def restore(self, directory: Path, identity: Mapping[str, object]) -> Position:
        """Restores everything from the checkpoint of the run `identity`, and returns the position of the run.

        Without a checkpoint that is its beginning. Raises CoreError for a checkpoint of another run.
        """
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
            # The fused step reads a parameter and its moments in memory order: both must be channels_last.
            laid_out = torch.empty_like(self._parameters[int(number)]).copy_(tensor) if tensor.ndim else tensor
            moments.setdefault(int(number), {})[moment] = laid_out
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        return position


def _plain_distances(features: Tensor) -> Tensor:
    return torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")


def _weighted(weights: Sequence[float], losses: Sequence[Tensor]) -> Tensor:
    total: Tensor = torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()
    return total
