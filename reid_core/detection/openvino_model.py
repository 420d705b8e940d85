"""Detection networks that OpenVINO reads: IR and ONNX files of a known layout (`layouts`)."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.detection.detector import Found
from reid_core.detection.files import name_of
from reid_core.detection.layouts import Layout, layout_of
from reid_core.serving.engines import openvino_device, weights_of
from reid_core.serving.extras import load_extra, openvino_core
from schemas.errors import ModelFileError, UrbanReidError
from schemas.settings import Settings


class OpenVinoModel:
    """A `DetectionModel`: each picture is a request of its own, so that what is found in it depends on no other one.

    Requests are queued, and where the device has room several run at a time.
    """

    def __init__(self, file: Path, settings: Settings) -> None:
        """Raises ModelFileError for a file that is no detector of a known layout, CoreError without its device."""
        core = openvino_core()
        device = openvino_device(core.available_devices, settings)
        try:
            parts = (str(file), str(weights_of(file))) if file.suffix == ".xml" else (str(file),)
            network = core.read_model(*parts)
            self._layout = _layout(network, file)
            self._compiled = core.compile_model(_of_bytes(network, self._layout), device, _options(device, settings))
        except UrbanReidError:
            raise
        except RuntimeError as error:
            raise ModelFileError(f"{file}: OpenVINO cannot read it: {str(error).strip().splitlines()[-1]}") from None
        self.input, self.sure = self._layout.input, self._layout.sure
        self.name = name_of(file)
        self._found: dict[int, Found] = {}
        self._lock = threading.Lock()
        self._queue = load_extra("openvino").AsyncInferQueue(self._compiled)
        self._queue.set_callback(self._keep)

    def find(self, pictures: NDArray[np.uint8]) -> list[Found]:
        with self._lock:
            return self._find(pictures)

    def _find(self, pictures: NDArray[np.uint8]) -> list[Found]:
        self._found.clear()
        for number in range(len(pictures)):
            self._queue.start_async({0: pictures[number : number + 1]}, number)
        self._queue.wait_all()
        return [self._found[number] for number in range(len(pictures))]

    def _keep(self, request: Any, number: int) -> None:
        self._found[number] = self._layout.decode([output.data for output in request.output_tensors])


def _layout(network: Any, file: Path) -> Layout:
    """The layout of a network, whose batch is fixed at one picture. Raises ModelFileError."""
    shape = _sizes(network.inputs[0].partial_shape)
    if len(network.inputs) == 1 and len(shape) == 4 and shape[0] in (1, -1) and shape[1] == 3 and min(shape[2:]) > 0:
        network.reshape([1, *shape[1:]])
        outputs = [_sizes(output.partial_shape) for output in network.outputs]
        found = layout_of(shape[2], shape[3], outputs, _label_of_people(network))
        if found is not None:
            return found
    outputs = [_sizes(output.partial_shape) for output in network.outputs]
    raise ModelFileError(
        f"{file}: is no detector of a layout that is known here (SSD, boxes and labels, NanoDet, YOLOX); its input is "
        f"{shape} and its outputs are {', '.join(map(str, outputs))}"
    )


def _of_bytes(network: Any, layout: Layout) -> Any:
    """The network with a picture (1, h, w, 3) of bytes as input, which it normalizes itself."""
    openvino = load_extra("openvino")
    preprocessing = openvino.preprocess.PrePostProcessor(network)
    picture = preprocessing.input()
    picture.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    picture.model().set_layout(openvino.Layout("NCHW"))
    picture.preprocess().convert_element_type(openvino.Type.f32).mean(list(layout.mean)).scale(list(layout.std))
    return preprocessing.build()


def _sizes(shape: Any) -> list[int]:
    """The sizes of a tensor, -1 where the file leaves one open."""
    if shape.rank.is_dynamic:
        return []
    return [int(size.get_length()) if size.is_static else -1 for size in shape]


def _label_of_people(network: Any) -> int:
    """The first label that is not the background's: 1 in Open Model Zoo's retail-0013, 0 in its 0200 to 0202."""
    for operation in network.get_ops():
        if operation.get_type_name() == "DetectionOutput":
            return 1 if operation.get_attributes()["background_label_id"] == 0 else 0
    return 1


def _options(device: str, settings: Settings) -> dict[str, Any]:
    """How it is compiled. On a CPU `precision=auto` leaves the choice to OpenVINO, which knows the processor."""
    hint = {"bfloat16": "bf16", "float32": "f32", "auto": None if device == "CPU" else "f32"}[settings.precision]
    return {
        "PERFORMANCE_HINT": "LATENCY",
        **({"INFERENCE_PRECISION_HINT": hint} if hint else {}),
        **({"INFERENCE_NUM_THREADS": settings.threads} if settings.threads and device == "CPU" else {}),
    }
