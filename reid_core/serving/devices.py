"""The device that the core computes on, its precision and its batch size."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reid_core.serving.core import CPU_BATCH_SIZE, CUDA_BATCH_SIZE
from schemas.errors import CoreError
from schemas.settings import Settings


def choose_device(settings: Settings) -> torch.device:
    """The device that `settings` ask for. Raises CoreError if that is cuda and there is none.

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


def batch_size(settings: Settings, device: torch.device) -> int:
    """Pictures in one padded batch of a torch model: as set, or the device's default."""
    return settings.batch_size or (CUDA_BATCH_SIZE if device.type == "cuda" else CPU_BATCH_SIZE)


def use_bfloat16(settings: Settings, device: torch.device) -> bool:
    """Whether the backbone computes in bfloat16: as set, or, if auto, whether the device has matrix units for it.

    A CPU with bfloat16 instructions but without AMX tiles stays at float32: there bfloat16 took 1.4 times as long in
    torch and 1.8 times as long in OpenVINO (docs/decisions/bfloat16.md).
    """
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("amx_tile", False))


def has_bfloat16() -> bool:
    """Whether the processor has instructions for products in bfloat16; torch computes without them too, slowly."""
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_tile", "bf16"))


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on one thread meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
