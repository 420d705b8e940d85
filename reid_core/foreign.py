"""Embedders made elsewhere: an OpenVINO IR (.xml and .bin) or an ONNX file, with its input convention.

Pictures go through one at a time: on a processor that is as fast as a batch, and no feature can depend on another.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_core.devices import use_bfloat16
from reid_core.files import refuse_pickles, sha256_of
from reid_core.pictures import normalized
from schemas.cards import InputConvention, ModelCard
from schemas.errors import CoreError, ModelFileError
from schemas.settings import Settings

#: What a foreign engine computes for one input tensor, float32 (1, 3, H, W).
Inference = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class ForeignEmbedder:
    """The features, float32 (B, D), of prepared pictures; whatever trails behind D in the file's output is flattened.

    `convention` is the one given, with the height and width that the file fixes.
    """

    def __init__(self, file: Path, convention: InputConvention, settings: Settings) -> None:
        """Raises ModelFileError for a file that is no picture embedder, and CoreError without its engine."""
        engine = engine_of(file)
        try:
            self._infer, shape = _ENGINES[engine](file, settings)
            batch, channels, height, width = shape if len(shape) == 4 else [0] * 4
            if channels != 3 or batch not in (1, None):
                raise ValueError(f"its input has the shape {shape}, not that of one picture, [1, 3, H, W]")
            fixed = {side: size for side, size in (("height", height), ("width", width)) if size}
            self.convention = InputConvention(**{**convention.model_dump(), **fixed})
            grey = np.full((1, self.convention.height, self.convention.width, 3), 128, np.uint8)
            self.dims = self(grey).shape[1]
        except CoreError:
            raise
        except Exception as error:  # onnxruntime's derive from nothing narrower
            reason = " ".join(str(error).split())[:300]
            raise ModelFileError(f"{file}: {engine} finds no picture embedder in it: {reason}") from None

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = normalized(torch.from_numpy(pictures), self.convention).contiguous().numpy()
        return np.stack([self._infer(images[row : row + 1]).reshape(-1) for row in range(len(images))])


def foreign_files(file: Path) -> list[Path]:
    """The files that belong to a foreign model: the file itself, and an IR's weights. Raises ModelFileError."""
    if engine_of(file) == "onnx":
        return [file]
    weights = file.with_suffix(".bin")
    if not weights.is_file():
        raise ModelFileError(f"{file}: its weights {weights.name} are not beside it; an IR is an .xml and a .bin")
    return [file, weights]


def foreign_card(file: Path, name: str, convention: InputConvention, settings: Settings) -> ModelCard:
    """The card of a foreign model; its dims come from running one grey picture. Raises ModelFileError and CoreError."""
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


def _openvino(file: Path, settings: Settings) -> tuple[Inference, list[int | None]]:
    openvino = _engine("openvino")
    bfloat16 = use_bfloat16(settings, torch.device("cpu"))
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        **({"INFERENCE_NUM_THREADS": settings.threads} if settings.threads else {}),
    }
    model = openvino.Core().read_model(str(file))
    shape = [int(size.get_length()) if size.is_static else None for size in model.inputs[0].get_partial_shape()]
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def infer(image: NDArray[np.float32]) -> NDArray[np.float32]:
        request.infer({0: image})
        return np.array(request.get_output_tensor(0).data, np.float32)

    return infer, shape


def _onnx(file: Path, settings: Settings) -> tuple[Inference, list[int | None]]:
    runtime = _engine("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = 4
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else None for size in source.shape]

    def infer(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {source.name: image})[0], np.float32)

    return infer, shape


_ENGINES = {"openvino": _openvino, "onnx": _onnx}


def _engine(module: str, extra: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        extra = extra or module
        raise CoreError(f"this model needs {module}: pip install 'urban-reid[{extra}]'") from None
