"""Where and how precisely the core computes."""

import torch

from schemas.errors import CoreError
from schemas.settings import Settings


def choose_device(settings: Settings) -> torch.device:
    """Raises CoreError where cuda is asked for and there is none."""
    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise CoreError("URBAN_REID_DEVICE=cuda, but torch finds no CUDA device; set it to auto or cpu")
    return torch.device("cuda" if available and settings.device != "cpu" else "cpu")


def use_bfloat16(settings: Settings, device: torch.device) -> bool:
    """Whether the backbone computes in bfloat16: as set, or where the device has tiles or cores for it.

    A processor that has bfloat16 instructions but no AMX tiles is left at float32: there bfloat16 took 1.4 times as
    long in torch and 1.8 times as long in OpenVINO (docs/decisions/bfloat16.md).
    """
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported())
