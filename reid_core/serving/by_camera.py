"""Features of a data set by methods that look at the camera of a picture: CBN and TransReID.

Everywhere else, in the city and in other engines, such a model takes each camera for unknown: CBN with the running
statistics of training, TransReID with the mean of its cameras' embeddings (docs/decisions/cameras-in-models.md).
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.swa_utils import update_bn

from reid_core.backbones.jigsaw import Jigsaw
from reid_core.files import load_model, read_card
from reid_core.models import ReIDModel
from reid_core.preprocessing import normalized
from reid_core.serving.devices import choose_device
from reid_core.serving.local import LocalCore, TorchEmbedder
from schemas.cards import InputConvention
from schemas.settings import Settings

#: CBN: pictures at a time when a camera's statistics are estimated, and how many in all (published code: 50 x 64).
BATCH = 64
MOST = 50 * BATCH
#: Below this, statistics would be those of a few people, and take away what tells them from others.
FEWEST = 32


def core_of_camera(settings: Settings, directory: Path, camera: int, pictures: NDArray[np.uint8]) -> LocalCore:
    """A core that embeds as for this camera of a data set.

    `directory`: of a CBN or TransReID model. `pictures`: prepared, of this camera, without labels; uint8 RGB (N, H, W,
    3). CBN's statistics are estimated from them, in batches, as its paper does; with fewer than `FEWEST` they stay
    those of training. A camera that TransReID was not trained on stays unknown.
    """
    card = read_card(directory)
    model = load_model(directory)
    if card.baseline == "cbn":
        if len(pictures) >= FEWEST:
            _estimate(model, pictures, card.input, choose_device(settings))
    elif camera in card.cameras:
        assert isinstance(model.backbone, Jigsaw)
        model.backbone.only(card.cameras.index(camera))
    embedder = TorchEmbedder(model, card, settings)
    return LocalCore(card, embedder, None, batch_size=embedder.batch_size)


def _estimate(model: ReIDModel, pictures: NDArray[np.uint8], convention: InputConvention, device: torch.device) -> None:
    """Gives every BatchNorm the mean statistics of batches of these pictures."""
    chosen = np.linspace(0, len(pictures) - 1, min(len(pictures), MOST)).astype(np.int64)
    batches = np.array_split(chosen, -(-len(chosen) // BATCH))  # no batch is left with a single picture
    model.to(device)
    with torch.no_grad():
        update_bn((normalized(torch.from_numpy(pictures[rows]).to(device), convention) for rows in batches), model)
