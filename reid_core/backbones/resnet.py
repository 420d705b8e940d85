"""torchvision's ResNets, ResNeXts and wide ResNets without their last stride, and AGW's non-local blocks.

The last stage keeps its resolution (paper, 'Baselines': last stride 1). Layers, their order and parameter names are
torchvision's, so its ImageNet weights load unchanged; a test compares the two implementations. They are written out
here because importing torchvision takes a process as long as importing torch (docs/decisions/resnets-written-out.md).
`resnet10s` has a stem and three stages of one block, for small pictures.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, (B, c, H, W) -> (B, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, before: int, width: int, stride: int, *, groups: int, group_width: int) -> None:
        super().__init__()
        assert (groups, group_width) == (1, 64), "only a bottleneck has groups"
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(before, width, stride)

    def forward(self, maps: Tensor) -> Tensor:
        found = torch.relu_(self.bn1(self.conv1(maps)))
        return torch.relu_(self.bn2(self.conv2(found)) + self.downsample(maps))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut, (B, c, H, W) -> (B, 4 * width, H / stride, W / stride).

    The 3x3 convolution has the stride, as in torchvision. ResNeXts split it into groups; wide ResNets have a larger
    `group_width`, the channels of one group in a block of `width` 64.
    """

    expansion = 4

    def __init__(self, before: int, width: int, stride: int, *, groups: int, group_width: int) -> None:
        super().__init__()
        inner = width * group_width // 64 * groups
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(before, width * self.expansion, stride)

    def forward(self, maps: Tensor) -> Tensor:
        found = torch.relu_(self.bn1(self.conv1(maps)))
        found = torch.relu_(self.bn2(self.conv2(found)))
        return torch.relu_(self.bn3(self.conv3(found)) + self.downsample(maps))


def _shortcut(before: int, after: int, stride: int) -> nn.Sequential:
    """The identity if the block keeps the shape, otherwise a strided 1x1 convolution with BatchNorm."""
    if before == after and stride == 1:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


@dataclass(frozen=True)
class Shape:
    """A ResNet's block, the number of blocks in each stage, and the groups of their 3x3 convolutions."""

    block: type[BasicBlock] | type[Bottleneck]
    stages: tuple[int, ...]
    groups: int = 1
    group_width: int = 64


RESNETS = {
    "resnet50": Shape(Bottleneck, (3, 4, 6, 3)),
    "resnet34": Shape(BasicBlock, (3, 4, 6, 3)),
    "resnet18": Shape(BasicBlock, (2, 2, 2, 2)),
    "resnet10s": Shape(BasicBlock, (1, 1, 1)),
    "resnet101": Shape(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Shape(Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": Shape(Bottleneck, (3, 4, 6, 3), groups=32, group_width=4),
    "resnext101_32x8d": Shape(Bottleneck, (3, 4, 23, 3), groups=32, group_width=8),
    "resnext101_64x4d": Shape(Bottleneck, (3, 4, 23, 3), groups=64, group_width=4),
    "wide_resnet50_2": Shape(Bottleneck, (3, 4, 6, 3), group_width=128),
    "wide_resnet101_2": Shape(Bottleneck, (3, 4, 23, 3), group_width=128),
}

#: How many of a stage's last blocks are followed by one of AGW's non-local blocks (paper: layer2 blocks 2, 3 of 4 and
#: layer3 blocks 3, 4, 5 of 6). A stage with fewer blocks has one after each of its blocks.
NON_LOCAL_BLOCKS = {"layer2": 2, "layer3": 3}


class NonLocal(nn.Module):
    """AGW's non-local block: x + BN(W (theta(x) phi(x)^T g(x)) / N) over the N positions of the map.

    The output BN's weight starts at zero, so the block starts as the identity. The published code has 1 inner channel.
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
        # The product is associative: (theta^T phi) g^T = theta^T (phi g^T), which avoids the N x N matrix.
        mixed = (g @ phi.transpose(1, 2) / phi.shape[2]) @ theta  # (B, c, N)
        attended: Tensor = self.bn(self.out(mixed.unflatten(2, maps.shape[2:])))
        return maps + attended


class ResNet(nn.Module):
    """A ResNet's feature map, (B, 3, H, W) -> (B, D, H/16, W/16); resnet10s: H/8, W/8."""

    pooled = False

    def __init__(self, architecture: str, *, non_local_channels: int | None = None, last_stride: int = 1) -> None:
        """`non_local_channels`: inner channels of AGW's non-local blocks; None builds none.

        `last_stride`: 2 as published, which halves the map once more; 1 as the paper has it.
        """
        super().__init__()
        shape = RESNETS[architecture]
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages: list[str] = []
        channels = 64
        non_local = {}
        for number, count in enumerate(shape.stages):
            name, width = f"layer{number + 1}", 64 * 2**number
            # The first stage follows a max pooling; the last one keeps its resolution unless told otherwise.
            stride = 1 if number == 0 else last_stride if number == len(shape.stages) - 1 else 2
            blocks = []
            for index in range(count):
                step = 1 if index else stride
                blocks.append(shape.block(channels, width, step, groups=shape.groups, group_width=shape.group_width))
                channels = width * shape.block.expansion
                if non_local_channels is not None and index >= count - NON_LOCAL_BLOCKS.get(name, 0):
                    non_local[f"{name}_{index}"] = NonLocal(channels, non_local_channels)
            self.add_module(name, nn.Sequential(*blocks))
            self.stages.append(name)
        self.dims = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.non_local = nn.ModuleDict(non_local)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.maxpool(torch.relu_(self.bn1(self.conv1(images))))
        for name in self.stages:
            for index, block in enumerate(getattr(self, name)):
                maps = block(maps)
                key = f"{name}_{index}"
                if key in self.non_local:
                    maps = self.non_local[key](maps)
        return maps
