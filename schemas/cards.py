"""A model's card: the JSON file beside its weights, and the calibration it carries."""

import math
import re
from typing import Any, Literal

from pydantic import Field, field_validator

from schemas.calibration import LevelCalibration
from schemas.settings import Frozen


class InputConvention(Frozen):
    """How a picture becomes an input tensor: resized to height x width, scaled to `range`, (x - mean) / std."""

    height: int = Field(default=256, ge=16, le=2048)
    width: int = Field(default=128, ge=8, le=2048)
    color: Literal["rgb", "bgr"] = "rgb"
    range: Literal[1, 255] = Field(
        default=1, description="values of a channel lie in 0..1 or 0..255 before mean and std"
    )
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class DiffAttentionSettings(Frozen):
    """Shape of the diff attention module (paper, 'Diff attention module')."""

    transform: Literal["sub", "sub_squ", "sub_abs"] = "sub_abs"
    reduction: int = Field(default=4, ge=1, description="r: the hidden layer has D/r channels")


class OperatingPoint(Frozen):
    """The distance up to which two pictures may be taken for one person, and what comes of it.

    The threshold was set on some people for a stated false positive rate; the rates are those of other people.
    """

    distances: Literal["plain", "attended"] = Field(description="of which distance; both lie in 0..2")
    threshold: float = Field(ge=0, le=2)
    asked_fpr: float = Field(gt=0, lt=1, description="the false positive rate that the threshold was set for")
    fpr: float = Field(ge=0, le=1, description="share of pairs of two people taken for one")
    tpr: float = Field(ge=0, le=1, description="share of pairs of one person found")
    measured_on: str = Field(max_length=500, description="the data, in words")
    pairs: int = Field(ge=0, description="pairs of the people that the rates are of")
    positives: int = Field(ge=0, description="pairs of one person among them")


def probability(log_odds: float) -> float:
    """0..1; without overflow however far from 0."""
    return 0.5 + 0.5 * math.tanh(log_odds / 2)


class ModelConfig(Frozen):
    """Everything that is needed to build a model, weights aside."""

    architecture: str = Field(max_length=200, description="a name of reid_core's registry, or 'foreign'")
    baseline: Literal["bagtricks", "agw", "foreign"] = "bagtricks"
    non_local_channels: int = Field(default=1, ge=1, le=1024, description="agw: inner channels of its non-local blocks")
    input: InputConvention = InputConvention()
    diff_attention: DiffAttentionSettings | None = None


class ModelCard(ModelConfig):
    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    engine: Literal["torch", "openvino", "onnx", "none"] = Field(description="none: features come from elsewhere")
    dims: int = Field(ge=1, le=16_000, description="D, width of the feature")
    strategy: Literal["plain", "joint", "separate"] = "plain"
    trained_on: str = Field(default="", max_length=2000)
    metrics: dict[str, float] = {}
    calibration: tuple[LevelCalibration, ...] = ()
    operating_point: OperatingPoint | None = None
    sha256: dict[str, str] = Field(description="hex SHA-256 of each file of the model, by file name")
    details: dict[str, Any] = {}

    @field_validator("metrics", "details", mode="before")
    @classmethod
    def _names_of_0_1(cls, value: object) -> object:
        """Reads cards of version 0.1, whose metrics and details have other names, such as `rank_1`."""
        if isinstance(value, dict):
            return {_current_name(str(name)): cls._names_of_0_1(inner) for name, inner in value.items()}
        return value


def _current_name(name: str) -> str:
    renamed = name.replace("neighbour", "neighbor").replace("centre", "center")  # codespell:ignore neighbour,centre
    return re.sub(r"(?<![^_])rank[-_](?=\d+$)", "rank", renamed)
