"""Backbones by name: networks that turn pictures of people into feature maps, built in or registered by the user.

| names                                    | output                   | last stride 1 | AGW                      |
|------------------------------------------|--------------------------|---------------|--------------------------|
| resnet*, resnext*, wide_resnet*          | map                      | yes           | with non-local blocks    |
| mobilenet_*, efficientnet_*              | map                      | yes           | without non-local blocks |
| osnet_*, osnet_ain_* (Zhou et al.)       | vector, from its fc      | has none      | refused                  |
| vit_*                                    | vector, its class token  | has none      | refused                  |
| timm:NAME                                | map, or vector           | no            | as for the others        |
| a name given to `register_backbone`      | map, or vector           | its own       | as for the others        |

A backbone maps normalized pictures (B, 3, H, W) to a feature map (B, D, h, w), or, if it pools itself, to (B, D, 1, 1).
Its parameters have the names of the network's public weights, so that those load unchanged (`weights`). Modules that
need torchvision or timm are imported on use: torchvision alone takes as long to import as torch.
"""

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from reid_core.backbones.osnet import OSNETS, OSNet
from reid_core.backbones.resnet import RESNETS, ResNet
from schemas.errors import CoreError, UsageError

#: torchvision's networks, under its own names.
TORCHVISION = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    *(f"efficientnet_b{number}" for number in range(8)),
    "efficientnet_v2_s",
    "efficientnet_v2_m",
    "efficientnet_v2_l",
    "vit_b_16",
    "vit_b_32",
    "vit_l_16",
)
#: The built-in architectures, besides timm's.
ARCHITECTURES = (*RESNETS, *OSNETS, *TORCHVISION)
#: Prefix of the name of one of timm's networks.
TIMM = "timm:"
#: Group of the entry points through which an installed package offers backbones.
ENTRY_POINTS = "urban_reid.backbones"

#: Builds a backbone with fresh weights for pictures of (height, width).
Builder = Callable[[tuple[int, int]], nn.Module]
AnyBuilder = TypeVar("AnyBuilder", bound=Builder)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_registered: dict[str, Builder] = {}


class Backbone(Protocol):
    """What `build_backbone` returns: an nn.Module with these attributes.

    `dims`: D, the channels of its output. `pooled`: whether it pools itself, so that its output is (B, D, 1, 1).
    """

    dims: int
    pooled: bool

    def __call__(self, images: Tensor) -> Tensor: ...


def register_backbone(name: str) -> Callable[[AnyBuilder], AnyBuilder]:
    """Decorator that makes a class or function known as the architecture `name`, as in ModelConfig(architecture=name).

        @register_backbone("mynet")
        class MyNet(nn.Module):
            dims = 64

            def __init__(self, size: tuple[int, int]) -> None: ...

            def forward(self, images: Tensor) -> Tensor: ...

    It is called with (height, width) of the pictures and returns an nn.Module with fresh weights. The module takes
    normalized pictures (B, 3, H, W) and returns a floating-point feature map (B, dims, H', W'), in eval mode each row
    from its own picture alone. Its attribute `dims` states the channels; `pooled = True` states that it pools itself,
    to (B, dims, 1, 1).

    For commands, and for every process of `urban-reid up`, an installed package names the same class or function, or a
    module that registers it, as an entry point, which is loaded when the name is asked for. In pyproject.toml:

        [project.entry-points."urban_reid.backbones"]
        mynet = "mypackage.mynet:MyNet"

    Registering a name again replaces its backbone. Raises UsageError for a built-in name and for no valid name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} is not a valid name for a backbone: use 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a "
            "letter or digit"
        )
    if name in ARCHITECTURES:
        raise UsageError(f"backbone {name!r} is built in; choose another name for yours")

    def register(builder: AnyBuilder) -> AnyBuilder:
        _registered[name] = builder
        return builder

    return register


def build_backbone(
    architecture: str,
    *,
    non_local_channels: int | None = None,
    size: tuple[int, int] = (256, 128),
    last_stride: int = 1,
) -> nn.Module:
    """A backbone with fresh weights; see `Backbone`.

    `non_local_channels`: inner channels of AGW's non-local blocks; None builds none, and only ResNets have them.
    `size`: height and width of the pictures; only networks with position embeddings depend on it. `last_stride`: 2 as
    published, for networks whose last stride can be removed (the module's table says which). Raises UsageError for
    an unknown name and for a size that the network cannot take, CoreError if timm is needed and not installed, or if a
    registered backbone does not keep the contract of `register_backbone`.
    """
    if architecture in RESNETS:
        return ResNet(architecture, non_local_channels=non_local_channels, last_stride=last_stride)
    if architecture in OSNETS:
        return OSNet(architecture)
    if architecture in TORCHVISION:
        from reid_core.backbones.torchvision_nets import torchvision_backbone

        return torchvision_backbone(architecture, size, last_stride)
    if architecture.startswith(TIMM):
        from reid_core.backbones.timm_nets import TimmNet

        return TimmNet(architecture.removeprefix(TIMM), size)
    return RegisteredBackbone(architecture, size)


class RegisteredBackbone(nn.Module):
    """A user's backbone, (B, 3, H, W) -> (B, dims, H', W'). Its network is `net`."""

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        """Builds it and tries it on one picture. Raises UsageError for an unknown name, CoreError if it fails."""
        super().__init__()
        builder = _registered.get(name) or _from_entry_point(name)
        try:
            net = builder(size)
            if not isinstance(net, nn.Module) or not isinstance(getattr(net, "dims", None), int):
                raise TypeError(f"building it gives {net!r:.60}, which is not an nn.Module with an integer `dims`")
            self.net = net
            self.dims: int = net.dims  # type: ignore[assignment]
            self.pooled = bool(getattr(net, "pooled", False))
            self._check_output(size)
        except Exception as error:  # whatever the user's code raises
            reason = " ".join(str(error).split())[:300]
            raise CoreError(
                f"backbone {name!r} does not work on pictures of {size[0]}x{size[1]}: {type(error).__name__}: {reason}"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.net(images)
        return maps

    @torch.no_grad()
    def _check_output(self, size: tuple[int, int]) -> None:
        """Raises TypeError unless one picture gives a floating-point map of (1, dims, h, w)."""
        device = next((parameter.device for parameter in self.net.parameters()), torch.device("cpu"))
        if device.type == "meta":
            return  # without weights, an operator of the user's may have no output
        training = self.net.training
        found = self.net.eval()(torch.zeros(1, 3, *size, device=device))
        self.net.train(training)
        expected = (1, self.dims, 1, 1) if self.pooled else (1, self.dims)
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.ndim != 4:
            raise TypeError(f"one picture gives {_described(found)}, not a floating-point map (1, dims, h, w)")
        if found.shape[: len(expected)] != expected:
            raise TypeError(f"one picture gives {_described(found)}, but dims={self.dims} and pooled={self.pooled}")


def _described(found: object) -> str:
    return f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"


def _from_entry_point(name: str) -> Builder:
    """The builder that an installed package offers under `name`. Raises UsageError, and CoreError if it cannot load."""
    found = list(entry_points(group=ENTRY_POINTS, name=name))
    if not found:
        raise UsageError(
            f"no architecture {name[:60]!r}; there are {', '.join((*ARCHITECTURES, *sorted(_registered)))}, and "
            f"{TIMM}NAME; for your own, decorate it with reid_core.backbones.register_backbone({name[:60]!r}) and name "
            f"it as an entry point of the group {ENTRY_POINTS}"
        )
    values = sorted({point.value for point in found})
    if len(values) > 1:
        raise CoreError(f"several entry points of {ENTRY_POINTS} are named {name!r}: {', '.join(values)}")
    try:
        builder: object = found[0].load()
    except Exception as error:  # whatever importing the user's code raises
        raise CoreError(
            f"backbone {name!r} cannot be imported from {found[0].value}: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    if name in _registered:  # by importing it
        return _registered[name]
    if not callable(builder):
        raise CoreError(f"backbone {name!r}: {found[0].value} is neither callable nor registers {name!r} when imported")
    return register_backbone(name)(builder)
