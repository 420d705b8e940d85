"""Several processes: their progress, and the error when one of them cannot start or is killed."""

import shutil

import pytest

from pipeline.resolve.processes import resolving
from pipeline.resolve.progress import UnitsProgress
from pipeline.store import Store
from schemas.errors import CoreError, ModelFileError, StoreUnavailable
from tests.helpers.thin_town import ThinTown, crowd


@pytest.fixture
def town(store: Store) -> ThinTown:
    return ThinTown(store, crowd(people=5, days=0.05))


def test_progress_tells_each_unit(town: ThinTown) -> None:
    town.take_in()
    told: list[tuple[str, int, int]] = []
    with resolving(town.store.settings, 2) as run:
        results = run(["d1"], progress=lambda what, done, total: told.append((what, done, total)))
    units = len(results)
    assert {(what, total) for what, _, total in told} == {("percent of the units resolved", 100)}
    percent = [done for _, done, _ in told]
    assert percent == sorted(percent) and percent[-1] == 100
    assert {100 * done // units for done in range(1, units + 1)} <= set(percent)  # each unit, also within one task


def test_a_unit_in_work_counts_with_the_part_that_is_done() -> None:
    told: list[int] = []
    tell = UnitsProgress(4, lambda _, done, __: told.append(done))
    for unit, done, total in (("a", 1, 2), ("b", 100, 100), ("a", 2, 2), ("a", 1, 10), ("c", 2, 3), ("d", 1, 1)):
        tell(unit, done, total)
    assert told == [12, 37, 50, 50, 66, 91]
    tell("c", 3, 3)
    assert told[-1] == 100


def test_an_error_in_one_unit_ends_the_others_and_is_raised(town: ThinTown) -> None:
    """Also when nobody asked for progress, and although the processes go on telling it."""
    town.take_in()
    with resolving(town.store.settings, 2) as run:
        with town.store.begin() as connection:
            connection.exec_driver_sql("UPDATE model SET in_use = false")
        with pytest.raises(CoreError, match="thin is no longer in use"):
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
