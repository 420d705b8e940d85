"""torchvision's MobileNets, EfficientNets and vision transformers as backbones, with its parameter names."""

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, get_model

from schemas.errors import UsageError


class Features(nn.Module):
    """The convolutions of a MobileNet or EfficientNet without the last stride, (B, 3, H, W) -> (B, D, H/16, W/16)."""

    pooled = False

    def __init__(self, architecture: str, last_stride: int) -> None:
        """`last_stride`: 2 as published, 1 without it."""
        super().__init__()
        self.features = get_model(architecture, weights=None).features
        convolutions = [module for module in self.features.modules() if isinstance(module, nn.Conv2d)]
        # In these families a block has one strided convolution and no strided shortcut.
        [module for module in convolutions if module.stride == (2, 2)][-1].stride = (last_stride, last_stride)
        self.dims: int = convolutions[-1].out_channels

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.features(images)
        return maps


class ClassToken(nn.Module):
    """A vision transformer's class token after the final normalization, (B, 3, H, W) -> (B, D, 1, 1).

    TransReID uses the class token as the picture's feature (He et al., ICCV 2021, section 3.1). Patches do not overlap,
    and there is no last stride. Position embeddings are made for the given size, whatever size `net` was built for.
    """

    pooled = True

    def __init__(self, net: VisionTransformer, size: tuple[int, int]) -> None:
        """`size`: height and width of the pictures. Raises UsageError unless both are multiples of the patch size."""
        super().__init__()
        side = net.patch_size
        if size[0] % side or size[1] % side:
            raise UsageError(
                f"an input of {size[0]}x{size[1]} cannot be cut into patches of {side}x{side}; "
                f"choose multiples of {side}"
            )
        self.size, self.dims = size, int(net.hidden_dim)
        self.grid = (size[0] // side, size[1] // side)
        self.class_token, self.conv_proj, self.encoder = net.class_token, net.conv_proj, net.encoder
        positions = torch.empty(1, 1 + self.grid[0] * self.grid[1], self.dims)
        self.encoder.pos_embedding = nn.Parameter(nn.init.normal_(positions, std=0.02))  # as torchvision does

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[2:] == self.size, f"pictures of {tuple(images.shape[2:])}, not {self.size}"
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)  # (B, N, D)
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), patches], dim=1)
        found: Tensor = self.encoder(tokens)  # (B, 1 + N, D)
        return found[:, 0, :, None, None]


def torchvision_backbone(architecture: str, size: tuple[int, int], last_stride: int) -> nn.Module:
    """The backbone of one of the names in `TORCHVISION`. Raises UsageError for a size that it cannot take."""
    if architecture.startswith("vit"):
        return ClassToken(get_model(architecture, weights=None), size)
    return Features(architecture, last_stride)
