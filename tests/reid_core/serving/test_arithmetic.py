"""A registered model keeps its engine and precision, and settings that contradict them are refused."""

from typing import Any

import pytest

from reid_core.serving.arithmetic import check_arithmetic, with_arithmetic
from schemas.cards import Arithmetic, ModelCard
from schemas.errors import CoreError
from schemas.settings import Settings

AUTO: dict[str, Any] = {"engine": "auto", "precision": "auto"}


def card(engine: str | None, precision: str = "float32", *, of: str = "torch") -> ModelCard:
    arithmetic = None if engine is None else Arithmetic.model_validate({"engine": engine, "precision": precision})
    return ModelCard.model_validate(
        {"name": "gate", "engine": of, "architecture": "x", "dims": 2, "sha256": {}, "arithmetic": arithmetic}
    )


@pytest.mark.parametrize(
    ("given", "settings", "expected"),
    [
        (card("openvino", "bfloat16"), AUTO, ("openvino", "bfloat16")),
        (card("torch"), AUTO, ("torch", "float32")),
        (card(None), AUTO, ("auto", "auto")),
        (card("openvino", "int8", of="openvino"), AUTO, ("auto", "float32")),
        (card("openvino", "bfloat16"), {"engine": "torch", "precision": "float32"}, ("torch", "float32")),
    ],
)
def test_what_the_card_says_stands_in_place_of_auto(
    given: ModelCard, settings: dict[str, Any], expected: tuple[str, str]
) -> None:
    found = with_arithmetic(Settings(**settings), given)
    assert (found.engine, found.precision) == expected


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        (card("torch"), AUTO),
        (card("torch"), {"engine": "torch", "precision": "float32"}),
        (card(None), {"engine": "openvino", "precision": "bfloat16"}),
        (card("openvino", "float32", of="openvino"), {"engine": "torch"}),  # a file has one engine
    ],
)
def test_agreeing_settings_pass(given: ModelCard, settings: dict[str, Any]) -> None:
    check_arithmetic(Settings(**AUTO | settings), given)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"engine": "openvino"}, "URBAN_REID_ENGINE=openvino"),
        ({"precision": "bfloat16"}, "URBAN_REID_PRECISION=bfloat16"),
    ],
)
def test_another_engine_or_precision_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(CoreError, match=f"model gate: its features here are torch float32, and {named} would mix"):
        check_arithmetic(Settings(**AUTO | settings), card("torch"))
