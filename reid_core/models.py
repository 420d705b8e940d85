"""The Re-ID models: BagTricks and AGW on a ResNet, with or without diff attention (paper, 'Baselines').

| baseline  | pooling                        | non-local blocks |
|-----------|--------------------------------|------------------|
| bagtricks | global average                 | none             |
| agw       | generalised mean, learnable p  | in layer2, layer3 |
"""

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from reid_core.backbones import ARCHITECTURES, Backbone
from reid_core.diff_attention import DiffAttention
from reid_core.files import read_tensors
from reid_core.heads import BNNeck, Features, GeM, GlobalAverage
from schemas.cards import DiffAttentionSettings
from schemas.errors import CoreError, ModelFileError

Baseline = Literal["bagtricks", "agw"]


class ReIDModel(nn.Module):
    """Backbone, pooling, BNNeck, and the diff attention module where the model has one.

    `architecture`, `baseline`, `non_local_channels` and `dims` say how it was built; its card repeats them.
    """

    def __init__(
        self,
        architecture: str,
        baseline: Baseline,
        num_classes: int | None,
        diff_attention: DiffAttentionSettings | None,
        non_local_channels: int,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.baseline: Baseline = baseline
        self.non_local_channels = non_local_channels
        self.backbone = Backbone(architecture, non_local_channels=non_local_channels if baseline == "agw" else None)
        self.dims = self.backbone.dims
        self.pool = GeM() if baseline == "agw" else GlobalAverage()
        self.neck = BNNeck(self.dims, num_classes)
        self.diff_attention = None if diff_attention is None else DiffAttention(self.dims, diff_attention)

    def features(self, images: Tensor) -> Features:
        """Features of normalised pictures (B, 3, H, W). Pooling and BNNeck compute in float32 whatever the backbone."""
        features: Features = self.neck(self.pool(self.backbone(images).float()))
        return features

    def forward(self, images: Tensor) -> Features | Tensor:
        """`Features` in training; in eval mode the post-BN feature (B, D), not normalised."""
        features = self.features(images)
        return features if self.training else features.post_bn


def build_model(
    architecture: str,
    *,
    baseline: Baseline = "bagtricks",
    num_classes: int | None = None,
    diff_attention: DiffAttentionSettings | None = None,
    pretrained: Path | None = None,
    non_local_channels: int = 1,
) -> ReIDModel:
    """A model with fresh weights, or with a backbone from `pretrained`, a safetensors file in torchvision's names.

    Raises CoreError for an unknown architecture and ModelFileError for a file that does not fit.
    """
    if architecture not in ARCHITECTURES:
        raise CoreError(f"no architecture {architecture[:60]!r}; there are {', '.join(ARCHITECTURES)}")
    model = ReIDModel(architecture, baseline, num_classes, diff_attention, non_local_channels)
    if pretrained is not None:
        _load_backbone(model.backbone, pretrained)
    return model


def _load_backbone(backbone: Backbone, path: Path) -> None:
    tensors = {name: tensor for name, tensor in read_tensors(path).items() if not name.startswith("fc.")}
    try:
        missing, unexpected = backbone.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ModelFileError(f"{path}: its weights have other shapes: {str(error).splitlines()[-1].strip()}") from None
    # Non-local blocks are no part of ImageNet weights, and some files leave BatchNorm's counters out.
    missing = [name for name in missing if not name.startswith("non_local.") and not name.endswith("_tracked")]
    if missing or unexpected:
        raise ModelFileError(
            f"{path}: not this backbone in torchvision's names; "
            f"missing {missing[:3]}, unknown {list(unexpected)[:3]} ({len(missing)} and {len(unexpected)})"
        )
