"""Geometry that is given late counts as if it had been there from the start, and touches no other unit."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.city.units import read_city, store_city
from pipeline.city.watermarks import mark_everything
from pipeline.resolve import resolve_unit, units_within
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from schemas.city_file import City
from tests.helpers.homes import fresh_settings
from tests.helpers.thin_town import Crowd, ThinTown, crowd


@pytest.fixture(scope="module")
def people() -> Crowd:
    return crowd(cameras=12, people=25, days=0.05)


@pytest.fixture
def make(server: EmbeddedServer, people: Crowd) -> Iterator[Callable[[City], ThinTown]]:
    with ExitStack() as ends:

        def town(city: City) -> ThinTown:
            """A town whose city is `city` at first; all crops are taken in."""
            store = ends.enter_context(Store.open(ends.enter_context(fresh_settings(server)), "pytest"))
            made = ThinTown(store, replace(people, city=city))
            made.take_in()
            return made

        yield town


def bare(city: City) -> City:
    """The city without positions, overlaps and walks."""
    units = tuple(unit.model_copy(update={"position": None, "overlaps": ()}) for unit in city.units)
    return city.model_copy(update={"units": units, "walks": ()})


def digest(town: ThinTown) -> str:
    with town.store.begin() as connection:
        return decision_digest(connection)


def pending(town: ThinTown) -> list[str]:
    with town.store.begin() as connection:
        return sorted(connection.scalars(text("SELECT unit FROM watermark WHERE dirty_from IS NOT NULL")))


def runs(town: ThinTown) -> dict[str, int]:
    with town.store.begin() as connection:
        counts = connection.execute(text("SELECT unit, count(*) AS runs FROM run GROUP BY unit"))
        return {row.unit: row.runs for row in counts}


def test_late_geometry_decides_as_if_it_had_been_there(make: Callable[[City], ThinTown], people: Crowd) -> None:
    known, town = make(people.city), make(bare(people.city))
    known.resolve()
    town.resolve()
    assert digest(town) != digest(known)
    store_city(town.store, people.city)
    assert "d1" in pending(town)
    town.resolve()
    assert digest(town) == digest(known) and not pending(town)
    store_city(town.store, bare(people.city))
    store_city(town.store, people.city)  # there and back
    assert not sum(done.written for done in town.resolve())


def test_geometry_that_changes_during_a_resolve_counts(make: Callable[[City], ThinTown], people: Crowd) -> None:
    known, town = make(people.city), make(bare(people.city))
    known.resolve()

    def change(*_: object) -> None:
        store_city(town.store, people.city)

    for code in units_within(town.store, "d1"):
        above = code.count("/") < 3
        resolve_unit(
            town.store,
            town.core,
            town.model,
            code,
            settings=town.store.settings.association,
            observe=change if above else None,
        )
    assert digest(town) == digest(known) and not pending(town)


def test_only_units_whose_geometry_changes_are_resolved_again(make: Callable[[City], ThinTown], people: Crowd) -> None:
    town, city = make(people.city), people.city
    town.resolve()
    before = runs(town)
    camera = next(unit for unit in city.cameras() if before.get(unit.code))
    above = {camera.code.rsplit("/", cut)[0] for cut in (1, 2, 3)}

    def change(**fields: object) -> None:
        units = [unit.model_copy(update=fields) if unit.code == camera.code else unit for unit in city.units]
        store_city(town.store, city.model_copy(update={"units": tuple(units)}))

    change(name="Renamed")
    assert pending(town) == []
    assert camera.position is not None
    change(position=(camera.position[0] + 500, camera.position[1]))
    concerned = set(pending(town))
    assert "d1" in concerned and concerned <= above and len(before.keys() - above) > len(above)
    town.resolve()
    now = runs(town)
    assert now["d1"] > before["d1"]
    assert {unit for unit in now if now[unit] != before.get(unit)} <= above
    decided = digest(town)
    with town.store.begin() as connection:
        mark_everything(connection)
    anew = {done.unit for done in town.resolve() if done.written}
    assert anew <= above, "every run stands of units that were not concerned"
    assert digest(town) == decided, "windows before the camera's first crop are decided alike under the new key"
    with town.store.begin() as connection:
        mark_everything(connection)
    assert not sum(done.written for done in town.resolve())


def test_a_camera_without_crops_marks_nothing(make: Callable[[City], ThinTown], people: Crowd) -> None:
    town = make(people.city)
    town.resolve()
    city = read_city(town.store)
    camera = city.cameras()[0]
    new = camera.model_copy(update={"code": camera.code + "-new", "overlaps": (), "source": None})
    store_city(town.store, city.model_copy(update={"units": (*city.units, new)}))
    assert pending(town) == []
    moved = new.model_copy(update={"position": (1.0, 2.0), "overlaps": (camera.code,), "clock_uncertainty_s": 9})
    store_city(town.store, city.model_copy(update={"units": (*city.units, moved)}))
    assert pending(town) == []
    with town.store.begin() as connection:
        mark_everything(connection)
    assert not sum(done.written for done in town.resolve())


def test_windows_before_the_first_crop_of_a_camera_that_moves_keep_their_runs(
    make: Callable[[City], ThinTown], people: Crowd
) -> None:
    town, city = make(people.city), people.city
    town.resolve()
    with town.store.begin() as connection:
        first = dict(
            connection.execute(text("SELECT camera, min(captured_at) FROM crop GROUP BY 1 ORDER BY 2")).tuples().all()
        )
        latest = list(first)[-1]
        run_at = {
            row.window_start: row.id
            for row in connection.execute(text("SELECT id, window_start FROM run WHERE unit = 'd1'"))
        }
        window = max(start for start in run_at if start <= first[latest])
    assert min(run_at) < window, "some windows lie before"
    units = [
        unit.model_copy(update={"position": (-900.0, 40.0)}) if unit.code == latest else unit for unit in city.units
    ]
    store_city(town.store, city.model_copy(update={"units": tuple(units)}))
    with town.store.begin() as connection:
        dirty_from = connection.scalar(text("SELECT dirty_from FROM watermark WHERE unit = 'd1'"))
    assert dirty_from is not None and dirty_from >= window
    town.resolve()
    afresh = make(city.model_copy(update={"units": tuple(units)}))
    afresh.resolve()
    assert digest(town) == digest(afresh)
