"""Feature maps of a person's picture, by name: the one registry of backbones.

| names                                     | gives             | last stride 1 | AGW                      |
|-------------------------------------------|-------------------|---------------|--------------------------|
| resnet*, resnext*, wide_resnet*           | maps              | yes           | with non-local blocks    |
| mobilenet_*, efficientnet_*               | maps              | yes           | without non-local blocks |
| osnet_*, osnet_ain_* (Zhou et al.)        | its fc's vector   | has none      | refused                  |
| vit_*                                     | its class token   | has none      | refused                  |
| timm:NAME, maps where the network has any | maps or a vector  | no            | as for the others        |

A backbone is a module that takes normalized pictures (B, 3, H, W) to feature maps (B, D, h, w) and knows its `dims`, D;
one that pools by itself is `pooled` and gives (B, D, 1, 1). Parameters have the names of the network's public weights,
so that these load as they are (`weights`). What is not written out here is imported when it is asked for: torchvision
costs a process as much again as torch.
"""

from typing import Protocol

from torch import Tensor, nn

from reid_core.backbones.osnet import OSNETS, OSNet
from reid_core.backbones.resnet import RESNETS, ResNet
from schemas.errors import UsageError

#: torchvision's, by its own names.
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
ARCHITECTURES = (*RESNETS, *OSNETS, *TORCHVISION)
#: Before the name of one of timm's networks.
TIMM = "timm:"


class Backbone(Protocol):
    dims: int
    pooled: bool

    def __call__(self, images: Tensor) -> Tensor: ...


def build_backbone(
    architecture: str, *, non_local_channels: int | None = None, size: tuple[int, int] = (256, 128)
) -> nn.Module:
    """A backbone with fresh weights; see `Backbone`.

    `non_local_channels`: inner channels of AGW's non-local blocks; None builds none, and only ResNets have them.
    `size`: height and width of the pictures; only networks with position embeddings are bound to it. Raises UsageError
    for an unknown name and for a size that a network cannot take, and CoreError for timm's without the extra 'timm'.
    """
    if architecture in RESNETS:
        return ResNet(architecture, non_local_channels=non_local_channels)
    if architecture in OSNETS:
        return OSNet(architecture)
    if architecture.startswith(TIMM):
        from reid_core.backbones.timm_nets import TimmNet

        return TimmNet(architecture.removeprefix(TIMM), size)
    if architecture not in ARCHITECTURES:
        raise UsageError(f"no architecture {architecture[:60]!r}; there are {', '.join(ARCHITECTURES)}, and {TIMM}NAME")
    from reid_core.backbones.torchvision_nets import torchvision_backbone

    return torchvision_backbone(architecture, size)
