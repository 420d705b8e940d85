import weakref

import pytest
import torch

from reid_core.device_memory import (
    Blocks,
    is_out_of_memory,
    on_device_if_small,
    out_of_memory_names,
    unless_out_of_memory,
)
from schemas.errors import OutOfDeviceMemory

#: As libraries write them; the errors of CUDA's libraries were not provoked on a device here.
FORMS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    MemoryError("Unable to allocate 8.00 EiB for an array"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 1024"),
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", FORMS, ids=str)
def test_each_form_is_recognized(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_the_real_error_of_the_cpu_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        RuntimeError("out of resource: shared memory, Required: 139264, Hardware limit: 101376"),
        ValueError("shapes do not fit"),
        KeyboardInterrupt(),
    ],
    ids=str,
)
def test_other_errors_are_not(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_the_cache_is_emptied_when_the_tensors_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fake of CUDA's allocator: while a traceback holds the tensors, emptying the cache frees nothing."""
    held: list[weakref.ref[torch.Tensor]] = []
    alive_when_emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive_when_emptied.append(held[0]() is not None))

    def compute() -> None:
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    assert unless_out_of_memory(compute) is None
    assert alive_when_emptied == [False]


def test_other_errors_pass_and_nothing_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: pytest.fail("nothing was to be freed"))

    def compute() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        unless_out_of_memory(compute)
    assert unless_out_of_memory(lambda: 3) == 3


def test_only_what_is_small_beside_the_free_memory_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the meta device for a GPU."""
    tensor, meta = torch.zeros(1000, dtype=torch.uint8), torch.device("meta")
    for free, device in ((4000, "meta"), (3999, "cpu")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 2**40))
        assert on_device_if_small(tensor, meta, 0.25).device.type == device
    assert on_device_if_small(tensor, torch.device("cpu"), 0.25) is tensor


def test_what_does_not_fit_in_spite_of_the_free_memory_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    tensor = torch.zeros(1000, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**40, 2**40))
    monkeypatch.setattr(torch.Tensor, "to", refuse)
    assert on_device_if_small(tensor, torch.device("meta"), 0.25) is tensor


def test_the_error_in_one_line_holds_no_tensors() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def compute() -> None:
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    with (
        pytest.raises(OutOfDeviceMemory, match="too small for a batch; buy more") as caught,
        out_of_memory_names("a batch", "buy more"),
    ):
        compute()
    assert caught.value.__context__ is not None and held[0]() is None
    with pytest.raises(ValueError, match="no"), out_of_memory_names("a batch"):
        raise ValueError("no")


def test_blocks_are_halved_for_good() -> None:
    blocks = Blocks(64, "query")
    tried: list[int] = []

    def compute(block: slice) -> list[int]:
        tried.append(block.stop - block.start)
        if block.stop - block.start > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(block.start, block.stop))

    found = list(blocks(100, compute))
    assert [row for _, rows in found for row in rows] == list(range(100))
    assert all(rows == list(range(block.start, block.stop)) for block, rows in found)
    assert tried[:3] == [64, 32, 16] and set(tried[3:]) == {16, 4} and blocks.rows == 16
    assert [block.stop - block.start for block, _ in blocks(20, compute)] == [16, 4]
    assert not list(blocks(0, compute))


def test_one_row_that_does_not_fit_is_one_line() -> None:
    def compute(_: slice) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfDeviceMemory, match="even one query at a time; free some, or set URBAN_REID_DEVICE=cpu"):
        list(Blocks(4, "query")(10, compute))
