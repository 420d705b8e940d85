"""Foreign embedders: an OpenVINO IR (.xml and .bin) or an ONNX file, exported here or made elsewhere.

A file whose batch size is fixed at one gets one picture at a time; a file with an open batch size gets padded batches
of one size. Either way a feature does not depend on the other pictures.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from reid_core.catalog import published_embedder
from reid_core.files import CARD, DIFF_ATTENTION, WEIGHTS
from reid_core.preprocessing import normalized
from reid_core.serving.engines import OpenedFile, engine_of, open_file, weights_of
from reid_core.serving.extras import load_extra
from reid_core.serving.trial import try_embedder
from reid_core.tensors import sha256_of
from schemas.cards import MAX_DIMS, InputConvention, ModelCard
from schemas.errors import InputError, ModelFileError, UrbanReidError
from schemas.settings import Settings

#: Pictures in one padded batch, if the file leaves the batch size open. One at a time takes 10 % longer and 16 take 3 %
#: less (ResNet-50, int8, two cores), but padding is computed too, and a camera often has few new crops.
BATCH_SIZE = 4
#: The same on a GPU, which is faster with more.
GPU_BATCH_SIZE = 16

#: What to say for each field of the convention that a file does not state.
_OPTIONS = {
    "color": "--color rgb|bgr",
    "range": "--range 1|255",
    "mean": "--mean X,Y,Z",
    "std": "--std X,Y,Z",
    "height": "--size HEIGHTxWIDTH",
    "width": "--size HEIGHTxWIDTH",
}


class ForeignEmbedder:
    """Prepared pictures, uint8 RGB (B, H, W, 3), to features, float32 (B, dims), by a foreign file.

    Dimensions of the file's output after the first are flattened. `batch_size` is 1 if the file takes one picture.
    """

    def __init__(self, file: Path, opened: OpenedFile, convention: InputConvention, batch_size: int | None) -> None:
        """Compiles the file and runs one gray picture; see `open` for the errors."""
        self.convention = convention
        self.batch_size = opened.input[0] or batch_size or (GPU_BATCH_SIZE if opened.on_gpu else BATCH_SIZE)
        with _naming(file):
            self._infer = opened.start([self.batch_size, 3, convention.height, convention.width])
            gray = np.full((1, convention.height, convention.width, 3), 128, np.uint8)
            self.dims = self(gray).shape[1]

    @classmethod
    def open(
        cls, file: Path, convention: InputConvention, settings: Settings, batch_size: int | None = None
    ) -> "ForeignEmbedder":
        """The embedder in `file`, on the device of `settings`.

        `batch_size`: pictures in one batch, if the file leaves that open. Raises ModelFileError for a file that is no
        picture embedder or takes pictures of another size, CoreError if its engine or device is missing.
        """
        opened = _open(file, settings)
        for side, fixed in _fixed_size(opened).items():
            if fixed != getattr(convention, side):
                raise ModelFileError(
                    f"{file}: takes pictures of {side} {fixed}, and its card says {getattr(convention, side)}"
                )
        return cls(file, opened, convention, batch_size)

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.embed_normalized(normalized(torch.from_numpy(pictures), self.convention).contiguous().numpy())

    def embed_normalized(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The features, float32 (B, dims), of normalized pictures, float32 (B, 3, H, W)."""
        parts = []
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            batch = np.zeros((self.batch_size, *images.shape[1:]), np.float32)
            batch[: len(part)] = part
            found = self._infer(batch)
            if len(found) != self.batch_size:
                raise ValueError(f"{self.batch_size} pictures give an output of shape {found.shape}, not one row each")
            parts.append(found.reshape(self.batch_size, -1)[: len(part)])
        return np.concatenate(parts) if parts else np.empty((0, self.dims), np.float32)


def foreign_card(file: Path, name: str | None, convention: InputConvention | None, settings: Settings) -> ModelCard:
    """The card of a foreign file after a trial; `name` is taken from the file's name if None.

    `convention`: the fields that were set in it count, and its defaults do not. What it leaves out is taken from the
    file's metadata or, for a published file, from the catalog. Raises InputError if a field is stated nowhere,
    ModelFileError and VectorError for a file that is no embedder, CoreError if its engine or device is missing.
    """
    files = foreign_files(file)
    opened = _open(file, settings)
    if opened.outputs != 1:
        raise ModelFileError(
            f"{file}: has {opened.outputs} outputs, and which one is the feature is unknown; export it with that alone"
        )
    embedder = ForeignEmbedder(file, opened, _whole_convention(file, opened, convention), None)
    if not 1 <= embedder.dims <= MAX_DIMS:
        raise ModelFileError(
            f"{file}: not an embedder: its output has {embedder.dims:,} values a picture; a feature has 1 to "
            f"{MAX_DIMS:,} dims"
        )
    with _naming(file):
        try_embedder(embedder, embedder.dims, embedder.convention, str(file))
    return ModelCard(
        name=name or re.sub(r"[^A-Za-z0-9._-]", "-", file.stem)[:64],
        engine="onnx" if engine_of(file) == "onnx" else "openvino",
        architecture="foreign",
        baseline="foreign",
        dims=embedder.dims,
        input=embedder.convention,
        sha256={path.name: sha256_of(path) for path in files},
    )


def foreign_files(file: Path) -> list[Path]:
    """The files of a foreign model: `file`, and an IR's weights or the parts that an ONNX file keeps its tensors in.

    Raises ModelFileError if a part is missing, or is anything but a plain file in the folder of `file`.
    """
    if engine_of(file) == "openvino":
        return [file, weights_of(file)]
    return [file, *(_part(file, location) for location in sorted(_external_locations(file)))]


def model_file(directory: Path, card: ModelCard) -> Path:
    """The file in a foreign model's directory that its engine opens. Raises ModelFileError."""
    suffix = ".xml" if card.engine == "openvino" else ".onnx"
    found = [name for name in card.sha256 if name.lower().endswith(suffix)]
    if len(found) != 1:
        raise ModelFileError(f"{directory}: its card names {len(found)} {suffix} files; it must name one")
    return directory / found[0]


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Turns an engine's error into a ModelFileError that names the file."""
    try:
        yield
    except UrbanReidError:
        raise
    except Exception as error:  # onnxruntime's errors have no narrower base
        reason = " ".join(str(error).split())[:300]
        raise ModelFileError(f"{file}: {engine_of(file)} finds no picture embedder in it: {reason}") from None


def _open(file: Path, settings: Settings) -> OpenedFile:
    """As `open_file`. Raises ModelFileError unless its input is one picture, or any number of them."""
    with _naming(file):
        opened = open_file(file, settings)
        if len(opened.input) != 4 or opened.input[1] != 3 or opened.input[0] not in (1, None):
            raise ValueError(f"its input has the shape {opened.input}, not that of one picture, [1, 3, H, W]")
    return opened


def _fixed_size(opened: OpenedFile) -> dict[str, int]:
    """The height and width that the file fixes."""
    return {side: size for side, size in zip(("height", "width"), opened.input[2:], strict=True) if size is not None}


def _whole_convention(file: Path, opened: OpenedFile, given: InputConvention | None) -> InputConvention:
    """The convention of a file as its caller, its metadata or its publisher state it; a fixed size is the file's."""
    stated: dict[str, Any] = dict(opened.stated)
    if given is not None:
        stated |= given.model_dump(include=given.model_fields_set)
    fixed = _fixed_size(opened)
    if not stated.keys() | fixed.keys() >= _OPTIONS.keys():
        published = published_embedder(file)
        stated = (published.input.model_dump() if published and published.input else {}) | stated
    stated |= fixed
    missing = list(dict.fromkeys(option for field, option in _OPTIONS.items() if field not in stated))
    if missing:
        raise InputError(
            f"{file}: what pictures it takes is not known; give {', '.join(missing)} as it was trained "
            "(in Python, an InputConvention with every field set)"
        )
    try:
        return InputConvention(**stated)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelFileError(f"{file}: its input's {where} {first['input']!r}: {first['msg']}") from None


def _part(file: Path, location: str) -> Path:
    """The part of an ONNX file that its external data names as `location`."""
    part = file.parent / location
    if Path(location).name != location or location in ("", "..", file.name, CARD, WEIGHTS, DIFF_ATTENTION):
        raise ModelFileError(f"{file}: keeps tensors in {location[:80]!r}, which is not another file of its folder")
    if part.is_symlink() or (part.exists() and not part.is_file()):
        raise ModelFileError(f"{file}: keeps tensors in {location[:80]!r}, which is not a plain file; copy it there")
    if not part.is_file():
        raise ModelFileError(f"{file}: its part {location[:80]} is not beside it; an ONNX file may have several parts")
    return part


def _external_locations(file: Path) -> set[str]:
    """Names of the files that an ONNX file keeps tensors in."""
    onnx = load_extra("onnx")
    with _naming(file):
        model = onnx.load(str(file), load_external_data=False)
    found, graphs = set(), [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        tensors = list(getattr(graph, "initializer", ()))
        for sparse in getattr(graph, "sparse_initializer", ()):
            tensors += [sparse.values, sparse.indices]
        for node in graph.node:
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    tensors += [sparse.values, sparse.indices]
                graphs += [attribute.g, *attribute.graphs]
        found |= {
            entry.value
            for tensor in tensors
            if tensor.data_location == onnx.TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        }
    return found
