"""The Re-ID models: BagTricks and AGW on a ResNet, with or without diff attention (paper, 'Baselines').

| baseline  | pooling                        | non-local blocks |
|-----------|--------------------------------|------------------|
| bagtricks | global average                 | none             |
| agw       | generalised mean, learnable p  | in layer2, layer3 |
"""

from pathlib import Path

from torch import Tensor, nn

from reid_core.backbones import build_backbone
from reid_core.diff_attention import DiffAttention
from reid_core.files import read_tensors
from reid_core.heads import BNNeck, Features, GeM, GlobalAverage
from schemas.cards import ModelConfig
from schemas.errors import CoreError, ModelFileError


class ReIDModel(nn.Module):
    """Backbone, pooling, BNNeck, and the diff attention module where `config` has one."""

    def __init__(self, config: ModelConfig, num_classes: int | None = None) -> None:
        """`num_classes`: of the classifier that training needs; None builds none. Raises CoreError."""
        super().__init__()
        if config.baseline == "foreign":
            raise CoreError("a foreign embedder is a file, not a network that can be built")
        agw = config.baseline == "agw"
        self._config = ModelConfig(**{name: getattr(config, name) for name in ModelConfig.model_fields})
        self.backbone = build_backbone(
            config.architecture, non_local_channels=config.non_local_channels if agw else None
        )
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
        """Features of normalised pictures (B, 3, H, W). Pooling and BNNeck compute in float32 whatever the backbone."""
        features: Features = self.neck(self.pool(self.backbone(images).float()))
        return features

    def forward(self, images: Tensor) -> Features | Tensor:
        """`Features` in training; in eval mode the post-BN feature (B, D), not normalised."""
        features = self.features(images)
        return features if self.training else features.post_bn


def build_model(config: ModelConfig, *, num_classes: int | None = None, pretrained: Path | None = None) -> ReIDModel:
    """A model with fresh weights, or with a backbone from `pretrained`, a safetensors file in its public names.

    Raises CoreError for an unknown architecture and ModelFileError for a file that does not fit.
    """
    model = ReIDModel(config, num_classes)
    if pretrained is not None:
        _load_backbone(model.backbone, pretrained)
    return model


def _load_backbone(backbone: nn.Module, path: Path) -> None:
    classifiers = ("fc.", "classifier.", "head.", "heads.")
    tensors = {name: tensor for name, tensor in read_tensors(path).items() if not name.startswith(classifiers)}
    try:
        missing, unexpected = backbone.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ModelFileError(f"{path}: its weights have other shapes: {str(error).splitlines()[-1].strip()}") from None
    # Non-local blocks are no part of ImageNet weights, and some files leave BatchNorm's counters out.
    missing = [name for name in missing if not name.startswith("non_local.") and not name.endswith("_tracked")]
    if missing or unexpected:
        raise ModelFileError(
            f"{path}: not this backbone in its public names; "
            f"missing {missing[:3]}, unknown {list(unexpected)[:3]} ({len(missing)} and {len(unexpected)})"
        )
