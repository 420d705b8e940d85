"""Torch models as OpenVINO's: for an export, and for a registered model that OpenVINO computes fastest."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reid_core.files import base_card, load_model, model_digest
from reid_core.serving.extras import load_extra
from schemas.cards import InputConvention, ModelCard
from schemas.errors import HomeError
from schemas.settings import Settings

if TYPE_CHECKING:
    from reid_core.models import ReIDModel

#: For torch.export: any number of pictures.
ANY_BATCH = ({0: torch.export.Dim("batch")},)


def example(convention: InputConvention) -> torch.Tensor:
    """A batch of normalized pictures for torch.export, of two, because a batch size of one counts as a constant."""
    return torch.zeros(2, 3, convention.height, convention.width)


def as_openvino(model: "ReIDModel", convention: InputConvention) -> Any:
    """An openvino.Model of a torch model in eval mode, with an open batch size. Raises CoreError without OpenVINO."""
    openvino = load_extra("openvino")
    program = torch.export.export(model, (example(convention),), dynamic_shapes=ANY_BATCH)
    graph = openvino.convert_model(program)
    graph.reshape([-1, 3, convention.height, convention.width])  # conversion leaves all sizes open
    return graph


def converted(settings: Settings, directory: Path, card: ModelCard) -> Path:
    """The .xml of a torch model's directory in the data directory, made where it is missing.

    It has the digest of the model as its name, so it never is another model's. Raises CoreError without OpenVINO,
    HomeError.
    """
    folder, place = settings.engines_dir, _place(settings, card)
    if place.exists():
        return place
    openvino = load_extra("openvino")
    graph = as_openvino(load_model(directory), card.input)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as made:
            partial = Path(made) / place.name
            openvino.save_model(graph, str(partial), compress_to_fp16=False)
            partial.with_suffix(".bin").replace(place.with_suffix(".bin"))
            partial.replace(place)  # last: a file that is there is whole
    except OSError as error:
        raise HomeError(f"{folder}: cannot keep a converted model there: {error.strerror}") from None
    return place


def forget_converted(settings: Settings, card: ModelCard) -> None:
    """Removes what `converted` made of a model, if it is there."""
    place = _place(settings, card)
    for file in (place, place.with_suffix(".bin")):
        file.unlink(missing_ok=True)


def _place(settings: Settings, card: ModelCard) -> Path:
    return settings.engines_dir / f"{model_digest(base_card(card)).hex()}.xml"
