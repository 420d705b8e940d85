"""Feature maps of a person's picture, by name: the one registry of backbones.

A backbone is a module that takes normalised pictures (B, 3, H, W) to feature maps (B, D, h, w) and knows its `dims`, D.
Parameters have the names of the network's public weights, so that these load as they are. What is not written out here
is imported when it is asked for: torchvision costs a process as much again as torch.
"""

from typing import Protocol

from torch import Tensor, nn

from reid_core.backbones.resnet import RESNETS, ResNet
from schemas.errors import CoreError

#: torchvision's, by its own names.
TORCHVISION = ("mobilenet_v2",)
ARCHITECTURES = (*RESNETS, *TORCHVISION)


class Backbone(Protocol):
    dims: int

    def __call__(self, images: Tensor) -> Tensor: ...


def build_backbone(architecture: str, *, non_local_channels: int | None = None) -> nn.Module:
    """A backbone with fresh weights; see `Backbone`.

    `non_local_channels`: inner channels of AGW's non-local blocks; None builds none. Only ResNets have them. Raises
    CoreError for an unknown name.
    """
    if architecture in RESNETS:
        return ResNet(architecture, non_local_channels=non_local_channels)
    if architecture not in ARCHITECTURES:
        raise CoreError(f"no architecture {architecture[:60]!r}; there are {', '.join(ARCHITECTURES)}")
    from reid_core.backbones.torchvision_nets import torchvision_backbone

    return torchvision_backbone(architecture)
