"""Published weights for a backbone: from a safetensors file, or ImageNet weights downloaded by torchvision or timm.

Published `.pth` files are pickles. Only `convert_weights` reads them: it unpickles nothing but tensors and writes a
safetensors file with the backbone's names, which everything else reads.
"""

import hashlib
import math
import pickle  # for the name of its error: torch reads with weights_only # nosec B403
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

#: Prefixes of a classifier's tensors. Those that the backbone has too (OSNet's `fc.`, ConvNeXt's `head.norm.`) stay.
CLASSIFIERS = ("classifier.", "fc.", "_fc.", "head.", "heads.", "head_dist.")
#: Names of position embeddings: one row per token; the last h * w tokens are the patches, in row-major order.
POSITIONS = ("encoder.pos_embedding", "pos_embed")
#: Keys under which a training checkpoint keeps the weights.
UNDER = ("state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class Converted:
    """What `convert_weights` wrote.

    tensors: their names. dropped: names of the source's classifier tensors, left out. by_order: the source's names
    differed, and its tensors were matched by order and shape. sha256: the source's hash, hex.
    """

    tensors: tuple[str, ...]
    dropped: tuple[str, ...]
    by_order: bool
    sha256: str


def load_weights(
    backbone: nn.Module, architecture: str, pretrained: Path | Literal["imagenet"], size: tuple[int, int]
) -> None:
    """Loads published weights into `backbone`, from a safetensors file with public names or the ImageNet download.

    Classifiers are left out; position embeddings are interpolated to the backbone's grid. Raises ModelFileError for a
    file that does not fit, CoreError if there are no ImageNet weights or the download fails.
    """
    if pretrained == "imagenet":
        load_published(backbone, _imagenet(architecture, size), f"{architecture}'s ImageNet weights")
    else:
        load_published(backbone, read_tensors(pretrained), str(pretrained))


def load_published(backbone: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """As `load_weights`, from tensors by public name. `where`: prefix of error messages. Raises ModelFileError."""
    net = _public(backbone)
    own = net.state_dict()
    chosen = {name: tensor for name, tensor in tensors.items() if name in own or not name.startswith(CLASSIFIERS)}
    grid = _grid(net)
    for name in POSITIONS:
        if grid and name in own and name in chosen and own[name].shape != chosen[name].shape:
            chosen[name] = _resized_positions(chosen[name], own[name].shape[1], grid, where)
    try:
        missing, unexpected = net.load_state_dict(chosen, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelFileError(f"{where}: its tensors have other shapes than the backbone's: {reason}") from None
    missing = [name for name in missing if not _optional(name)]
    if missing or unexpected:
        raise ModelFileError(
            f"{where}: its tensors are not this backbone's: missing {missing[:3]} ({len(missing)} in all), unknown "
            f"{list(unexpected)[:3]} ({len(unexpected)} in all); check the architecture"
        )


def convert_weights(source: Path, architecture: str, target: Path) -> Converted:
    """Converts the backbone weights in `source`, a published .pth or .pt, to a new safetensors file `target`.

    Unpickles nothing but tensors. If the names in `source` are not the backbone's, its tensors are matched in order:
    each must end in the same word (weight, bias, running_mean, ...) and have the same shape as the backbone's. This
    covers older releases and other libraries' builds of the same network; check the result by what it computes. Raises
    ModelFileError for a file that cannot be read or does not fit, InputError if `target` exists or cannot be written,
    and UsageError and CoreError as `build_backbone` does.
    """
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: the new file's name must end in .safetensors")
    if target.exists():
        raise InputError(f"{target}: exists; remove it or choose another name")
    if not target.parent.is_dir():
        raise InputError(f"{target}: its folder does not exist; create it first")
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
    """The tensors of a .pth by name, without the prefix `module.` of data-parallel training, and the file's SHA-256."""
    try:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with warnings.catch_warnings():
                # The warning is about a newer protocol than torch.save's; such a file is read or refused below.
                warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
                found = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelFileError(f"{source}: cannot be read ({error.strerror})") from None
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, AttributeError, IndexError):
        # torch's own message advises unpickling everything, which nobody should do here.
        raise ModelFileError(
            f"{source}: not a file of tensors alone, and nothing else is unpickled; save the network's state_dict with "
            "torch.save, or as safetensors, in the program that made the file"
        ) from None
    for key in UNDER:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelFileError(f"{source}: holds no named tensors; save the network's state_dict")
    tensors = {str(name).removeprefix("module."): tensor for name, tensor in found.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}, digest


def _matched_in_order(published: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The published tensors under the backbone's names, matched in order; None if kinds or shapes differ."""
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
    # ImageNet weights have no non-local blocks, and some files omit BatchNorm's counters.
    return name.startswith("non_local.") or name.endswith("num_batches_tracked")


def _public(backbone: nn.Module) -> nn.Module:
    """The module whose parameters have the public names: the backbone, or the network it wraps."""
    net = getattr(backbone, "net", backbone)
    assert isinstance(net, nn.Module)
    return net


def _grid(net: nn.Module) -> tuple[int, int] | None:
    """Patches per column and per row of a transformer, torchvision's or timm's; None for any other network."""
    size = getattr(net, "grid", None) or getattr(getattr(net, "patch_embed", None), "grid_size", None)
    return (int(size[0]), int(size[1])) if isinstance(size, tuple) and len(size) == 2 else None


def _resized_positions(positions: Tensor, tokens: int, grid: tuple[int, int], where: str) -> Tensor:
    """Position embeddings (1, n, D) of a square grid, bicubically resized to `grid`: (1, tokens, D).

    Those of the tokens before the patches, such as the class token's, stay as they are.
    """
    before = tokens - grid[0] * grid[1]
    patches = positions.shape[1] - before if positions.ndim == 3 else 0
    side = math.isqrt(max(patches, 0))
    if before < 0 or side == 0 or side**2 != patches:
        raise ModelFileError(
            f"{where}: its position embeddings of shape {tuple(positions.shape)} are for neither this input's "
            f"{grid[0]}x{grid[1]} patches nor a square of patches, so they cannot be interpolated"
        )
    square = positions[:, before:].transpose(1, 2).reshape(1, -1, side, side)  # (1, D, side, side)
    resized = F.interpolate(square, grid, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    return torch.cat([positions[:, :before], resized], dim=1)


def _imagenet(architecture: str, size: tuple[int, int]) -> dict[str, Tensor]:
    """torchvision's first ImageNet weights (the paper's baselines start from them), hash-checked, or timm's default."""
    if architecture.startswith(TIMM):
        from reid_core.backbones.timm_nets import create

        where = "timm's hub"
        fetch = partial(create, architecture.removeprefix(TIMM), size, pretrained=True)
    elif architecture in (*RESNETS, *TORCHVISION) and architecture != "resnet10s":
        from torchvision.models import get_model_weights

        # Later versions were trained with recipes that the published baselines did not use.
        weights = get_model_weights(architecture)["IMAGENET1K_V1"]
        where = weights.url
        fetch = partial(weights.get_state_dict, progress=False, check_hash=True, weights_only=True, map_location="cpu")
    else:
        raise CoreError(f"{architecture} has no ImageNet weights to download; give a local safetensors file")
    try:
        with redirect_stdout(sys.stderr):  # torch prints there what it downloads
            found = fetch()
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = f"{type(error).__name__} {error}".splitlines()[0][:200]
        raise CoreError(
            f"{architecture}'s ImageNet weights cannot be downloaded from {where}: {reason}; give a local safetensors "
            f"file instead; `urban-reid models convert FILE.pth --architecture {architecture} --out FILE.safetensors` "
            "makes one"
        ) from error
    return dict(found.state_dict() if isinstance(found, nn.Module) else found)
