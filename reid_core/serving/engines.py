"""The engines of foreign files, OpenVINO and ONNX Runtime: which device they run on, and what a file states.

| `URBAN_REID_DEVICE` | OpenVINO (.xml)                  | ONNX Runtime (.onnx)                        |
|---------------------|----------------------------------|---------------------------------------------|
| auto                | CPU                              | CUDA, otherwise TensorRT, otherwise CPU     |
| cpu                 | CPU                              | CPU                                         |
| cuda                | NVIDIA or GPU, otherwise refused | CUDA, otherwise TensorRT, otherwise refused |

OpenVINO's devices GPU (Intel) and NVIDIA (a plugin of its own) compute in float32 here.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.serving.extras import load_extra, openvino_core
from reid_core.tensors import refuse_pickles
from schemas.errors import CoreError, ModelFileError
from schemas.settings import Settings

#: One input tensor, float32 (B, 3, H, W), to the file's first output, float32.
Inference = Callable[[NDArray[np.float32]], NDArray[np.float32]]

#: Sizes of a file's input, batch first; None where the file leaves one open.
Shape = list[int | None]

#: Metadata of a file exported here. IR: where it states the precision that it was checked at, and its input convention.
RT_PRECISION = ["urban_reid", "precision"]
RT_INPUT = ["urban_reid", "input"]
#: ONNX: the key of its input convention.
ONNX_INPUT = "urban_reid.input"

#: ONNX Runtime's providers that run on an NVIDIA GPU, the preferred one first: TensorRT builds its engine for minutes.
_GPU_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


@dataclass(frozen=True)
class OpenedFile:
    """A file that its engine has read.

    input: sizes of its first input. outputs: how many it has. stated: the input convention in its metadata, by field of
    InputConvention; empty if it states none. on_gpu: whether it runs on a GPU. start: compiles it for one input shape.
    """

    input: Shape
    outputs: int
    stated: Mapping[str, Any]
    on_gpu: bool
    start: Callable[[list[int]], Inference]


def engine_of(file: Path) -> str:
    """openvino or onnx, by the file's extension in any case. Raises ModelFileError, for a pickle with its own line."""
    refuse_pickles(file)
    engine = {".xml": "openvino", ".onnx": "onnx"}.get(file.suffix.lower())
    if engine is None:
        raise ModelFileError(f"{file}: not a model file; give a model directory, an OpenVINO .xml or an .onnx file")
    return engine


def weights_of(file: Path) -> Path:
    """The .bin of an OpenVINO .xml, whatever the case of the two extensions. Raises ModelFileError if there is none."""
    exact = file.with_suffix(".bin")
    if exact.is_file():
        return exact
    for beside in sorted(file.parent.iterdir()):
        if beside.stem == file.stem and beside.suffix.lower() == ".bin" and beside.is_file():
            return beside
    raise ModelFileError(f"{file}: its weights {exact.name} are not beside it; an IR is an .xml and a .bin file")


def open_file(file: Path, settings: Settings) -> OpenedFile:
    """Reads a file with its engine. Raises CoreError if engine or device are missing, and the engine's own errors."""
    return {"openvino": _open_openvino, "onnx": _open_onnx}[engine_of(file)](file, settings)


def _stated_input(text: str) -> dict[str, Any]:
    """The input convention in a file's metadata, by field. Raises ValueError if it is not a JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"its metadata state an input that is not a JSON object: {text[:60]!r}")
    return found


def _open_openvino(file: Path, settings: Settings) -> OpenedFile:
    core = openvino_core()
    model = core.read_model(str(file), str(weights_of(file)))
    device = openvino_device(core.available_devices, settings)
    precision = model.get_rt_info(RT_PRECISION).value if model.has_rt_info(RT_PRECISION) else None
    stated = _stated_input(model.get_rt_info(RT_INPUT).value) if model.has_rt_info(RT_INPUT) else {}
    if settings.precision == "auto" and precision:
        bfloat16 = precision == "bf16"
    else:
        import torch

        from reid_core.serving.devices import use_bfloat16

        bfloat16 = use_bfloat16(settings, torch.device("cpu"))
    on_cpu = device == "CPU"
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 and on_cpu else "f32",
        **({"INFERENCE_NUM_THREADS": settings.threads} if settings.threads and on_cpu else {}),
    }

    def start(shape: list[int]) -> Inference:
        model.reshape(shape)
        request = core.compile_model(model, device, options).create_infer_request()

        def infer(images: NDArray[np.float32]) -> NDArray[np.float32]:
            request.infer({0: images})
            return np.array(request.get_output_tensor(0).data, np.float32)

        return infer

    sizes = [int(size.get_length()) if size.is_static else None for size in model.inputs[0].get_partial_shape()]
    return OpenedFile(sizes, len(model.outputs), stated, not on_cpu, start)


def openvino_device(available: Sequence[str], settings: Settings) -> str:
    """The device to use of `available`, such as CPU and GPU.0. Raises CoreError if cuda is asked for without a GPU."""
    if settings.device != "cuda":
        return "CPU"
    for kind in ("NVIDIA", "GPU"):
        for name in available:
            if name.split(".")[0] == kind:
                return name
    raise CoreError(
        f"URBAN_REID_DEVICE=cuda, but OpenVINO finds no GPU here, only {', '.join(available)}; set it to auto or cpu"
    )


def _open_onnx(file: Path, settings: Settings) -> OpenedFile:
    runtime = load_extra("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = 4
    providers = onnx_providers(runtime.get_available_providers(), settings)
    with redirect_stdout(sys.stderr):  # where ONNX Runtime reports a provider that does not start
        session = runtime.InferenceSession(str(file), options, providers=providers)
    on_gpu = session.get_providers()[0] in _GPU_PROVIDERS
    if settings.device == "cuda" and not on_gpu:
        raise CoreError(
            "URBAN_REID_DEVICE=cuda, but ONNX Runtime's CUDA provider does not start here; check the driver and the "
            "CUDA libraries that this onnxruntime needs, or set it to auto or cpu"
        )
    source = session.get_inputs()[0]

    def start(shape: list[int]) -> Inference:
        return lambda images: np.asarray(session.run(None, {source.name: images})[0], np.float32)

    stated = _stated_input(session.get_modelmeta().custom_metadata_map.get(ONNX_INPUT, "{}"))
    sizes = [size if isinstance(size, int) else None for size in source.shape]
    return OpenedFile(sizes, len(session.get_outputs()), stated, on_gpu, start)


def onnx_providers(available: Sequence[str], settings: Settings) -> list[str | tuple[str, dict[str, str]]]:
    """The providers to use of `available`, in order. Raises CoreError if cuda is asked for and no provider has it."""
    cpu = "CPUExecutionProvider"
    if settings.device == "cpu":
        return [cpu]
    gpu = next((name for name in _GPU_PROVIDERS if name in available), None)
    if gpu is None and settings.device == "cuda":
        raise CoreError(
            f"URBAN_REID_DEVICE=cuda, but this ONNX Runtime has no CUDA provider, only {', '.join(available)}; install "
            "onnxruntime-gpu in place of onnxruntime, or set it to auto or cpu"
        )
    if gpu is None:
        return [cpu]
    exact = {"use_tf32": "0"} if gpu == "CUDAExecutionProvider" and settings.precision != "bfloat16" else {}
    return [(gpu, exact), cpu]
