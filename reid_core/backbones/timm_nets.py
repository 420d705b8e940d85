"""Any network of timm as a backbone, `timm:NAME`, with timm's parameter names, strides and pooling (extra 'timm')."""

from typing import Any

import torch
from torch import Tensor, nn

from schemas.errors import CoreError, UsageError


class TimmNet(nn.Module):
    """(B, 3, H, W) -> feature map (B, D, h, w), or (B, D, 1, 1) if the network has a fixed input size.

    A network with a fixed input size, usually a transformer, is built for `size` and pools as it was trained: class
    token or mean of the patches. A convolutional network keeps its published strides, usually 32 in all, because timm
    has no uniform way to remove the last one.
    """

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        """`size`: height and width of the pictures. Raises UsageError, and CoreError if timm is not installed."""
        super().__init__()
        self.net: nn.Module = create(name, size)
        training = self.net.training
        with torch.no_grad():
            try:
                found = self.net.eval()(torch.zeros(1, 3, *size, device=next(self.net.parameters()).device))
            except (RuntimeError, AssertionError) as error:
                reason = " ".join(str(error).split())[:300]
                raise UsageError(f"timm's {name} cannot take pictures of {size[0]}x{size[1]}: {reason}") from None
        self.net.train(training)
        channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        if not isinstance(found, Tensor):
            raise UsageError(f"timm's {name} returns several tensors; choose another network")
        if found.ndim not in (2, 4) or (found.ndim == 4 and channels_last):
            raise UsageError(
                f"timm's {name} returns the shape {tuple(found.shape)}, neither (1, D) nor (1, D, h, w); "
                "choose another network"
            )
        self.pooled = found.ndim == 2
        self.dims: int = found.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.net(images)
        return found[:, :, None, None] if self.pooled else found


def create(name: str, size: tuple[int, int], *, pretrained: bool = False) -> nn.Module:
    """timm's network without its classifier, and without pooling if it has feature maps.

    Raises CoreError if timm is not installed, UsageError for a name that timm does not have or a size that the network
    cannot take.
    """
    try:
        import timm
    except ImportError as error:
        raise CoreError(f"timm:{name[:60]} needs the extra 'timm': pip install 'urban-reid[timm]' ({error})") from None
    try:
        # timm would look up a name with a scheme, such as hf-hub:, on a server or on the disk.
        known = ":" not in name and timm.is_model(name)
        described = timm.get_pretrained_cfg(name) if known else None
    except RuntimeError:  # for an unknown weight tag, the part after the dot
        known = False
    if not known:
        raise UsageError(f"timm {timm.__version__} has no model {name[:60]!r}; timm.list_models() lists them")
    fixed = described is not None and described.fixed_input_size
    options: dict[str, Any] = {"img_size": size} if fixed else {"global_pool": ""}
    try:
        net: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except (TypeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"timm's {name} cannot be built for pictures of {size[0]}x{size[1]}: {reason}") from None
    return net
