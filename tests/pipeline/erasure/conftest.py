"""A resolved city without pictures, fast."""

import pytest

from pipeline.store import Store
from tests.helpers.thin_town import Crowd, ThinTown, crowd


@pytest.fixture(scope="session")
def many() -> Crowd:
    return crowd(cameras=12, people=60, days=0.1, seed=5)


@pytest.fixture
def thin(store: Store, many: Crowd) -> ThinTown:
    town = ThinTown(store, many, intercept=10.0)
    town.take_in()
    town.resolve()
    return town
