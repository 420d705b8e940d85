"""Real pictures and published models for tests, where URBAN_REID_TEST_ASSETS has them."""

from pathlib import Path

import pytest

from schemas.cards import InputConvention
from schemas.settings import settings


def asset(name: str) -> Path:
    folder = settings().test_assets
    if folder is None or not (folder / name).exists():
        pytest.skip(f"URBAN_REID_TEST_ASSETS has no {name}")
    return folder / name


CONVENTION = InputConvention(height=256, width=128, color="bgr", range=255, mean=(0, 0, 0), std=(1, 1, 1))
