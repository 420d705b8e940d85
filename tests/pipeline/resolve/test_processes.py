"""Several processes: their progress, and the error when one of them cannot start or is killed."""

import shutil

import pytest

from pipeline.resolve.processes import resolving
from pipeline.store import Store
from schemas.errors import CoreError, ModelFileError, StoreUnavailable
from tests.helpers.thin_town import ThinTown, crowd


@pytest.fixture
def town(store: Store) -> ThinTown:
    return ThinTown(store, crowd(people=5, days=0.05))


def test_progress_tells_each_unit_and_the_windows_within(town: ThinTown) -> None:
    town.take_in()
    told: list[tuple[str, int, int]] = []
    with resolving(town.store.settings, 2) as run:
        results = run(["d1"], progress=lambda what, done, total: told.append((what, done, total)))
    units = len(results)
    assert {total for _, _, total in told} == {units}
    assert [done for what, done, _ in told if what == "units resolved"] == list(range(1, units + 1))
    (windows,) = [result.windows for result in results if result.unit == "d1"]
    assert windows > 1
    assert (f"units resolved, d1: window {windows} of {windows}", units - 1, units) in told


def test_an_error_in_one_unit_ends_the_others_and_is_raised(town: ThinTown) -> None:
    """Also when nobody asked for progress, and although the processes go on telling it."""
    town.take_in()
    with resolving(town.store.settings, 2) as run:
        with town.store.begin() as connection:
            connection.exec_driver_sql("UPDATE model SET in_use = false")
        with pytest.raises(CoreError, match="another model"):
            run(["d1"])


def test_a_process_that_cannot_start_says_why(town: ThinTown) -> None:
    shutil.rmtree(town.model.directory(town.store.settings))
    with pytest.raises(ModelFileError, match="thin"), resolving(town.store.settings, 2):
        pytest.fail("nothing started")
    nowhere = town.store.settings.model_copy(update={"database_url": "postgresql://me:secret@127.0.0.1:1/city"})
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/city"), resolving(nowhere, 1):
        pytest.fail("nothing started")


def test_a_killed_process_is_told_from_one_that_failed(town: ThinTown) -> None:
    town.take_in()
    with pytest.raises(CoreError, match=r"one of 1 processes .* was killed"), resolving(town.store.settings, 1) as run:
        (process,) = run.pool._processes.values()
        process.kill()
        run(["d1"])
