"""Torchvision's detection networks by their published weights."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.detection.detector import Found, PictureInput
from reid_core.detection.files import name_of
from schemas.errors import ModelFileError
from schemas.settings import Settings


class TorchvisionModel:
    """A torchvision detector, trained on COCO, where label 1 is a person. Runs on the device of the settings.

    The file is a pickle, so it is read with weights_only=True, and only if its SHA-256 begins with the eight digits at
    the end of its name, as torchvision publishes it.
    """

    sure = 0.6
    least = 0.2
    #: Larger frames are shrunk, as the networks themselves shrink a frame to 320 or about 800 rows.
    input = PictureInput(1080, 1920, "within")

    def __init__(self, file: Path, settings: Settings) -> None:
        import torch
        from torchvision.models import detection, get_model, list_models

        from reid_core.serving.devices import choose_device

        name = re.fullmatch(r"([a-z0-9_]+)_coco-([0-9a-f]{8})", file.stem)
        models = [model for model in list_models(module=detection) if not model.startswith("keypoint")]
        if name is None or name[1] not in models:
            raise ModelFileError(
                f"{file}: name it as torchvision does, MODEL_coco-HASH.pth; MODEL is one of {', '.join(models)}"
            )
        if hashlib.sha256(file.read_bytes()).hexdigest()[:8] != name[2]:
            raise ModelFileError(f"{file}: its SHA-256 does not begin with {name[2]}; download it again")
        self._torch, self.name = torch, name_of(file)
        self._device = choose_device(settings)
        self._model = get_model(name[1], weights=None, weights_backbone=None, num_classes=91).eval()
        try:
            self._model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:  # whatever a damaged pickle raises: the fault is always in this file
            raise ModelFileError(f"{file}: does not fit {name[1]}: {str(error).splitlines()[0][:200]}") from None
        self._model.to(self._device)

    def find(self, pictures: NDArray[np.uint8]) -> list[Found]:
        return [self._find(picture) for picture in pictures]  # together they are padded to one size

    def _find(self, picture: NDArray[np.uint8]) -> Found:
        image = np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1))
        with self._torch.inference_mode():
            tensor = self._torch.from_numpy(image).to(self._device).float() / 255
            found: dict[str, Any] = {name: value.cpu() for name, value in self._model([tensor])[0].items()}
        person = (found["labels"] == 1) & (found["scores"] >= self.least)
        corners = found["boxes"][person].double().numpy() / np.tile(picture.shape[1::-1], 2)
        return np.column_stack([corners, found["scores"][person].double().numpy()])
