"""A network for attributes of people, by OpenVINO: Open Model Zoo's person-attributes-recognition-crossroad-0230.

Its first output is whether the person is a man. That is never read: nothing here keeps, returns or searches by sex or
age.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.attributes.colors import color_name
from reid_core.catalog import find_model
from reid_core.preprocessing import normalized, prepare
from reid_core.serving.engines import openvino_device, weights_of
from reid_core.serving.extras import openvino_core
from schemas.arrays import Floats
from schemas.attributes import NAMES
from schemas.cards import InputConvention
from schemas.errors import CoreError, ModelFileError, UrbanReidError, UsageError
from schemas.settings import Settings

#: The models of the catalog whose outputs are known here.
OPENABLE = ("person-attributes-recognition-crossroad-0230",)
_DROPPED = 1  # outputs before them: male


@dataclass(frozen=True)
class PersonAttributes:
    """Attributes of one picture. `probabilities`: of each of NAMES, 0..1. `top`, `bottom`: colors by name."""

    probabilities: Mapping[str, float]
    top: str
    bottom: str


class AttributeRecognizer:
    """Recognizes attributes. Safe to call from several threads, which then wait for each other.

    Each picture is computed by itself, so what is found in it depends on no other one.
    """

    def __init__(self, file: Path, convention: InputConvention, settings: Settings) -> None:
        """NAMES are the network's output after the one that is dropped, in its order.

        Raises ModelFileError for a file that is no such network, CoreError without its engine or device."""
        core = openvino_core()
        device = openvino_device(core.available_devices, settings)
        hint = "bf16" if settings.precision == "bfloat16" and device == "CPU" else "f32"
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        if settings.threads and device == "CPU":
            options["INFERENCE_NUM_THREADS"] = settings.threads
        try:
            network = core.read_model(str(file), str(weights_of(file)))
            network.reshape([1, 3, convention.height, convention.width])
            sizes = [int(np.prod(list(output.shape))) for output in network.outputs]
            if sizes != [_DROPPED + len(NAMES), 2, 2]:
                raise ModelFileError(
                    f"{file}: is no network for attributes that is known here; its outputs have {sizes} values, and "
                    f"{[_DROPPED + len(NAMES), 2, 2]} are expected"
                )
            self._request = core.compile_model(network, device, options).create_infer_request()
        except UrbanReidError:
            raise
        except RuntimeError as error:
            raise ModelFileError(f"{file}: OpenVINO cannot read it: {str(error).strip().splitlines()[-1]}") from None
        self.name = file.stem
        self._convention, self._lock = convention, threading.Lock()

    def recognize(self, pictures: Sequence[NDArray[np.uint8]]) -> list[PersonAttributes]:
        """The attributes of each picture of a person, uint8 RGB (h, w, 3). Raises CoreError."""
        return [self._recognize(picture) for picture in pictures]

    def _recognize(self, picture: NDArray[np.uint8]) -> PersonAttributes:
        import torch

        prepared = prepare(picture, self._convention)
        image = normalized(torch.from_numpy(prepared[None]), self._convention).numpy()
        with self._lock:
            try:
                self._request.infer({0: image})
            except RuntimeError as error:
                raise CoreError(f"the network for attributes failed: {str(error).strip().splitlines()[-1]}") from None
            found, top, bottom = (_values(self._request, number) for number in range(3))
        kept = np.clip(found[_DROPPED:], 0.0, 1.0).tolist()
        return PersonAttributes(
            dict(zip(NAMES, kept, strict=True)), color_name(picture, *top), color_name(picture, *bottom)
        )


def _values(request: Any, output: int) -> Floats:
    return np.array(request.get_output_tensor(output).data, np.float64).reshape(-1)


def attribute_models(settings: Settings) -> list[str]:
    """The models for attributes of this home."""
    place = settings.attributes_dir
    return sorted(folder.name for folder in place.glob("[!.]*/")) if place.is_dir() else []


def open_attributes(settings: Settings, name: str | None = None) -> AttributeRecognizer:
    """The model for attributes of this home with this name; None: its only one. Raises UsageError, ModelFileError."""
    there = attribute_models(settings)
    if name is None and len(there) == 1:
        name = there[0]
    if name not in there:
        what = f"no model for attributes {name or ''} in this home".replace("  ", " ")
        if there:
            raise UsageError(f"{what}, which has {', '.join(there)}")
        raise UsageError(what, do=f"`urban-reid models get {OPENABLE[0]}` brings one here")
    convention = find_model(name).input
    assert convention is not None, name
    return AttributeRecognizer(settings.attributes_dir / name / f"{name}.xml", convention, settings)
