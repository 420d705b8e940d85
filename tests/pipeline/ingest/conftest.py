"""A small city, a crop store, and pictures to ingest."""

from pathlib import Path

import pytest

from pipeline.city.units import store_city
from pipeline.crops.crop_store import CropStore
from pipeline.store import Store
from schemas.city_file import City
from schemas.settings import Settings
from tests.helpers.pictures import UNITS, picture


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures, 0.jpg to 9.jpg."""
    inner = tmp_path / "set"
    inner.mkdir()
    for number in range(10):
        (inner / f"{number}.jpg").write_bytes(picture(number))
    return inner
