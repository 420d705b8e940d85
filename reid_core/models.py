"""The Re-ID models: BagTricks and AGW on a backbone, with or without diff attention (paper, 'Baselines').

| baseline  | pooling                        | non-local blocks  |
|-----------|--------------------------------|-------------------|
| bagtricks | global average                 | none              |
| agw       | generalized mean, learnable p  | in layer2, layer3 |

AGW has its non-local blocks on ResNets alone. On another backbone that gives maps, AGW is the generalized mean (and the
weighted triplet, which is training's); on one that pools by itself there is nothing left of it, and it is refused.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from reid_core.backbones import build_backbone
from reid_core.backbones.weights import load_weights
from reid_core.diff_attention import DiffAttention
from reid_core.heads import BNNeck, Features, GeM, GlobalAverage
from schemas.cards import ModelConfig
from schemas.errors import CoreError, UsageError


class ReIDModel(nn.Module):
    """Backbone, pooling, BNNeck, and the diff attention module where `config` has one."""

    def __init__(self, config: ModelConfig, num_classes: int | None = None) -> None:
        """`num_classes`: of the classifier that training needs; None builds none. Raises UsageError and CoreError."""
        super().__init__()
        if config.baseline == "foreign":
            raise CoreError("a foreign embedder is a file, not a network that can be built")
        agw = config.baseline == "agw"
        self._config = ModelConfig(**{name: getattr(config, name) for name in ModelConfig.model_fields})
        self.backbone = build_backbone(
            config.architecture,
            non_local_channels=config.non_local_channels if agw else None,
            size=(config.input.height, config.input.width),
        )
        if agw and self.backbone.pooled:
            raise UsageError(f"{config.architecture} pools by itself, which leaves nothing of AGW: take bagtricks")
        self.dims: int = self.backbone.dims  # type: ignore[assignment]
        self.pool = GeM() if agw else GlobalAverage()
        self.neck = BNNeck(self.dims, num_classes)
        self.diff_attention = None if config.diff_attention is None else DiffAttention(self.dims, config.diff_attention)

    @property
    def config(self) -> ModelConfig:
        """How to build this model again, whatever module was put on or taken off since."""
        attention = None if self.diff_attention is None else self.diff_attention.settings
        return self._config.model_copy(update={"diff_attention": attention})

    def features(self, images: Tensor) -> Features:
        """Features of normalized pictures (B, 3, H, W). Pooling and BNNeck compute in float32 whatever the backbone."""
        features: Features = self.neck(self.pool(self.backbone(images).float()))
        return features

    def forward(self, images: Tensor) -> Features | Tensor:
        """`Features` in training; in eval mode the post-BN feature (B, D), not normalized."""
        features = self.features(images)
        return features if self.training else features.post_bn


def build_model(
    config: ModelConfig, *, num_classes: int | None = None, pretrained: Path | Literal["imagenet"] | None = None
) -> ReIDModel:
    """A model with fresh weights, or with its backbone's from `pretrained`.

    That is a safetensors file in the backbone's public names, or "imagenet" for torchvision's or timm's download.
    Raises UsageError for an unknown architecture, CoreError for a download that fails, and ModelFileError for a file
    that does not fit.
    """
    model = ReIDModel(config, num_classes)
    if pretrained is not None:
        load_weights(model.backbone, config.architecture, pretrained, (config.input.height, config.input.width))
    return model


def refuse_config(config: ModelConfig) -> None:
    """Raises what `build_model` does for an architecture, input or baseline that does not go; allocates no weights."""
    with torch.device("meta"):
        ReIDModel(config)
