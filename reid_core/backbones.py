"""Feature maps of a person's picture: torchvision's ResNets without their last stride, and AGW's non-local blocks.

Notable: the last stage keeps its resolution (paper, 'Baselines': last stride 1); the parameters carry torchvision's
names, so ImageNet weights load as they are; `resnet10s` is a stem and three stages of one block, for small pictures.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


@dataclass(frozen=True)
class Architecture:
    """A ResNet's shape: its block and how many of them each stage has."""

    block: Any
    stages: tuple[int, ...]

    @property
    def dims(self) -> int:
        """D, channels of the last feature map."""
        return int(64 * 2 ** (len(self.stages) - 1) * self.block.expansion)


ARCHITECTURES = {
    "resnet50": Architecture(Bottleneck, (3, 4, 6, 3)),
    "resnet34": Architecture(BasicBlock, (3, 4, 6, 3)),
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2)),
    "resnet10s": Architecture(BasicBlock, (1, 1, 1)),
}

#: AGW places a non-local block after so many of the last blocks of a stage (paper: layer2 blocks 2, 3 of 4 and
#: layer3 blocks 3, 4, 5 of 6); a stage with fewer blocks has one after each.
NON_LOCAL_BLOCKS = {"layer2": 2, "layer3": 3}


class NonLocal(nn.Module):
    """AGW's non-local block: x + BN(W (theta(x) phi(x)^T g(x)) / N) over the N positions of the map.

    The output BN starts at zero, so the block starts as the identity. The published code has one inner channel.
    """

    def __init__(self, channels: int, inner_channels: int = 1) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, inner_channels, 1)
        self.phi = nn.Conv2d(channels, inner_channels, 1)
        self.g = nn.Conv2d(channels, inner_channels, 1)
        self.out = nn.Conv2d(inner_channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)
        nn.init.zeros_(self.bn.bias)

    def forward(self, maps: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        theta = self.theta(maps).flatten(2)  # (B, c, N)
        phi = self.phi(maps).flatten(2)
        g = self.g(maps).flatten(2)
        # The dot-product form is linear: (theta^T phi) g^T = theta^T (phi g^T), which needs no N x N matrix.
        mixed = (g @ phi.transpose(1, 2) / phi.shape[2]) @ theta  # (B, c, N)
        attended: Tensor = self.bn(self.out(mixed.unflatten(2, maps.shape[2:])))
        return maps + attended


class Backbone(nn.Module):
    """A ResNet's feature map, (B, 3, H, W) -> (B, D, H/16, W/16); resnet10s: H/8, W/8."""

    def __init__(self, architecture: str, *, non_local_channels: int | None = None) -> None:
        """`non_local_channels`: inner channels of AGW's non-local blocks; None builds none."""
        super().__init__()
        shape = ARCHITECTURES[architecture]
        # torchvision always builds four stages; those that the architecture lacks are left behind.
        resnet = ResNet(shape.block, [*shape.stages, 1][:4])
        self.dims = shape.dims
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.stages = [f"layer{number}" for number in range(1, len(shape.stages) + 1)]
        for name in self.stages:
            self.add_module(name, getattr(resnet, name))
        _keep_resolution(getattr(self, self.stages[-1])[0])
        self.non_local = nn.ModuleDict()
        if non_local_channels is not None:
            for name, last in NON_LOCAL_BLOCKS.items():
                blocks = getattr(self, name)
                channels = 64 * 2 ** (int(name[-1]) - 1) * shape.block.expansion
                for index in range(max(0, len(blocks) - last), len(blocks)):
                    self.non_local[f"{name}_{index}"] = NonLocal(channels, non_local_channels)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for name in self.stages:
            for index, block in enumerate(getattr(self, name)):
                maps = block(maps)
                key = f"{name}_{index}"
                if key in self.non_local:
                    maps = self.non_local[key](maps)
        assert isinstance(maps, torch.Tensor)
        return maps


def _keep_resolution(first_block: nn.Module) -> None:
    """Set the stride of a stage, which its first block holds, to 1."""
    assert isinstance(first_block, BasicBlock | Bottleneck)
    strided = first_block.conv2 if isinstance(first_block, Bottleneck) else first_block.conv1
    strided.stride = (1, 1)
    if first_block.downsample is not None:
        first_block.downsample[0].stride = (1, 1)
