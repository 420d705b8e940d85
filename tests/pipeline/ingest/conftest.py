"""A small city, a crop store, and pictures to bring in."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.city.units import store_city
from pipeline.crops.crop_store import CropStore
from pipeline.store import Store
from schemas.city_file import City
from schemas.settings import Settings

UNITS = (
    {"code": "d1"},
    {"code": "d1/s1"},
    {"code": "d1/s1/b1"},
    {"code": "d1/s1/b2"},
    {"code": "d1/s1/b1/c1", "source": "c1"},
    {"code": "d1/s1/b2/c2", "source": "c12"},
)


@pytest.fixture
def small_city() -> City:
    return City.model_validate({"units": UNITS})


@pytest.fixture
def crops(settings: Settings) -> CropStore:
    return CropStore(settings)


@pytest.fixture
def city_store(store: Store, small_city: City) -> Store:
    store_city(store, small_city)
    return store


def picture(seed: int) -> bytes:
    """A JPEG of 64 x 32 that is like no other seed's."""
    noise = np.random.default_rng(seed).integers(0, 255, (64, 32, 3), dtype=np.uint8)
    done, data = cv2.imencode(".jpg", cv2.GaussianBlur(noise, (0, 0), 2))
    assert done
    return data.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures, 0.jpg to 9.jpg."""
    inner = tmp_path / "set"
    inner.mkdir()
    for number in range(10):
        (inner / f"{number}.jpg").write_bytes(picture(number))
    return inner
