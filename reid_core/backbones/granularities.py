"""MGN's branches (Wang et al., ACM Multimedia 2018, section 3.1): a ResNet whose end is there three times.

The stages up to the first block of the last but one (ResNet-50's res_conv4_1) are shared. What follows is copied: the
global branch keeps the network's last stride, the branches of two and of three stripes do without. Max pooling gives a
vector of each whole map and of each stripe.
"""

import copy

import torch
from torch import Tensor, nn

from reid_core.backbones.resnet import ResNet
from reid_core.heads import stripes
from schemas.errors import UsageError

#: Stripes of each branch; 1 is the global one.
BRANCHES = (1, 2, 3)
#: Vectors in all: each branch's whole map, then the stripes of the branches that have some.
PARTS = len(BRANCHES) + sum(count for count in BRANCHES if count > 1)


class Granularities(nn.Module):
    """(B, 3, H, W) -> (B, 8 * D, 1, 1): three vectors of whole maps, then two and three of stripes."""

    pooled = True

    def __init__(self, net: nn.Module, architecture: str) -> None:
        """Takes over the layers of `net`, with their weights. Raises UsageError unless it is a ResNet."""
        super().__init__()
        if not isinstance(net, ResNet):
            raise UsageError(f"MGN's branches are the last blocks of a ResNet, which {architecture} is not")
        self.conv1, self.bn1, self.maxpool = net.conv1, net.bn1, net.maxpool
        *before, split, last = (getattr(net, name) for name in net.stages)
        self.shared = nn.Sequential(*before, split[:1])
        self.branches = nn.ModuleList(copy.deepcopy(nn.Sequential(split[1:], last)) for _ in BRANCHES)
        _halve(self.branches[0][1][0])  # type: ignore[index]
        self.dims = PARTS * net.dims

    def forward(self, images: Tensor) -> Tensor:
        shared = self.shared(self.maxpool(torch.relu_(self.bn1(self.conv1(images)))))
        maps = [branch(shared) for branch in self.branches]
        parts = list(maps)
        for its, count in zip(maps, BRANCHES, strict=True):
            parts += stripes(its, count) if count > 1 else []
        return torch.cat([part.amax(dim=(2, 3)) for part in parts], dim=1)[:, :, None, None]


def _halve(block: nn.Module) -> None:
    """Gives a stage's first block the stride 2, where the published network has it: first 3x3 and shortcut."""
    convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    strided = next(layer for layer in convolutions if layer.kernel_size == (3, 3))
    for layer in (strided, convolutions[-1]):  # the shortcut's is declared last
        layer.stride = (2, 2)
