"""Published weights for a backbone: from a safetensors file, or torchvision's and timm's own of ImageNet.

Published `.pth` files are pickles. They are read once, by `convert_weights`, which takes nothing but tensors out of
them and writes a safetensors file under the backbone's names; everything else reads that file.
"""

import hashlib
import math
import pickle
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from reid_core.backbones import TIMM, TORCHVISION, build_backbone
from reid_core.backbones.resnet import RESNETS
from reid_core.tensors import read_tensors
from schemas.disk import write_whole
from schemas.errors import CoreError, InputError, ModelFileError

#: Beginnings of a classifier's names; OSNet's `fc.` and ConvNeXt's `head.norm.` are the backbone's and stay.
CLASSIFIERS = ("classifier.", "fc.", "_fc.", "head.", "heads.", "head_dist.")
#: Learned positions: one row a token, of which the last h * w are the patches, row by row.
POSITIONS = ("encoder.pos_embedding", "pos_embed")
#: Where a training program's file keeps the weights among other things.
UNDER = ("state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class Converted:
    """What `convert_weights` wrote: names of tensors, the source's classifier, and the source's SHA-256 in hex.

    `by_order`: the source's names were others, and its tensors were told apart by their order and shapes.
    """

    tensors: tuple[str, ...]
    dropped: tuple[str, ...]
    by_order: bool
    sha256: str


def load_weights(
    backbone: nn.Module, architecture: str, pretrained: Path | Literal["imagenet"], size: tuple[int, int]
) -> None:
    """Put published weights into `backbone`: a safetensors file in their public names, or ImageNet's by download.

    Classifiers are left out, and position embeddings are interpolated to the backbone's grid. Raises ModelFileError for
    a file that does not fit, CoreError where there is nothing to download or no network.
    """
    if pretrained == "imagenet":
        load_published(backbone, _imagenet(architecture, size), f"{architecture}'s ImageNet weights")
    else:
        load_published(backbone, read_tensors(pretrained), str(pretrained))


def load_published(backbone: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """As `load_weights`, of tensors by their public names; `where` opens the message. Raises ModelFileError."""
    net = _public(backbone)
    own = net.state_dict()
    chosen = {name: tensor for name, tensor in tensors.items() if name in own or not name.startswith(CLASSIFIERS)}
    for name in POSITIONS:
        if name in own and name in chosen and own[name].shape != chosen[name].shape:
            chosen[name] = _resized_positions(chosen[name], own[name].shape[1], _grid(net), where)
    try:
        missing, unexpected = net.load_state_dict(chosen, strict=False)
    except RuntimeError as error:
        raise ModelFileError(f"{where}: its weights have other shapes: {str(error).splitlines()[-1].strip()}") from None
    missing = [name for name in missing if not _optional(name)]
    if missing or unexpected:
        raise ModelFileError(
            f"{where}: not this backbone in its public names; "
            f"missing {missing[:3]}, unknown {list(unexpected)[:3]} ({len(missing)} and {len(unexpected)})"
        )


def convert_weights(source: Path, architecture: str, target: Path) -> Converted:
    """Write the backbone's weights in `source`, a published .pth or .pt, to `target`, a new safetensors file.

    Nothing but tensors is unpickled. A file whose names are other than the backbone's is taken where its tensors, one
    after the other, end in the same word (weight, bias, running_mean, ...) and have the same shape as the backbone's,
    as of an older release or another library that builds the same network; check such a file by what it computes.
    Raises ModelFileError for a file that is none or does not fit, InputError where `target` exists, and UsageError
    and CoreError as `build_backbone` does.
    """
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: name it .safetensors, which is what it becomes")
    if target.exists():
        raise InputError(f"{target}: exists; remove it or choose another name")
    if not target.parent.is_dir():
        raise InputError(f"{target}: its folder does not exist; make it first")
    backbone = build_backbone(architecture)
    published, digest = _read_published(source)
    own = _public(backbone).state_dict()
    matched = _matched_in_order(published, own)
    by_order = matched is not None and any(name not in published for name in matched)
    known = matched if matched is not None and by_order else published
    load_published(backbone, known, str(source))
    kept = {name: tensor for name, tensor in known.items() if name in own}
    data = save(
        {name: tensor.contiguous().clone() for name, tensor in kept.items()},
        {"architecture": architecture, "source": source.name, "source_sha256": digest},
    )
    write_whole(target, data)
    dropped = tuple(name for name in published if name not in own and name.startswith(CLASSIFIERS))
    return Converted(tuple(kept), dropped, by_order, digest)


def _read_published(source: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a .pth by name, without `module.` of data-parallel training, and the file's SHA-256."""
    try:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with warnings.catch_warnings():
                # A newer protocol than torch.save's; it is read or refused all the same.
                warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
                found = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelFileError(f"{source}: cannot be read ({error.strerror})") from None
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, AttributeError, IndexError):
        # torch's own words end in the advice to unpickle everything, which nobody should follow here.
        raise ModelFileError(
            f"{source}: no file of weights alone, and nothing else is unpickled; "
            "save its state_dict with torch.save, or as safetensors, where it was made"
        ) from None
    for key in UNDER:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelFileError(f"{source}: holds no tensors by name; save the network's state_dict")
    tensors = {str(name).removeprefix("module."): tensor for name, tensor in found.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}, digest


def _matched_in_order(published: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The backbone's names for the published tensors, or None where they are not the same, one after the other."""
    theirs = [name for name in published if not name.startswith(CLASSIFIERS) and not _optional(name)]
    ours = [name for name in own if not _optional(name)]
    described = [
        [(name.rpartition(".")[2], of[name].shape) for name in names]
        for names, of in ((theirs, published), (ours, own))
    ]
    if described[0] != described[1]:
        return None
    return {mine: published[name] for mine, name in zip(ours, theirs, strict=True)}


def _optional(name: str) -> bool:
    # Non-local blocks are no part of ImageNet weights, and some files leave BatchNorm's counters out.
    return name.startswith("non_local.") or name.endswith("num_batches_tracked")


def _public(backbone: nn.Module) -> nn.Module:
    """The module whose parameters have the public names: the backbone, or what it wraps."""
    net = getattr(backbone, "net", backbone)
    assert isinstance(net, nn.Module)
    return net


def _grid(net: nn.Module) -> tuple[int, int]:
    """Patches a column and a row of a transformer, torchvision's or timm's."""
    rows, columns = net.grid if hasattr(net, "grid") else net.patch_embed.grid_size  # type: ignore[union-attr, misc]
    return int(rows), int(columns)


def _resized_positions(positions: Tensor, tokens: int, grid: tuple[int, int], where: str) -> Tensor:
    """Learned positions (1, n, D) of a square grid, bicubically at `grid`: (1, tokens, D). Other tokens keep theirs."""
    before = tokens - grid[0] * grid[1]
    patches = positions.shape[1] - before if positions.ndim == 3 else 0
    side = math.isqrt(max(patches, 0))
    if before < 0 or side == 0 or side**2 != patches:
        raise ModelFileError(
            f"{where}: its position embeddings of shape {tuple(positions.shape)} are neither of this input's "
            f"{grid[0]}x{grid[1]} patches nor of a square, so they cannot be interpolated"
        )
    square = positions[:, before:].transpose(1, 2).reshape(1, -1, side, side)  # (1, D, side, side)
    resized = F.interpolate(square, grid, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    return torch.cat([positions[:, :before], resized], dim=1)


def _imagenet(architecture: str, size: tuple[int, int]) -> dict[str, Tensor]:
    """torchvision's first ImageNet weights (of the paper's baselines), checked by their hash, or timm's own."""
    if architecture.startswith(TIMM):
        from reid_core.backbones.timm_nets import create

        where = "timm's hub"
        fetch = partial(create, architecture.removeprefix(TIMM), size, pretrained=True)
    elif architecture in (*RESNETS, *TORCHVISION) and architecture != "resnet10s":
        from torchvision.models import get_model_weights

        # The later ones come from recipes that the published baselines did not have.
        weights = get_model_weights(architecture)["IMAGENET1K_V1"]
        where = weights.url
        fetch = partial(weights.get_state_dict, progress=False, check_hash=True, weights_only=True, map_location="cpu")
    else:
        raise CoreError(f"{architecture} has no ImageNet weights to download; give a local safetensors file")
    try:
        with redirect_stdout(sys.stderr):  # torch says there what it downloads
            found = fetch()
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = f"{type(error).__name__} {error}".splitlines()[0][:200]
        raise CoreError(
            f"{architecture}'s ImageNet weights cannot be had from {where}: {reason}; "
            "give a local safetensors file of them instead, which "
            f"`urban-reid models convert FILE.pth --architecture {architecture} --out FILE.safetensors` makes"
        ) from error
    return dict(found.state_dict() if isinstance(found, nn.Module) else found)
