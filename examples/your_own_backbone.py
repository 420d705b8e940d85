"""Register a backbone of your own, train it, evaluate it, and open the model that comes out.

    python examples/your_own_backbone.py

A backbone is a torch module that turns normalized pictures (B, 3, H, W) into a feature map (B, dims, h, w). Once it has
a name, it works wherever a built-in one does: pooling, BNNeck, losses, diff attention, evaluation and export are the
library's. For the commands (`urban-reid train --architecture tiny`), name it as an entry point of your package, as the
docstring of `register_backbone` says.
"""

import tempfile
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

import reid_core
from reid_core.training.plans import TrainSettings
from reid_core.training.recipe import Recipe, make_model
from schemas.cards import ModelConfig
from schemas.settings import settings


@reid_core.register_backbone("tiny")
class Tiny(nn.Module):
    """Four convolutions, each halving the picture's sides: (B, 3, H, W) to (B, 64, H/16, W/16)."""

    dims = 64

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        channels = (3, 16, 32, 64, 64)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
                for before, after in pairwise(channels)
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


# Drawn people: the first half to train on, the second half, whom training never sees, as query and gallery.
people = reid_core.open_dataset("rendered:41:32")
size = reid_core.InputConvention(height=64, width=32)
train, query, gallery = (people.load(split, size) for split in ("train", "query", "gallery"))

# A few epochs of plain training, to show that it learns. A real run has the paper's settings, which are the defaults of
# TrainSettings, and hundreds of people.
plan = TrainSettings(
    strategy="plain",
    triplet_distance="test",
    epochs=15,
    learning_rate=3e-3,
    warmup=0,
    identities_per_batch=8,
    validate_every=15,
)
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    config = ModelConfig(architecture="tiny", input=size)
    card, epochs = make_model(
        Recipe(config, (plan,)), train, (query, gallery), folder / "work", folder / "model", settings(), name="mine"
    )
    for number, epoch in enumerate(epochs, 1):
        print(f"epoch {number}: " + ", ".join(f"{loss} {value:.2f}" for loss, value in epoch.losses.items()))

    # The folder holds weights and a card; whoever opens it needs the backbone registered under the same name.
    model = reid_core.open_model(folder / "model")
    print(model)
    print(reid_core.evaluate(model, people)["plain"])
