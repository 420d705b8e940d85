"""Running out of memory: how it is recognized, and how work goes on in smaller blocks.

torch reports it in many forms. Only the caching allocator raises `torch.OutOfMemoryError`; cuBLAS, cuDNN, the CUDA
runtime, Triton, ONNX Runtime and the CPU's allocator raise a RuntimeError, or an error of their own, with a text.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import clear_frames
from typing import TypeVar

import torch

from schemas.errors import OutOfDeviceMemory

Result = TypeVar("Result")

#: Texts by which libraries report that memory could not be allocated, in lower case.
_TEXTS = (
    "out of memory",  # CUDA runtime and driver, Triton, TensorRT
    "can't allocate memory",  # torch's CPU allocator
    "cannot allocate memory",  # the operating system, errno 12
    "not enough memory",  # torch's CPU allocator on Windows
    "alloc_failed",  # CUBLAS_STATUS_, CUDNN_STATUS_, CUSOLVER_STATUS_, CUSPARSE_STATUS_, CUFFT_
    "allocation_failed",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    "unable to find an engine to execute this computation",  # cuDNN, where no engine got its workspace
    "unable to find a valid cudnn algorithm",  # the same, older
    "failed to allocate memory",  # ONNX Runtime
    "bad_alloc",  # C++ libraries
    "bad allocation",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory of the device, or of this process, could not be allocated."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, Exception) and any(text in str(error).lower() for text in _TEXTS)


def unless_out_of_memory(compute: Callable[[], Result]) -> Result | None:
    """What `compute` returns, or None where it ran out of memory; then all that it had allocated is free again."""
    try:
        return compute()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Only here is the error gone, and with its traceback the frames that still held tensors.
    free_cached_memory()
    return None


def free_cached_memory() -> None:
    """Gives the device what no tensor uses any more. Call it outside of an `except`, whose traceback holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def out_of_memory_names(what: str, advice: str = "free some, or set URBAN_REID_DEVICE=cpu") -> Iterator[None]:
    """Running out of memory within raises OutOfDeviceMemory in one line, which names what did not fit."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        clear_frames(error.__traceback__)  # the new error keeps this one as its context
        free_cached_memory()
        raise OutOfDeviceMemory(_too_small_for(what, advice)) from None


def on_device_if_small(tensor: torch.Tensor, device: torch.device, share: float) -> torch.Tensor:
    """`tensor` on `device` if it takes at most `share` of the memory that is free there; else unchanged."""
    if device.type == "cpu" or tensor.nbytes > share * torch.cuda.mem_get_info(device)[0]:
        return tensor
    moved = unless_out_of_memory(lambda: tensor.to(device))
    return tensor if moved is None else moved


class Blocks:
    """Work on many rows, a block at a time; after running out of memory blocks are half as long, from then on.

    `rows` is the longest block from now on, `what` names a row in the error.
    """

    def __init__(self, rows: int, what: str) -> None:
        assert rows >= 1
        self.rows = rows
        self.what = what

    def __call__(self, count: int, compute: Callable[[slice], Result]) -> Iterator[tuple[slice, Result]]:
        """The blocks of `count` rows in order, each with what `compute` returns for it, which is never None.

        Raises OutOfDeviceMemory where not even a block of one row fits.
        """
        start = 0
        while start < count:
            block = slice(start, min(start + self.rows, count))
            found = unless_out_of_memory(lambda block=block: compute(block))  # type: ignore[misc]
            if found is not None:
                yield block, found
                start = block.stop
            elif block.stop - block.start == 1:
                raise OutOfDeviceMemory(_too_small_for(f"even one {self.what} at a time"))
            else:
                self.rows = (block.stop - block.start) // 2


def _too_small_for(what: str, advice: str = "free some, or set URBAN_REID_DEVICE=cpu") -> str:
    return f"the device's memory is too small for {what}; {advice}"
