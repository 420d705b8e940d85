"""Any network of timm as a backbone, `timm:NAME`, with timm's own names, strides and pooling (extra 'timm')."""

from typing import Any

import torch
from torch import Tensor, nn

from schemas.errors import CoreError, UsageError


class TimmNet(nn.Module):
    """(B, 3, H, W) -> maps (B, D, h, w), or (B, D, 1, 1) of a network whose input size is fixed.

    Such a network, a transformer as a rule, is built for `size` and pools by itself, as it was trained: the class token
    or the mean of the patches. The strides of a convolutional network stay as published (32 as a rule): timm has no
    uniform way to take the last one away.
    """

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        """`size`: height and width of the pictures. Raises UsageError, and CoreError without timm."""
        super().__init__()
        self.net: nn.Module = create(name, size)
        training = self.net.training
        with torch.no_grad():
            try:
                found = self.net.eval()(torch.zeros(1, 3, *size, device=next(self.net.parameters()).device))
            except (RuntimeError, AssertionError) as error:
                raise UsageError(f"timm's {name} takes no pictures of {size[0]}x{size[1]}: {error}") from None
        self.net.train(training)
        channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        if not isinstance(found, Tensor):
            raise UsageError(f"timm's {name} gives several tensors; choose another network")
        if found.ndim not in (2, 4) or (found.ndim == 4 and channels_last):
            raise UsageError(
                f"timm's {name} gives {tuple(found.shape)}, neither (1, D) nor (1, D, h, w); choose another network"
            )
        self.pooled = found.ndim == 2
        self.dims: int = found.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.net(images)
        return found[:, :, None, None] if self.pooled else found


def create(name: str, size: tuple[int, int], *, pretrained: bool = False) -> nn.Module:
    """timm's network without a classifier, and without pooling where it has maps.

    Raises CoreError without timm, and UsageError for a name or size that it does not have.
    """
    try:
        import timm
    except ImportError as error:
        raise CoreError(f"timm:{name[:60]} needs the extra 'timm': pip install 'urban-reid[timm]' ({error})") from None
    try:
        # A name with a scheme would be looked for on a server or on the disk.
        known = ":" not in name and timm.is_model(name)
        described = timm.get_pretrained_cfg(name) if known else None
    except RuntimeError:  # of weights that it does not have, the part behind the dot
        known = False
    if not known:
        raise UsageError(f"timm {timm.__version__} has no model {name[:60]!r}; timm.list_models() names them")
    fixed = described is not None and described.fixed_input_size
    options: dict[str, Any] = {"img_size": size} if fixed else {"global_pool": ""}
    try:
        net: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except (TypeError, AssertionError, ValueError) as error:
        raise UsageError(f"timm's {name} cannot be built for pictures of {size[0]}x{size[1]}: {error}") from None
    return net
