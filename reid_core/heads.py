"""From a feature map to the features that losses and search use: pooling and the BNNeck."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class GeM(nn.Module):
    """Generalized-mean pooling with one learnable exponent: (mean x^p)^(1/p), x clamped at eps (paper, 'AGW')."""

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]))
        self.eps = eps

    def forward(self, maps: Tensor) -> Tensor:  # (B, D, H, W) -> (B, D)
        return maps.clamp(min=self.eps).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)


class GlobalAverage(nn.Module):
    """Global average pooling (paper, 'BagTricks')."""

    def forward(self, maps: Tensor) -> Tensor:  # (B, D, H, W) -> (B, D)
        return maps.mean(dim=(2, 3))


class Features(NamedTuple):
    """Features of B pictures: float32 (B, D) before and after the BNNeck, and logits (B, C) if there are classes.

    The post-BN feature, not normalized, is the input of the classifier, the diff attention and the search.
    """

    pre_bn: Tensor
    post_bn: Tensor
    logits: Tensor | None


class BNNeck(nn.Module):
    """Batch normalization with a bias frozen at zero, then a classifier without bias, initialized from N(0, 0.001).

    The classifier computes in float32 also under autocast: the identity loss of bfloat16 logits has three digits.
    """

    def __init__(self, dims: int, num_classes: int | None) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(dims)
        self.bn.bias.requires_grad_(False)
        self.classifier: nn.Linear | None = None
        if num_classes is not None:
            self.classifier = nn.Linear(dims, num_classes, bias=False)
            nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, pre_bn: Tensor) -> Features:
        post_bn = self.bn(pre_bn)
        if self.classifier is None:
            return Features(pre_bn, post_bn, None)
        with torch.autocast(pre_bn.device.type, enabled=False):
            return Features(pre_bn, post_bn, self.classifier(post_bn))
