"""The Re-ID core in this process: one device, one lock, fixed batch shapes.

Notable: every batch is padded to `batch_size`, because the same picture in a batch of another size differs in its last
bits; BatchNorm is folded into the convolutions before they are rounded to bfloat16; distances are float64 on the CPU.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from reid_core.backbones import RegisteredBackbone
from reid_core.diff_attention import DiffAttention
from reid_core.files import load_diff_attention, load_model, read_card
from reid_core.models import ReIDModel
from reid_core.preprocessing import normalized
from reid_core.serving import foreign
from reid_core.serving.checks import check_pairs, check_pictures, check_vectors
from reid_core.serving.devices import choose_device, use_bfloat16
from schemas.cards import ModelCard
from schemas.errors import CoreError, OutOfDeviceMemory
from schemas.settings import Settings

#: One batch of prepared pictures, uint8 (B, H, W, 3), to features, float32 (B, D).
Embedder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

#: Row pairs in one padded block of distances.
DISTANCE_ROWS = 64

#: Held while anything computes: the cores of one process share its device.
_DEVICE = threading.Lock()


class LocalCore:
    """A `ReIDCore` in this process; see there for `embed` and `distances`.

    When a batch does not fit into the device's memory, the batch size is halved for the rest of this object's life. Its
    features then come from another shape and may differ in their last bits (about 1e-6, or 1e-2 in bfloat16) from those
    before; features already stored stay as they are.
    """

    def __init__(
        self, card: ModelCard, embedder: Embedder, diff_attention: DiffAttention | None, *, batch_size: int
    ) -> None:
        self.card = card
        self.seconds = 0.0
        self.batch_size = batch_size
        self._embedder = embedder
        self._diff_attention = None if diff_attention is None else diff_attention.cpu().double().eval()

    @classmethod
    def open(cls, settings: Settings, directory: Path) -> "LocalCore":
        """The core of a model directory on the device of `settings`. Raises ModelFileError and CoreError."""
        if settings.threads:
            torch.set_num_threads(settings.threads)
        card = read_card(directory)
        if card.engine == "none":
            return cls(card, _no_embedder(card), load_diff_attention(directory, card), batch_size=settings.batch_size)
        if card.engine != "torch":
            file = foreign.model_file(directory, card)
            embedder = foreign.ForeignEmbedder(file, card.input, settings)
            return cls(card, embedder, load_diff_attention(directory, card), batch_size=embedder.batch_size)
        model = load_model(directory)
        return cls(card, TorchEmbedder(model, card, settings), model.diff_attention, batch_size=settings.batch_size)

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        check_pictures(pictures, self.card)
        features = np.empty((len(pictures), self.card.dims), np.float32)
        with _DEVICE:
            started = time.perf_counter()
            done = 0
            while done < len(pictures):
                batch = pictures[done : done + self.batch_size]
                padded = np.zeros((self.batch_size, *pictures.shape[1:]), np.uint8)
                padded[: len(batch)] = batch
                try:
                    features[done : done + len(batch)] = self._embedder(padded)[: len(batch)]
                except (RuntimeError, MemoryError) as error:
                    self._halve_after(error)
                    continue
                done += len(batch)
            self.seconds += time.perf_counter() - started
        check_vectors(features, self.card.dims, f"model {self.card.name}")
        return features

    def distances(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        check_pairs(left, right, self.card)
        found = np.empty(len(left), np.float64)
        # A block has always the same shape, as a batch of pictures has; ones, not zeros, have a direction.
        block = torch.ones(2, DISTANCE_ROWS, self.card.dims, dtype=torch.float64)
        with _DEVICE, _one_thread(), torch.inference_mode():
            started = time.perf_counter()
            for start in range(0, len(left), DISTANCE_ROWS):
                rows = slice(start, min(start + DISTANCE_ROWS, len(left)))
                count = rows.stop - rows.start
                block[0, :count] = torch.from_numpy(np.array(left[rows], np.float64))
                block[1, :count] = torch.from_numpy(np.array(right[rows], np.float64))
                found[rows] = self._block_distances(block[0], block[1])[:count].numpy()
            self.seconds += time.perf_counter() - started
        return found

    def _block_distances(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self._diff_attention is not None:
            return self._diff_attention.pair_distances(x, y)
        x, y = (side / side.square().sum(1, keepdim=True).sqrt() for side in (x, y))
        return (x - y).square().sum(1).sqrt()

    def _halve_after(self, error: Exception) -> None:
        """Half the batch size after running out of memory; raises for anything else, and at one picture."""
        if not _is_out_of_memory(error):
            raise CoreError(f"model {self.card.name} failed on a batch of {self.batch_size}: {error}") from error
        if self.batch_size == 1:
            raise OutOfDeviceMemory(
                f"model {self.card.name}: not even one picture of {self.card.input.height}x{self.card.input.width} "
                "fits into the device's memory; free some, or set URBAN_REID_DEVICE=cpu"
            ) from None
        self.batch_size = self.batch_size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _no_embedder(card: ModelCard) -> Embedder:
    def refuse(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise CoreError(f"model {card.name} cannot look at pictures: its features come with the crops")

    return refuse


@contextmanager
def _one_thread() -> Iterator[None]:
    """A block of distances is half a millisecond of work: sharing it out between threads costs tens of that."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class TorchEmbedder:
    """A torch model's features of one batch, on the device and in the precision of `settings`.

    Compiled only where `settings.compile` is on: a command that embeds a few pictures would wait longer for the
    compiler than it saves.
    """

    def __init__(self, model: ReIDModel, card: ModelCard, settings: Settings) -> None:
        """Raises CoreError where torch.compile is asked for and fails, such as without a C++ compiler."""
        self.device = choose_device(settings)
        self.dtype = torch.bfloat16 if use_bfloat16(settings, self.device) else torch.float32
        self.card = card
        self.model = model.eval().to(self.device)
        if not isinstance(model.backbone, RegisteredBackbone):  # its layers may run in another order than declared
            fold_batch_norms(model.backbone)
        model.backbone.to(dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._post_bn: Callable[[torch.Tensor], torch.Tensor] = lambda images: self.model.features(images).post_bn
        if settings.compile == "on":
            # Freezing takes the weights for constants and lays them out for the processor.
            self._post_bn = torch.compile(self._post_bn, dynamic=False, options={"freezing": True})
            try:
                self(np.zeros((settings.batch_size, card.input.height, card.input.width, 3), np.uint8))
            except Exception as error:
                if _is_out_of_memory(error):
                    return  # the first batch meets it again, and halves
                reason = " ".join(str(error).split())[:300]
                raise CoreError(
                    f"model {card.name} cannot be compiled here ({reason}); a processor needs a C++ compiler for it, "
                    "and URBAN_REID_COMPILE=auto goes without"
                ) from None

    @torch.no_grad()
    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = normalized(torch.from_numpy(pictures).to(self.device), self.card.input)
        images = images.to(dtype=self.dtype, memory_format=torch.channels_last)
        features: NDArray[np.float32] = self._post_bn(images).cpu().numpy()
        return features


def fold_batch_norms(module: nn.Module) -> None:
    """Fold each BatchNorm2d of an eval-mode network into the convolution before it: less work, less rounding.

    Holds where a BatchNorm2d is declared directly behind the convolution that feeds it, as torchvision's and ours are.
    """
    for parent in list(module.modules()):
        for (before, conv), (name, norm) in pairwise(list(parent.named_children())):
            # Not a subclass of BatchNorm2d: timm's also activates.
            if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
                setattr(parent, before, fuse_conv_bn_eval(conv, norm))
                setattr(parent, name, nn.Identity())


def _is_out_of_memory(error: Exception) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
