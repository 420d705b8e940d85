"""The Re-ID models: BagTricks and AGW on a backbone, with or without diff attention (paper, 'Baselines').

| baseline  | pooling                        | non-local blocks  |
|-----------|--------------------------------|-------------------|
| bagtricks | global average                 | none              |
| agw       | generalized mean, learnable p  | in layer2, layer3 |

Only ResNets have the non-local blocks. On another backbone that returns feature maps, AGW is the generalized mean, and
the weighted triplet in training. On a backbone that pools by itself nothing of AGW would remain: that is an error.
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
    """Backbone, pooling, BNNeck, and the diff attention module if `config` has one."""

    def __init__(self, config: ModelConfig, num_classes: int | None = None) -> None:
        """`num_classes`: classes of the classifier, which training needs; None: no classifier.

        Raises UsageError for an architecture, input or baseline that does not work, CoreError for a foreign embedder.
        """
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
            raise UsageError(f"{config.architecture} pools by itself, so that nothing of AGW remains: take bagtricks")
        self.dims: int = self.backbone.dims  # type: ignore[assignment]
        self.pool = GeM() if agw else GlobalAverage()
        self.neck = BNNeck(self.dims, num_classes)
        self.diff_attention = None if config.diff_attention is None else DiffAttention(self.dims, config.diff_attention)

    @property
    def config(self) -> ModelConfig:
        """The configuration to build this model again, with the diff attention module that it has now."""
        attention = None if self.diff_attention is None else self.diff_attention.settings
        return self._config.model_copy(update={"diff_attention": attention})

    def features(self, images: Tensor) -> Features:
        """Features of normalized pictures (B, 3, H, W). Pooling and BNNeck always compute in float32."""
        features: Features = self.neck(self.pool(self.backbone(images).float()))
        return features

    def forward(self, images: Tensor) -> Features | Tensor:
        """`Features` in training; in eval mode the post-BN feature (B, D), not normalized."""
        features = self.features(images)
        return features if self.training else features.post_bn


def build_model(
    config: ModelConfig, *, num_classes: int | None = None, pretrained: Path | Literal["imagenet"] | None = None
) -> ReIDModel:
    """A model with fresh weights, whose backbone may have those of `pretrained`.

    `pretrained`: a safetensors file with the backbone's public weight names, or "imagenet" for the weights that
    torchvision or timm download. Raises what `ReIDModel` raises, CoreError where a download fails, and ModelFileError
    for a file that does not fit.
    """
    model = ReIDModel(config, num_classes)
    if pretrained is not None:
        load_weights(model.backbone, config.architecture, pretrained, (config.input.height, config.input.width))
    return model


def refuse_config(config: ModelConfig) -> None:
    """Raises what `build_model` would raise for `config`, without allocating weights."""
    with torch.device("meta"):
        ReIDModel(config)
