"""The Re-ID core in this process: one device, one lock, fixed batch shapes.

Every batch is padded to `batch_size`, because the same picture in a batch of another size differs in its last bits.
BatchNorm is folded into the convolutions before they are rounded to bfloat16. Distances are float64 on the CPU.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from reid_core.backbones import RegisteredBackbone
from reid_core.device_memory import is_out_of_memory, unless_out_of_memory
from reid_core.diff_attention import DiffAttention
from reid_core.feature_space import FeatureSpace
from reid_core.files import load_diff_attention, load_model, open_space, read_card
from reid_core.models import ReIDModel
from reid_core.preprocessing import normalized
from reid_core.serving.arithmetic import with_arithmetic
from reid_core.serving.checks import check_pairs, check_pictures, check_vectors
from reid_core.serving.conversion import converted
from reid_core.serving.devices import batch_size, choose_device, one_thread, use_bfloat16
from reid_core.serving.foreign import ForeignEmbedder, model_file
from schemas.cards import ModelCard
from schemas.errors import CoreError, ModelFileError, OutOfDeviceMemory, UrbanReidError
from schemas.settings import Settings

#: One batch of prepared pictures, uint8 (B, H, W, 3), to features, float32 (B, D). A tensor on CUDA may still be
#: computed when it is returned.
Embedder = Callable[[NDArray[np.uint8]], "NDArray[np.float32] | Tensor"]

#: Row pairs that one thread compares at a time.
DISTANCE_ROWS = 128

#: Held while anything computes: the cores of one process share its device.
_DEVICE = threading.Lock()


class LocalCore:
    """A `ReIDCore` in this process; see there for `embed` and `distances`.

    When a batch does not fit into the device's memory, the batch size is halved for the rest of this object's life.
    Later features then come from another batch shape and may differ from earlier ones in their last bits (about 1e-6,
    or 1e-2 in bfloat16); features already stored stay as they are.
    """

    def __init__(
        self,
        card: ModelCard,
        embedder: Embedder,
        diff_attention: DiffAttention | None,
        space: FeatureSpace | None = None,
        *,
        batch_size: int,
    ) -> None:
        self.card = card
        self.space = space
        self.seconds = 0.0
        self.batch_size = batch_size
        self._embedder = embedder
        self._diff_attention = None if diff_attention is None else diff_attention.cpu().double().eval()

    @classmethod
    def open(cls, settings: Settings, directory: Path) -> "LocalCore":
        """The core of a model directory on the device of `settings`. Raises ModelFileError and CoreError.

        Engine and precision are those of `settings`, where they are "auto" those in the card, which a registered model
        has.
        """
        if settings.threads:
            torch.set_num_threads(settings.threads)
        card = read_card(directory)
        settings = with_arithmetic(settings, card)
        space = open_space(directory, card)
        if card.engine == "torch":
            model = load_model(directory)
            if settings.engine == "openvino" and choose_device(settings).type == "cpu":
                file = converted(settings, directory, card)
                embedder = ForeignEmbedder.open(file, card.input, settings)
                return cls(card, embedder, model.diff_attention, space, batch_size=embedder.batch_size)
            torch_embedder = TorchEmbedder(model, card, settings)
            return cls(card, torch_embedder, model.diff_attention, space, batch_size=torch_embedder.batch_size)
        attention = load_diff_attention(directory, card)
        if card.engine == "none":
            return cls(card, _no_embedder(card), attention, space, batch_size=1)
        embedder = ForeignEmbedder.open(model_file(directory, card), card.input, settings)
        if embedder.dims != card.raw_dims:
            raise ModelFileError(f"{directory}: card.json says {card.raw_dims} dims, the file has {embedder.dims}")
        return cls(card, embedder, attention, space, batch_size=embedder.batch_size)

    def in_space(self, card: ModelCard, space: FeatureSpace | None) -> "LocalCore":
        """The core of the feature space with this card, of which this is the base: the network is opened once."""
        module = None if card.diff_attention is None else self._diff_attention
        return LocalCore(card, self._embedder, module, space, batch_size=self.batch_size)

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        check_pictures(pictures, self.card)
        with _DEVICE:
            started = time.perf_counter()
            features = self._embed(pictures)
            self.seconds += time.perf_counter() - started
        check_vectors(features, self.card.raw_dims, f"model {self.card.name}")
        return features

    def _embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        # On CUDA a batch is copied back while the next one is prepared; that needs page-locked memory to copy to.
        on_cuda = isinstance(self._embedder, TorchEmbedder) and self._embedder.device.type == "cuda"
        features = torch.empty((len(pictures), self.card.raw_dims), pin_memory=on_cuda)
        done = 0
        while done < len(pictures):
            batch = pictures[done : done + self.batch_size]
            padded = np.zeros((self.batch_size, *pictures.shape[1:]), np.uint8)
            padded[: len(batch)] = batch
            try:
                found = unless_out_of_memory(partial(self._embedder, padded))
            except UrbanReidError:
                raise
            except Exception as error:  # an engine's errors have no narrower base
                reason = " ".join(str(error).split())[:300]
                raise CoreError(
                    f"model {self.card.name} failed on a batch of {self.batch_size} pictures: {reason}"
                ) from error
            if found is None:
                self._halve_batch_size()
                continue
            features[done : done + len(batch)].copy_(torch.as_tensor(found)[: len(batch)], non_blocking=on_cuda)
            done += len(batch)
        if on_cuda:
            torch.cuda.synchronize()
            return features.numpy().copy()  # page-locked memory is scarce
        return features.numpy()

    def distances(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        check_pairs(left, right, self.card)
        found = np.empty(len(left), np.float64)

        def compare(start: int) -> None:
            rows = slice(start, start + DISTANCE_ROWS)
            x, y = (torch.from_numpy(np.require(side[rows], np.float64, ["C", "W"])) for side in (left, right))
            found[rows] = self._row_distances(x, y).numpy()

        starts = range(0, len(left), DISTANCE_ROWS)
        threads = torch.get_num_threads() if len(starts) > 1 else 1
        # An operation takes microseconds; distributing each over threads would take longer than all of it.
        with _DEVICE, one_thread():
            started = time.perf_counter()
            for _ in map(compare, starts) if threads == 1 else _comparing(threads).map(compare, starts):
                pass
            self.seconds += time.perf_counter() - started
        return found

    def _row_distances(self, x: Tensor, y: Tensor) -> Tensor:
        if self._diff_attention is not None:
            return self._diff_attention.decision_distances(x, y)
        x, y = (side / side.square().sum(1, keepdim=True).sqrt() for side in (x, y))
        return (x - y).square().sum(1).sqrt()

    def _halve_batch_size(self) -> None:
        """After running out of memory. Raises OutOfDeviceMemory if one picture did not fit."""
        if self.batch_size == 1:
            raise OutOfDeviceMemory(
                f"model {self.card.name}: not even one picture of {self.card.input.height}x{self.card.input.width} "
                "fits into the device's memory; free some, or set URBAN_REID_DEVICE=cpu"
            )
        self.batch_size = self.batch_size // 2


def _no_embedder(card: ModelCard) -> Embedder:
    def refuse(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise CoreError(f"model {card.name} cannot embed pictures: its features are ingested with the crops")

    return refuse


@cache
def _comparing(threads: int) -> ThreadPoolExecutor:
    """Threads that compare rows of pairs, each without torch's own."""
    return ThreadPoolExecutor(threads, "distances", lambda: torch.set_num_threads(1))


class TorchEmbedder:
    """A torch model's features of one batch, on the device and in the precision of `settings`.

    Compiled only if `settings.compile` is on: for a command that embeds a few pictures, compiling takes longer than it
    saves.
    """

    def __init__(self, model: ReIDModel, card: ModelCard, settings: Settings) -> None:
        """Raises CoreError if torch.compile is asked for and fails, for example without a C++ compiler."""
        self.device = choose_device(settings)
        self.batch_size = batch_size(settings, self.device)
        self.dtype = torch.bfloat16 if use_bfloat16(settings, self.device) else torch.float32
        self.card = card
        self.model = model.eval().to(self.device)
        if not isinstance(model.backbone, RegisteredBackbone):  # its layers may run in another order than declared
            fold_batch_norms(model.backbone)
        model.backbone.to(dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._post_bn: Callable[[Tensor], Tensor] = lambda images: self.model.features(images).post_bn
        if settings.compile == "on":
            # Freezing turns the weights into constants that are laid out for the processor.
            self._post_bn = torch.compile(self._post_bn, dynamic=False, options={"freezing": True})
            try:
                self(np.zeros((self.batch_size, card.input.height, card.input.width, 3), np.uint8))
            except Exception as error:
                if is_out_of_memory(error):
                    return  # the first batch runs out of memory again, and the batch size is halved
                reason = " ".join(str(error).split())[:300]
                raise CoreError(
                    f"model {card.name} cannot be compiled here ({reason}); a CPU needs a C++ compiler for it, and "
                    "URBAN_REID_COMPILE=auto goes without"
                ) from None

    @torch.no_grad()
    def __call__(self, pictures: NDArray[np.uint8]) -> Tensor:
        batch = torch.from_numpy(pictures)
        if self.device.type == "cuda":
            batch = batch.pin_memory()  # without it the copy to the device blocks
        images = normalized(batch.to(self.device, non_blocking=True), self.card.input)
        return self._post_bn(images.to(dtype=self.dtype, memory_format=torch.channels_last))


def fold_batch_norms(module: nn.Module) -> None:
    """Folds each BatchNorm2d of a network in eval mode into the convolution before it: less work and less rounding.

    Requires that a BatchNorm2d declared directly after a convolution is also computed directly after it, as in every
    network of `reid_core.backbones`.
    """
    for parent in list(module.modules()):
        for (before, conv), (name, norm) in pairwise(list(parent.named_children())):
            # No subclass of BatchNorm2d: timm's include the activation.
            if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
                setattr(parent, before, fuse_conv_bn_eval(conv, norm))
                setattr(parent, name, nn.Identity())
