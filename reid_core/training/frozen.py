"""A foreign embedder with a diff attention module on top, for separate training."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reid_core.diff_attention import DiffAttention
from reid_core.files import DIFF_ATTENTION, write_card
from reid_core.heads import Features
from reid_core.serving.foreign import ForeignEmbedder, model_file
from reid_core.tensors import sha256_of, write_tensors
from schemas.cards import DiffAttentionSettings, ModelCard, ModelConfig
from schemas.settings import Settings


class FrozenEmbedder(nn.Module):
    """The embedder of a foreign model's directory, which is not trained, and a fresh diff attention module.

    Only the module has parameters, so a checkpoint is small.
    """

    def __init__(self, directory: Path, card: ModelCard, settings: Settings, attention: DiffAttentionSettings) -> None:
        """`card`: the card of `directory`. Raises ModelFileError and CoreError."""
        super().__init__()
        self._directory, self._card = directory, card
        self._embedder = ForeignEmbedder.open(model_file(directory, card), card.input, settings)
        self.dims = card.dims
        self.diff_attention = DiffAttention(card.dims, attention)

    @property
    def config(self) -> ModelConfig:
        kept = {name: getattr(self._card, name) for name in ModelConfig.model_fields}
        return ModelConfig(**{**kept, "diff_attention": self.diff_attention.settings})

    @property
    def files(self) -> dict[str, str]:
        """Hex SHA-256 of the embedder's files, by name."""
        return {name: digest for name, digest in self._card.sha256.items() if name != DIFF_ATTENTION}

    def features(self, images: Tensor) -> Features:
        """Features of normalized pictures (B, 3, H, W). It has no BNNeck: pre-BN and post-BN features are equal."""
        found = torch.from_numpy(self._embedder.embed_normalized(images.cpu().numpy())).to(images.device)
        return Features(found, found, None)

    def save(
        self, directory: Path, *, name: str, trained_on: str, metrics: Mapping[str, float], details: Mapping[str, Any]
    ) -> ModelCard:
        """Copies the embedder's files into `directory`, writes the module and the card, and returns the card."""
        directory.mkdir(parents=True, exist_ok=True)
        hashes = {}
        for file in self.files:
            shutil.copyfile(self._directory / file, directory / file)
            hashes[file] = sha256_of(directory / file)
        data = write_tensors(self.diff_attention, directory / DIFF_ATTENTION)
        card = self._card.model_copy(
            update={
                "name": name,
                "diff_attention": self.diff_attention.settings,
                "strategy": "separate",
                "trained_on": trained_on,
                "metrics": dict(metrics),
                "calibration": (),
                "sha256": {**hashes, DIFF_ATTENTION: hashlib.sha256(data).hexdigest()},
                "details": dict(details),
            }
        )
        write_card(card, directory)
        return card
