"""A change of one building's geometry, with crops there: other buildings' runs stand."""

from sqlalchemy import text

from pipeline.city.geometry_changes import keep_geometry
from pipeline.city.units import canonical, city_digest, read_city
from pipeline.city.watermarks import mark_everything
from tests.helpers.town import Town


def current_runs(town: Town) -> dict[str, set[int]]:
    """The ids of each unit's current runs."""
    runs: dict[str, set[int]] = {}
    with town.store.begin() as connection:
        for row in connection.execute(text("SELECT unit, id FROM run WHERE superseded_at IS NULL")):
            runs.setdefault(row.unit, set()).add(row.id)
    return runs


def pending(town: Town) -> set[str]:
    with town.store.begin() as connection:
        return set(connection.scalars(text("SELECT unit FROM watermark WHERE dirty_from IS NOT NULL")))


def spoil_clock(town: Town, camera: str, uncertainty_s: float) -> None:
    """What a change of the camera's clock writes."""
    old = read_city(town.store)
    units = tuple(
        unit.model_copy(update={"clock_uncertainty_s": uncertainty_s}) if unit.code == camera else unit
        for unit in old.units
    )
    new = canonical(old.model_copy(update={"units": units}))
    with town.store.begin() as connection:
        keep_geometry(connection, old, new, city_digest(new))
        connection.execute(text("UPDATE city SET digest = :digest"), {"digest": city_digest(new)})
        connection.execute(
            text("UPDATE urban_unit SET clock_uncertainty_s = :s WHERE code = :camera"),
            {"s": uncertainty_s, "camera": camera},
        )


def test_other_buildings_runs_stand(town: Town, lines: list[str]) -> None:
    town.take_in(lines)
    town.resolve()
    before = current_runs(town)
    changed = {"d1", "d1/s1", "d1/s1/b1"}
    assert len(before.keys() - changed) > len(changed)
    spoil_clock(town, "d1/s1/b1/c1", 60.0)
    assert pending(town) == changed
    assert town.resolve() > 0
    after = current_runs(town)
    assert {unit for unit in before if before[unit] != after[unit]} == changed
    assert all(not before[unit] & after[unit] for unit in changed), "each of their windows was decided anew"
    with town.store.begin() as connection:
        mark_everything(connection)
    assert town.resolve() == 0, "every run stands, also of units that were not concerned"
