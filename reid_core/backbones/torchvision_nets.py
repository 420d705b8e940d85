"""torchvision's networks as backbones, without their last stride (paper, 'Baselines': last stride 1)."""

from torch import Tensor, nn
from torchvision.models import mobilenet_v2


class MobileNetV2(nn.Module):
    """(B, 3, H, W) -> (B, 1280, H/16, W/16)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = mobilenet_v2(weights=None).features
        self.features[14].conv[1][0].stride = (1, 1)
        self.dims = 1280

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.features(images)
        return maps


def torchvision_backbone(architecture: str) -> nn.Module:
    assert architecture == "mobilenet_v2"
    return MobileNetV2()
