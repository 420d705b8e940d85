"""From a backbone's output to the features that losses and search use: pooling and necks.

Methods with parts (PCB, MGN, TransReID) give the rest of the program one vector too: the parts' features one after
another. A neck states how the losses see its S parts, all of one width:

    parts              S
    classes            C, of each of its classifiers; None: it has none
    identity_weights   weight of the cross-entropy of each classifier
    triplet_weights    weight of the triplet loss of each part's pre-BN feature
"""

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


class Stripes(nn.Module):
    """Average of each of S horizontal stripes (PCB), (B, D, H, W) -> (B, S * D), stripe by stripe."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([stripe.mean(dim=(2, 3)) for stripe in stripes(maps, self.parts)], dim=1)


def stripes(maps: Tensor, parts: int) -> list[Tensor]:
    """`maps` (B, D, H, W) cut into horizontal stripes; neighbors share a row where `parts` does not divide H."""
    height = maps.shape[2]
    edges = [(part * height // parts, -(-(part + 1) * height // parts)) for part in range(parts)]
    return [maps[:, :, start:stop] for start, stop in edges]


class Features(NamedTuple):
    """Features of B pictures: float32 (B, D) before and after the BNNeck, and logits if there are classes.

    The post-BN feature, not normalized, is the input of the classifier, the diff attention and the search. The logits
    are (B, C), of a neck with S parts (B, S, C).
    """

    pre_bn: Tensor
    post_bn: Tensor
    logits: Tensor | None


class BNNeck(nn.Module):
    """Batch normalization with a bias frozen at zero, then a classifier without bias, initialized from N(0, 0.001).

    The classifier computes in float32 also under autocast: the identity loss of bfloat16 logits has three digits.
    """

    parts = 1
    identity_weights: tuple[float, ...] = (1.0,)
    triplet_weights: tuple[float, ...] = (1.0,)

    def __init__(self, dims: int, num_classes: int | None) -> None:
        super().__init__()
        self.dims, self.classes = dims, num_classes
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


class PartNecks(nn.Module):
    """A BNNeck for each part, (B, S * d) -> Features of (B, S * d) (TransReID)."""

    def __init__(self, width: int, num_classes: int | None, weights: tuple[float, ...]) -> None:
        """`width`: d. `weights`: of each part's identity and triplet loss."""
        super().__init__()
        self.parts, self.classes, self.dims = len(weights), num_classes, len(weights) * width
        self.identity_weights = self.triplet_weights = weights
        self.necks = nn.ModuleList(BNNeck(width, num_classes) for _ in weights)

    def forward(self, vectors: Tensor) -> Features:
        found = [neck(part) for neck, part in zip(self.necks, vectors.chunk(self.parts, dim=1), strict=True)]
        logits = None if self.classes is None else torch.stack([part.logits for part in found], dim=1)
        return Features(vectors, torch.cat([part.post_bn for part in found], dim=1), logits)


class Embedding(nn.Module):
    """Two layers behind the pooling, (B, D) -> Features of (B, 128), without classes (TriNet)."""

    parts = 1
    classes = None
    identity_weights: tuple[float, ...] = ()
    triplet_weights: tuple[float, ...] = (1.0,)

    def __init__(self, width: int, hidden: int = 1024, dims: int = 128) -> None:
        super().__init__()
        self.dims = dims
        self.hidden, self.bn, self.out = nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, dims)

    def forward(self, vectors: Tensor) -> Features:
        found = self.out(torch.relu(self.bn(self.hidden(vectors))))
        return Features(found, found, None)


class Reductions(nn.Module):
    """A reduction and a classifier for each part, (B, S * D) -> Features of (B, S * dims) (PCB, MGN).

    The reduction is a 1x1 convolution on the pooled part, which is a linear layer, with BatchNorm and ReLU. Classifiers
    see the reduced part, except of the first `unreduced` parts, where they see the part itself. There is no BNNeck: the
    features before and after it are the reduced parts.
    """

    def __init__(
        self,
        width: int,
        num_classes: int | None,
        identity_weights: tuple[float, ...],
        triplet_weights: tuple[float, ...],
        *,
        dims: int = 256,
        unreduced: int = 0,
    ) -> None:
        """`width`: D. `dims`: of each reduced part."""
        super().__init__()
        self.parts, self.classes, self.dims = len(identity_weights), num_classes, len(identity_weights) * dims
        self.identity_weights, self.triplet_weights, self.unreduced = identity_weights, triplet_weights, unreduced
        self.reductions = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dims, bias=False), nn.BatchNorm1d(dims), nn.ReLU())
            for _ in range(self.parts)
        )
        self.classifiers: nn.ModuleList | None = None
        if num_classes is not None:
            self.classifiers = nn.ModuleList(
                nn.Linear(width if part < unreduced else dims, num_classes) for part in range(self.parts)
            )
            for classifier in self.classifiers:
                nn.init.normal_(classifier.weight, std=0.001)  # type: ignore[arg-type]
                nn.init.zeros_(classifier.bias)  # type: ignore[arg-type]

    def forward(self, vectors: Tensor) -> Features:
        parts = vectors.chunk(self.parts, dim=1)
        reduced = [reduce(part) for reduce, part in zip(self.reductions, parts, strict=True)]
        features = torch.cat(reduced, dim=1)
        if self.classifiers is None:
            return Features(features, features, None)
        seen = [*parts[: self.unreduced], *reduced[self.unreduced :]]
        with torch.autocast(vectors.device.type, enabled=False):
            logits = [classify(part.float()) for classify, part in zip(self.classifiers, seen, strict=True)]
        return Features(features, features, torch.stack(logits, dim=1))
