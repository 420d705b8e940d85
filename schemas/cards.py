"""A model's card: the JSON file beside its weights, which describes the model and carries its calibration."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FiniteFloat, field_validator

from schemas.calibration import LevelCalibration, SearchCalibration
from schemas.settings import Frozen
from schemas.text import Text, storable

#: The largest width of a feature; a half-precision vector of the database holds no more.
MAX_DIMS = 16_000

Positive = Annotated[FiniteFloat, Field(gt=0)]


#: Methods by which a network is built and trained (reid_core.models, reid_core.training.methods).
Baseline = Literal["bagtricks", "agw", "trinet", "pcb", "mgn", "cbn", "transreid"]


class InputConvention(Frozen):
    """How a picture becomes an input tensor: resized to height x width, scaled to `range`, (x - mean) / std.

    mean and std are in the network's order of channels. The defaults are those of new networks; for a file of another
    program only fields that are set count (`reid_core.serving.foreign`).
    """

    height: int = Field(default=256, ge=16, le=2048)
    width: int = Field(default=128, ge=8, le=2048)
    color: Literal["rgb", "bgr"] = "rgb"
    range: Literal[1, 255] = Field(
        default=1, description="values of a channel lie in 0..1 or 0..255 before mean and std"
    )
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)


class DiffAttentionSettings(Frozen):
    """Shape of the diff attention module (paper, 'Diff attention module')."""

    transform: Literal["sub", "sub_squ", "sub_abs"] = "sub_abs"
    reduction: int = Field(default=4, ge=1, description="r: the hidden layer has D/r channels")


class OperatingPoint(Frozen):
    """A threshold: pictures at most this far apart are taken for one person; and its measured error rates.

    The threshold was set on one half of the people for a stated false positive rate; the rates were measured on the
    other half.
    """

    distances: Literal["plain", "attended"] = Field(description="which distance the threshold is for; both lie in 0..2")
    threshold: float = Field(ge=0, le=2)
    asked_fpr: float = Field(gt=0, lt=1, description="the false positive rate that the threshold was set for")
    fpr: float = Field(ge=0, le=1, description="share of the pairs of two people that are taken for one")
    tpr: float = Field(ge=0, le=1, description="share of the pairs of one person that are found")
    measured_on: Text = Field(max_length=500, description="the data, in words")
    pairs: int = Field(ge=0, description="pairs that the rates were measured on")
    positives: int = Field(ge=0, description="pairs of one person among them")


class SpaceSource(Frozen):
    """Whose features a feature space is computed from, and what it was learned from.

    The space itself lies in the model's folder (`reid_core.feature_space`).
    """

    base: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the model whose raw features it takes")
    dims: int = Field(ge=1, le=MAX_DIMS, description="width of a raw feature")
    diff_attention: DiffAttentionSettings | None = Field(
        default=None, description="module of the base; used in the space only if the card itself has it, too"
    )
    basis: Literal["none", "tracklets", "people"] = Field(
        default="none",
        description="what its basis was learned from: people of labeled data, or tracklets without labels",
    )
    learned_from: Text = Field(max_length=500, description="the crops, in words")
    crops: int = Field(ge=0)
    tracklets: dict[Text, int] = Field(description="number behind the mean of each camera that has one of its own")


class ModelConfig(Frozen):
    """Everything that is needed to build a model except its weights."""

    architecture: str = Field(
        max_length=200, description="a backbone's name, built in or registered (reid_core.backbones), or 'foreign'"
    )
    baseline: Baseline | Literal["foreign"] = "bagtricks"
    cameras: tuple[int, ...] = Field(
        default=(), description="transreid: numbers of the training data's cameras, which have an embedding each"
    )
    non_local_channels: int = Field(default=1, ge=1, le=1024, description="agw: inner channels of its non-local blocks")
    input: InputConvention = InputConvention()
    diff_attention: DiffAttentionSettings | None = None


class Arithmetic(Frozen):
    """What a data directory computes a model's features with: chosen when the model is registered, and kept."""

    engine: Literal["torch", "openvino", "onnx"]
    precision: Literal["float32", "bfloat16", "int8"]
    why: Text = Field(default="", max_length=500, description="why it was chosen, in words")

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


class ModelCard(ModelConfig):
    """What `card.json` holds. Every value can be stored in the database and written as JSON."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    engine: Literal["torch", "openvino", "onnx", "none"] = Field(
        description="what runs the model; none: features are ingested, and nothing computes them here"
    )
    dims: int = Field(ge=1, le=MAX_DIMS, description="D, width of the features that are compared")
    feature_space: SpaceSource | None = Field(
        default=None, description="of a model that computes from the features of another one, its base"
    )
    strategy: Literal["plain", "joint", "separate"] = "plain"
    trained_on: Text = Field(default="", max_length=2000)
    metrics: dict[Text, FiniteFloat] = {}
    calibration: tuple[LevelCalibration, ...] = ()
    search_calibration: tuple[SearchCalibration, ...] = ()
    operating_point: OperatingPoint | None = None
    sha256: dict[Text, str] = Field(description="hex SHA-256 of each file of the model, by file name")
    details: dict[str, Any] = {}
    arithmetic: Arithmetic | None = Field(
        default=None,
        description="of a registered model; no part of its digest. None: as the settings say (not registered, features "
        "that are ingested, or registered before version 0.3)",
    )

    @property
    def raw_dims(self) -> int:
        """Width of the raw features that the model computes of pictures and that are stored."""
        return self.dims if self.feature_space is None else self.feature_space.dims

    @field_validator("metrics", "details", mode="before")
    @classmethod
    def _names_of_0_1(cls, value: object) -> object:
        """Reads cards of version 0.1, whose metrics and details have other names, such as `rank_1`."""
        return current_names(value)

    @field_validator("calibration", "search_calibration", "details", mode="after")
    @classmethod
    def _is_storable(cls, value: object) -> object:
        _check_storable(value)
        return value


def current_names(value: object) -> object:
    """`value`, read from JSON, with names of version 0.1, such as `rank_1`, replaced by the current ones everywhere."""
    if isinstance(value, dict):
        return {_current_name(str(name)): current_names(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [current_names(inner) for inner in value]
    return value


def _check_storable(value: object) -> None:
    """Raises ValueError if something in `value` cannot be stored as JSON in the database."""
    if isinstance(value, BaseModel):
        _check_storable(value.model_dump())
    elif isinstance(value, str):
        storable(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"holds {value}, which is not a number of JSON")
    elif isinstance(value, dict | list | tuple):
        for inner in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_storable(inner)


def _current_name(name: str) -> str:
    renamed = name.replace("neighbour", "neighbor").replace("centre", "center")  # codespell:ignore neighbour,centre
    return re.sub(r"(?<![^_])rank[-_](?=\d+$)", "rank", renamed)
