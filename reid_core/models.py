"""The Re-ID models: a method's network, with or without diff attention (paper, 'Baselines'; `training.methods`).

| baseline  | last stride | pooling                           | neck                                       |
|-----------|-------------|-----------------------------------|--------------------------------------------|
| bagtricks | 1           | global average                    | BNNeck                                     |
| agw       | 1           | generalized mean, learnable p     | BNNeck; non-local blocks in layer2, layer3 |
| cbn       | 1           | global average                    | BNNeck; batches normalized camera by camera |
| trinet    | 2           | global average                    | two layers to 128 dims, no classes         |
| pcb       | 1           | average of 6 stripes              | a reduction to 256 dims for each           |
| mgn       | 2, 1, 1     | maximum; 3 branches, 2 + 3 stripes | a reduction to 256 dims for each of 8      |
| transreid | none        | class tokens: whole and 4 groups  | a BNNeck for each of 5                     |

Only ResNets have the non-local blocks. On another backbone that returns feature maps, AGW is the generalized mean, and
the weighted triplet in training. On a backbone that pools by itself nothing of AGW or of stripes would remain: that is
an error. MGN's branches are a ResNet's, TransReID's tokens those of a transformer of timm.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reid_core.backbones import build_backbone
from reid_core.backbones.weights import load_weights
from reid_core.diff_attention import DiffAttention
from reid_core.heads import BNNeck, Embedding, Features, GeM, GlobalAverage, PartNecks, Reductions, Stripes
from schemas.cards import ModelConfig
from schemas.errors import CoreError, UsageError

#: PCB: horizontal stripes (Sun et al., ECCV 2018).
STRIPES = 6
#: CBN: pictures of a camera in a batch, below which they are normalized together with those of other such cameras.
FEWEST = 4


#: What a method has behind the pooling.
Neck = BNNeck | Embedding | PartNecks | Reductions


class ReIDModel(nn.Module):
    """Backbone, pooling, neck, and the diff attention module if `config` has one."""

    def __init__(
        self,
        config: ModelConfig,
        num_classes: int | None = None,
        pretrained: Path | Literal["imagenet"] | None = None,
    ) -> None:
        """`num_classes`: classes of the classifiers, which training needs; None: no classifier.

        `pretrained`: see `build_model`. Raises UsageError for an architecture, input or baseline that does not work,
        CoreError for a foreign embedder.
        """
        super().__init__()
        if config.baseline == "foreign":
            raise CoreError("a foreign embedder is a file, not a network that can be built")
        self._config = ModelConfig(**{name: getattr(config, name) for name in ModelConfig.model_fields})
        size = (config.input.height, config.input.width)
        self.backbone = build_backbone(
            config.architecture,
            non_local_channels=config.non_local_channels if config.baseline == "agw" else None,
            size=size,
            last_stride=2 if config.baseline == "trinet" else 1,
        )
        if config.baseline in ("agw", "pcb") and self.backbone.pooled:
            left = {"agw": "AGW", "pcb": "PCB"}[config.baseline]
            raise UsageError(
                f"{config.architecture} pools by itself, so that nothing of {left} remains: take bagtricks"
            )
        if pretrained is not None:
            load_weights(self.backbone, config.architecture, pretrained, size)
        self.pool, self.neck = self._pool_and_neck(num_classes)
        self.dims: int = self.neck.dims
        self.diff_attention = None if config.diff_attention is None else DiffAttention(self.dims, config.diff_attention)

    def _pool_and_neck(self, classes: int | None) -> tuple[nn.Module, Neck]:
        """The pooling and the neck of the method, whose branches the backbone gets where it has some."""
        config = self._config
        width: int = self.backbone.dims  # type: ignore[assignment]
        match config.baseline:
            case "trinet":
                return GlobalAverage(), Embedding(width)
            case "pcb":
                return Stripes(STRIPES), Reductions(width, classes, (1.0,) * STRIPES, (1.0,) * STRIPES)
            case "mgn":
                from reid_core.backbones.granularities import BRANCHES, PARTS, Granularities

                self.backbone = Granularities(self.backbone, config.architecture)
                whole = len(BRANCHES)  # only features of whole pictures have a triplet loss
                triplets = (1 / whole,) * whole + (0.0,) * (PARTS - whole)
                return GlobalAverage(), Reductions(width, classes, (1 / PARTS,) * PARTS, triplets, unreduced=whole)
            case "transreid":
                from reid_core.backbones.jigsaw import GROUPS, Jigsaw

                self.backbone = Jigsaw(self.backbone, config.architecture, len(config.cameras))
                return GlobalAverage(), PartNecks(width, classes, (1.0,) + (1 / GROUPS,) * GROUPS)
        return GeM() if config.baseline == "agw" else GlobalAverage(), BNNeck(width, classes)

    @property
    def config(self) -> ModelConfig:
        """The configuration to build this model again, with the diff attention module that it has now."""
        attention = None if self.diff_attention is None else self.diff_attention.settings
        return self._config.model_copy(update={"diff_attention": attention})

    @property
    def looks_at_cameras(self) -> bool:
        """Whether `features` uses its argument `cameras`."""
        return self._config.baseline in ("cbn", "transreid")

    def camera_rows(self, cameras: NDArray[np.int64]) -> NDArray[np.int64]:
        """What `features` takes for pictures of these cameras (n,), which are numbers of a data set."""
        known = list(self._config.cameras)
        if self._config.baseline == "cbn":
            return np.unique(cameras, return_inverse=True)[1]
        return np.array([known.index(camera) if camera in known else -1 for camera in cameras.tolist()], np.int64)

    def normalize_batches(self) -> None:
        """CBN: BatchNorm goes on with each batch's statistics, as in training, and leaves the running ones alone."""
        if self._config.baseline == "cbn":
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train()
                    module.momentum = 0.0

    def features(self, images: Tensor, cameras: Tensor | None = None) -> Features:
        """Features of normalized pictures (B, 3, H, W). Pooling and neck always compute in float32.

        `cameras` (B,) integer, for the methods that look at them: rows of `config.cameras`, -1 for an unknown camera;
        None: all are unknown. CBN normalizes the pictures of each camera by themselves, where BatchNorm is training.
        """
        if cameras is not None and self._config.baseline == "cbn":
            return self._by_camera(images, cameras)
        known = () if cameras is None or self._config.baseline != "transreid" else (cameras,)
        features: Features = self.neck(self.pool(self.backbone(images, *known).float()))
        return features

    def _by_camera(self, images: Tensor, cameras: Tensor) -> Features:
        counts = torch.bincount(cameras)
        groups = torch.where(counts[cameras] < FEWEST, -1, cameras)
        rows: list[Tensor] = []
        for group in sorted(set(groups.tolist()), reverse=True):
            row = (groups == group).nonzero()[:, 0]
            if rows and len(row) < FEWEST:  # the last group, of cameras with few pictures
                row = torch.cat([rows.pop(), row])
            rows.append(row)
        found = [self.features(images[row]) for row in rows]
        order = torch.cat(rows).argsort()
        merged = [None if part[0] is None else torch.cat(part)[order] for part in zip(*found, strict=True)]
        return Features(*merged)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Features | Tensor:
        """`Features` in training; in eval mode the post-BN feature (B, D), not normalized."""
        features = self.features(images)
        return features if self.training else features.post_bn


def build_model(
    config: ModelConfig, *, num_classes: int | None = None, pretrained: Path | Literal["imagenet"] | None = None
) -> ReIDModel:
    """A model with fresh weights, whose backbone may have those of `pretrained`.

    `pretrained`: a safetensors file with the backbone's public weight names, or "imagenet" for the weights that
    torchvision or timm download; branches begin with copies of them. Raises what `ReIDModel` raises, CoreError where a
    download fails, and ModelFileError for a file that does not fit.
    """
    return ReIDModel(config, num_classes, pretrained)


def refuse_config(config: ModelConfig) -> None:
    """Raises what `build_model` would raise for `config`, without allocating weights."""
    with torch.device("meta"):
        ReIDModel(config)
