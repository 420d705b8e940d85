"""Where and how precisely the core computes."""

import torch

from schemas.errors import CoreError
from schemas.settings import Settings


def choose_device(settings: Settings) -> torch.device:
    """The device that `settings` ask for. Raises CoreError where that is cuda and there is none.

    Turns TF32 off for this process. torch leaves it on for convolutions and off for matrix products, so that a feature
    in float32 would carry 10 bits of mantissa on CUDA and 23 on a CPU, and figures of two machines could not be
    compared. bfloat16 is the fast form, and `precision` chooses it. No match depends on this: distances that decide
    are float64. The older flags are set, because after `fp32_precision` torch 2.15 raises where other code reads them.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
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
    return bool(torch.cpu.get_capabilities().get("amx_tile", False))
