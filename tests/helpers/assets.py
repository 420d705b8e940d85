"""Real pictures and published models for tests, from folders outside the project.

URBAN_REID_TEST_ASSETS   folder with `models/NAME/NAME.xml` and `data/`
URBAN_REID_REAL_SET      a real data set of two cameras in Market-1501 form, for research use
"""

import os
from pathlib import Path

import pytest

from schemas.cards import InputConvention


def _folder(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None


ASSETS, REAL_SET = _folder("URBAN_REID_TEST_ASSETS"), _folder("URBAN_REID_REAL_SET")

CONVENTION = InputConvention(height=256, width=128, color="bgr", range=255, mean=(0, 0, 0), std=(1, 1, 1))


def asset(name: str) -> Path:
    """A file below URBAN_REID_TEST_ASSETS; skips the test if it is not there."""
    if ASSETS is None or not (ASSETS / name).exists():
        pytest.skip(f"URBAN_REID_TEST_ASSETS has no {name}")
    return ASSETS / name


def real_set() -> Path:
    """The folder of URBAN_REID_REAL_SET; skips the test if it is not set."""
    if REAL_SET is None:
        pytest.skip("URBAN_REID_REAL_SET is not set")
    return REAL_SET
