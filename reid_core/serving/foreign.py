"""Embedders in files of their own: an OpenVINO IR (.xml and .bin) or an ONNX file, exported here or made elsewhere.

A file that takes one picture gets one at a time; a file that takes any number gets them in padded batches of one size.
Either way no feature depends on another picture.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_core.preprocessing import normalized
from reid_core.serving.devices import use_bfloat16
from reid_core.serving.engines import load_engine
from reid_core.tensors import refuse_pickles, sha256_of
from schemas.cards import InputConvention, ModelCard
from schemas.errors import CoreError, ModelFileError
from schemas.settings import Settings

#: What a foreign engine computes for one input tensor, float32 (B, 3, H, W): its first output.
Inference = Callable[[NDArray[np.float32]], NDArray[np.float32]]

#: Sizes of a file's input, batch first; None where the file leaves one open.
Shape = list[int | None]

#: Pictures in one padded batch, where the file leaves the batch open. One at a time takes 10 % longer and 16 take 3 %
#: less (ResNet-50, int8, two cores), but what is padded is computed too, and a camera often has few new crops.
BATCH_SIZE = 4

#: Where an IR exported here says at which precision it was checked: there it runs, unless the settings say otherwise.
RT_INFO = ["urban_reid", "precision"]


class ForeignEmbedder:
    """The features, float32 (B, D), of prepared pictures; whatever trails behind D in the file's output is flattened.

    `convention` is the one given, with the height and width that the file fixes. `batch_size` is 1 where the file takes
    one picture.
    """

    def __init__(
        self, file: Path, convention: InputConvention, settings: Settings, batch_size: int = BATCH_SIZE
    ) -> None:
        """Raises ModelFileError for a file that is no picture embedder, and CoreError without its engine."""
        engine = engine_of(file)
        try:
            shape, start = _ENGINES[engine](file, settings)
            batch, channels, height, width = shape if len(shape) == 4 else [0] * 4
            if channels != 3 or batch not in (1, None):
                raise ValueError(f"its input has the shape {shape}, not that of one picture, [1, 3, H, W]")
            fixed = {side: size for side, size in (("height", height), ("width", width)) if size}
            self.convention = InputConvention(**{**convention.model_dump(), **fixed})
            self.batch_size = batch or batch_size
            self._infer = start([self.batch_size, 3, self.convention.height, self.convention.width])
            gray = np.full((1, self.convention.height, self.convention.width, 3), 128, np.uint8)
            self.dims = self(gray).shape[1]
        except CoreError:
            raise
        except Exception as error:  # onnxruntime's derive from nothing narrower
            reason = " ".join(str(error).split())[:300]
            raise ModelFileError(f"{file}: {engine} finds no picture embedder in it: {reason}") from None

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.embed_normalized(normalized(torch.from_numpy(pictures), self.convention).contiguous().numpy())

    def embed_normalized(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The features, float32 (B, D), of normalized pictures, float32 (B, 3, H, W)."""
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


def foreign_files(file: Path) -> list[Path]:
    """The files that belong to a foreign model: the file itself, and an IR's weights. Raises ModelFileError."""
    if engine_of(file) == "onnx":
        return [file]
    weights = file.with_suffix(".bin")
    if not weights.is_file():
        raise ModelFileError(f"{file}: its weights {weights.name} are not beside it; an IR is an .xml and a .bin")
    return [file, weights]


def foreign_card(file: Path, name: str, convention: InputConvention, settings: Settings) -> ModelCard:
    """The card of a foreign model; its dims come from running one gray picture. Raises ModelFileError and CoreError."""
    files = foreign_files(file)
    embedder = ForeignEmbedder(file, convention, settings)
    return ModelCard(
        name=name,
        engine="onnx" if engine_of(file) == "onnx" else "openvino",
        architecture="foreign",
        baseline="foreign",
        dims=embedder.dims,
        input=embedder.convention,
        sha256={path.name: sha256_of(path) for path in files},
    )


def model_file(directory: Path, card: ModelCard) -> Path:
    """The file in a foreign model's directory that its engine opens."""
    suffix = ".xml" if card.engine == "openvino" else ".onnx"
    found = [name for name in card.sha256 if name.endswith(suffix)]
    if len(found) != 1:
        raise ModelFileError(f"{directory}: its card names {len(found)} {suffix} files; needed is one")
    return foreign_files(directory / found[0])[0]


def engine_of(file: Path) -> str:
    """openvino or onnx, by the file's ending. Raises ModelFileError, for a pickle with a line of its own."""
    refuse_pickles(file)
    engine = {".xml": "openvino", ".onnx": "onnx"}.get(file.suffix.lower())
    if engine is None:
        raise ModelFileError(f"{file}: not a model file; give a model directory, an OpenVINO .xml or an .onnx file")
    return engine


def _openvino(file: Path, settings: Settings) -> tuple[Shape, Callable[[list[int]], Inference]]:
    openvino = load_engine("openvino")
    model = openvino.Core().read_model(str(file))
    stated = model.get_rt_info(RT_INFO).value if model.has_rt_info(RT_INFO) else None
    if settings.precision == "auto" and stated:
        bfloat16 = stated == "bf16"
    else:
        bfloat16 = use_bfloat16(settings, torch.device("cpu"))
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        **({"INFERENCE_NUM_THREADS": settings.threads} if settings.threads else {}),
    }

    def start(shape: list[int]) -> Inference:
        model.reshape(shape)
        request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

        def infer(images: NDArray[np.float32]) -> NDArray[np.float32]:
            request.infer({0: images})
            return np.array(request.get_output_tensor(0).data, np.float32)

        return infer

    return [int(size.get_length()) if size.is_static else None for size in model.inputs[0].get_partial_shape()], start


def _onnx(file: Path, settings: Settings) -> tuple[Shape, Callable[[list[int]], Inference]]:
    runtime = load_engine("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = 4
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]

    def start(shape: list[int]) -> Inference:
        return lambda images: np.asarray(session.run(None, {source.name: images})[0], np.float32)

    return [size if isinstance(size, int) else None for size in source.shape], start


_ENGINES = {"openvino": _openvino, "onnx": _onnx}
