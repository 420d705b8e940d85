"""Tensor files: safetensors only; nothing is unpickled.

A safetensors header is checked against the file before it is used. Importing this module does not load torch.
"""

import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from schemas.disk import write_whole
from schemas.errors import ModelFileError

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Most bytes of a model card or a safetensors header; real ones have a hundredth of that.
MAX_TEXT_BYTES = 16 * 2**20
_ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "I64": 8, "F64": 8}
_PICKLED = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".tar", ".joblib", ".npy", ".npz"}


def write_tensors(module: "nn.Module", path: Path) -> bytes:
    """Writes a module's weights as safetensors, whole or not at all, and returns the file's bytes."""
    from safetensors.torch import save

    data: bytes = save({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()})
    write_whole(path, data)
    return data


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a safetensors file by name, floating-point ones as float32. Raises ModelFileError."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = _load(path, load_file)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file by name, of the types that it states. Raises ModelFileError."""
    from safetensors.numpy import load_file

    arrays: dict[str, NDArray[Any]] = _load(path, load_file)
    return arrays


def _load(path: Path, load_file: Callable[[Path], Any]) -> Any:
    from safetensors import SafetensorError

    refuse_pickles(path)
    _check_header(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: not a safetensors file: {error}") from None


def refuse_pickles(path: Path) -> None:
    """Raises ModelFileError for a file that is a pickle by its name or by its first bytes, or that cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None
    # A pickle begins with its protocol; torch.save writes a zip archive around one.
    pickled = path.suffix.lower() in _PICKLED or start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] < b"\x10")
    if pickled and not (path.suffix == ".safetensors" and _header_fits(path)):
        raise ModelFileError(
            f"{path}: is a pickle or an archive, which can run code when it is read, and is not opened; "
            "`urban-reid models convert` converts a backbone's weights to safetensors; export other models to "
            "OpenVINO IR or ONNX where they were made"
        )


def sha256_of(file: Path) -> str:
    """Hex SHA-256 of a file. Raises ModelFileError where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{file}: cannot be read ({error.strerror})") from None


def _header_fits(path: Path) -> bool:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    return length <= min(MAX_TEXT_BYTES, path.stat().st_size - 8)


def _check_header(path: Path) -> None:
    """Raises ModelFileError unless the header describes exactly the bytes that follow it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_TEXT_BYTES, size - 8):
            raise ModelFileError(
                f"{path}: its header claims {length} bytes, the file has {size}; not a safetensors file"
            )
        text = file.read(length)
    try:
        header = json.loads(text)
        if not isinstance(header, dict):
            raise TypeError("it is not an object")
        header.pop("__metadata__", None)
        spans = sorted(_span(name, entry) for name, entry in header.items())
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelFileError(f"{path}: its header is damaged: {str(error)[:200]}") from None
    edges = [(0, 0), *spans, (size - 8 - length, size - 8 - length)]
    if any(before[1] != after[0] for before, after in pairwise(edges)):
        raise ModelFileError(f"{path}: the tensors of its header do not fill its {size - 8 - length} bytes of data")


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Begin and end of a tensor's bytes. Raises ValueError where shape, type and number of bytes do not agree."""
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    numbers = [begin, end, *shape]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"{name[:80]!r} has sizes or offsets that are not natural numbers")
    if entry["dtype"] not in _ITEM_BYTES:
        raise ValueError(f"{name[:80]!r} has the unknown type {str(entry['dtype'])[:20]!r}")
    if end - begin != prod(shape) * _ITEM_BYTES[entry["dtype"]]:
        raise ValueError(f"{name[:80]!r} of shape {shape[:8]} does not have {end - begin} bytes")
    return begin, end
