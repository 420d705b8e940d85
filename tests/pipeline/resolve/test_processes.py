"""Several processes: what ends one of them is said, whether it was its own mistake or not."""

import shutil

import pytest

from pipeline.resolve.processes import resolving
from pipeline.store import Store
from schemas.errors import CoreError, ModelFileError, StoreUnavailable
from tests.helpers.thin_town import ThinTown, crowd


@pytest.fixture
def town(store: Store) -> ThinTown:
    return ThinTown(store, crowd(people=5, days=0.05))


def test_a_process_that_cannot_start_says_why(town: ThinTown) -> None:
    shutil.rmtree(town.model.directory(town.store.settings))
    with pytest.raises(ModelFileError, match="thin"), resolving(town.store.settings, 2):
        pytest.fail("nothing started")
    nowhere = town.store.settings.model_copy(update={"database_url": "postgresql://me:secret@127.0.0.1:1/city"})
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/city"), resolving(nowhere, 1):
        pytest.fail("nothing started")


def test_a_process_that_is_killed_is_told_from_a_mistake(town: ThinTown) -> None:
    town.take_in()
    with pytest.raises(CoreError, match=r"one of 1 processes .* was killed"), resolving(town.store.settings, 1) as run:
        (process,) = run.pool._processes.values()
        process.kill()
        run(["d1"])
