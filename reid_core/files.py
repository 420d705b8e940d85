"""Model directories: `card.json` beside the weights. Nothing is ever unpickled.

    torch      weights.safetensors, the whole model without its classifier
    openvino   NAME.xml and NAME.bin, and diff_attention.safetensors where a module was trained on it
    onnx       NAME.onnx, and diff_attention.safetensors likewise

A safetensors header is checked against the file before anything believes it. Importing this module loads no torch.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from schemas.calibration import LevelCalibration
from schemas.cards import ModelCard
from schemas.errors import CoreError, ModelFileError, UsageError
from schemas.keys import content_hash

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reid_core.diff_attention import DiffAttention
    from reid_core.models import ReIDModel

CARD = "card.json"
WEIGHTS = "weights.safetensors"
DIFF_ATTENTION = "diff_attention.safetensors"
#: Bytes of a card and of a safetensors header; real ones are a hundredth of it.
MAX_TEXT_BYTES = 16 * 2**20
_ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "I64": 8, "F64": 8}
_PICKLED = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".tar", ".joblib", ".npy", ".npz"}


def save_model(
    model: "ReIDModel",
    directory: Path,
    *,
    name: str,
    strategy: Literal["plain", "joint", "separate"] = "plain",
    trained_on: str = "",
    metrics: Mapping[str, float] | None = None,
    calibration: Sequence[LevelCalibration] = (),
    details: Mapping[str, Any] | None = None,
    half: bool = False,
) -> ModelCard:
    """Write the model's weights and card into `directory`, and return the card.

    The classifier stays behind: it names training people. `half` stores matrices and kernels as float16; they load as
    float32 again. Measure metrics and calibration on the loaded model, not on the one before rounding.
    """
    import torch
    from safetensors.torch import save

    tensors = {}
    for key, tensor in model.state_dict().items():
        if not key.startswith("neck.classifier."):
            rounded = tensor.half() if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor
            tensors[key] = rounded.detach().to("cpu", memory_format=torch.contiguous_format).clone()
    directory.mkdir(parents=True, exist_ok=True)
    data = save(tensors)
    _write(directory / WEIGHTS, data)
    card = ModelCard(
        **dict(model.config),
        name=name,
        engine="torch",
        dims=model.dims,
        strategy=strategy,
        trained_on=trained_on,
        metrics=dict(metrics or {}),
        calibration=tuple(calibration),
        sha256={WEIGHTS: hashlib.sha256(data).hexdigest()},
        details=dict(details or {}),
    )
    write_card(card, directory)
    return card


def write_tensors(module: "nn.Module", path: Path) -> bytes:
    """Writes a module's weights as safetensors, all or nothing, and returns the file's bytes."""
    from safetensors.torch import save

    data: bytes = save({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()})
    _write(path, data)
    return data


def write_card(card: ModelCard, directory: Path) -> None:
    """Put `card` beside its weights, for one in place of another, such as with a calibration added."""
    _write(directory / CARD, (card.model_dump_json(indent=2) + "\n").encode())


def read_card(directory: Path) -> ModelCard:
    """The card of a model directory whose files are all there and have the hashes that it states.

    Raises ModelFileError.
    """
    path = directory / CARD
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ModelFileError(f"{path}: larger than {MAX_TEXT_BYTES} bytes; this is no model card")
        card = ModelCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelFileError(f"{path}: no model card: {where}: {first['msg']}") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}); a model directory holds card.json") from None
    for name, expected in card.sha256.items():
        file = directory / name
        if Path(name).name != name or file.is_symlink():
            raise ModelFileError(f"{path}: names {name[:80]!r}, which is no plain file of its folder")
        if sha256_of(file) != expected:
            raise ModelFileError(f"{file}: its SHA-256 is not the one in card.json; get both from one source again")
    needed = {WEIGHTS} if card.engine == "torch" else set()
    if card.engine != "torch" and card.diff_attention is not None:
        needed = {DIFF_ATTENTION}
    if absent := needed - card.sha256.keys():
        raise ModelFileError(f"{path}: states no SHA-256 of {', '.join(sorted(absent))}, which {card.engine} needs")
    return card


def model_digest(card: ModelCard) -> bytes:
    """32 bytes that name what a model computes: its files, architecture and input, but not its name or calibration."""
    files = [part for name in sorted(card.sha256) for part in (name, card.sha256[name])]
    built = (card.engine, card.architecture, card.baseline, str(card.non_local_channels), str(card.dims))
    shape = "" if card.diff_attention is None else card.diff_attention.model_dump_json()
    return content_hash("model", (*built, shape, card.input.model_dump_json(), *files))


def load_model(directory: Path) -> "ReIDModel":
    """The torch model of a model directory, on the CPU, float32, in eval mode. Raises ModelFileError."""
    from reid_core.models import build_model

    card = read_card(directory)
    if card.engine != "torch" or card.baseline == "foreign":
        raise ModelFileError(f"{directory}: a model of the engine {card.engine}; only torch models are loaded so")
    try:
        model = build_model(card)
    except (CoreError, UsageError) as error:
        raise ModelFileError(f"{directory / CARD}: {error}") from None
    if model.dims != card.dims:
        raise ModelFileError(f"{directory}: card.json says {card.dims} dims, {card.architecture} has {model.dims}")
    _load_into(model, directory / WEIGHTS)
    return model.eval()


def load_diff_attention(directory: Path, card: ModelCard) -> "DiffAttention | None":
    """The module trained on a foreign embedder, float32, or None where its card has none. Raises ModelFileError."""
    from reid_core.diff_attention import DiffAttention

    if card.diff_attention is None:
        return None
    module = DiffAttention(card.dims, card.diff_attention)
    _load_into(module, directory / DIFF_ATTENTION)
    return module.eval()


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a safetensors file by name, floats as float32. Raises ModelFileError."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    refuse_pickles(path)
    _check_header(path)
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: no safetensors file: {error}") from None
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def refuse_pickles(path: Path) -> None:
    """Raises ModelFileError for a file that is pickled by its name or by its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None
    # A pickle begins with its protocol; torch.save writes a zip archive around one.
    pickled = path.suffix.lower() in _PICKLED or start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] < b"\x10")
    if pickled and not (path.suffix == ".safetensors" and _header_fits(path)):
        raise ModelFileError(
            f"{path}: a pickle or archive, which can run code when it is read and is refused; "
            "`urban-reid models convert` makes safetensors of a backbone's weights; other models can be exported to "
            "OpenVINO IR or ONNX where they were made"
        )


def sha256_of(file: Path) -> str:
    """Hex SHA-256 of a file. Raises ModelFileError where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{file}: cannot be read ({error.strerror})") from None


def _load_into(module: "ReIDModel | DiffAttention", path: Path) -> None:
    try:
        module.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelFileError(f"{path}: does not fit the model that card.json describes: {reason[:300]}") from None


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
            raise ModelFileError(f"{path}: its header claims {length} bytes, the file has {size}; no safetensors file")
        text = file.read(length)
    try:
        header = json.loads(text)
        if not isinstance(header, dict):
            raise TypeError("it is no object")
        header.pop("__metadata__", None)
        spans = sorted(_span(name, entry) for name, entry in header.items())
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelFileError(f"{path}: its header cannot be believed: {str(error)[:200]}") from None
    edges = [(0, 0), *spans, (size - 8 - length, size - 8 - length)]
    if any(before[1] != after[0] for before, after in pairwise(edges)):
        raise ModelFileError(f"{path}: the tensors of its header do not fill its {size - 8 - length} bytes of data")


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Begin and end of a tensor's bytes, whose number follows from its shape and type."""
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    numbers = [begin, end, *shape]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"{name[:80]!r} has sizes or offsets that are no natural numbers")
    if entry["dtype"] not in _ITEM_BYTES:
        raise ValueError(f"{name[:80]!r} has the unknown type {str(entry['dtype'])[:20]!r}")
    if end - begin != prod(shape) * _ITEM_BYTES[entry["dtype"]]:
        raise ValueError(f"{name[:80]!r} of shape {shape[:8]} does not have {end - begin} bytes")
    return begin, end


def _write(path: Path, data: bytes) -> None:
    """All of `data` or nothing at `path`."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)
