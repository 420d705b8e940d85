from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.cameras.rows import write_feed
from pipeline.city.units import canonical, read_city, read_city_file, store_city
from pipeline.ingest.crop_writer import write_crops
from pipeline.store import Store
from schemas.city_file import City
from schemas.crops import NewCrop
from schemas.errors import CityError, UsageError
from schemas.feeds import Feed
from schemas.levels import is_within, parent_of

CITY = """
timezone: Europe/Berlin
units:
  - {code: d1, name: "Center <script>'; DROP TABLE city; -- 😀\\nsecond line"}
  - {code: d1/s1, name: Mill Street}
  - {code: d1/s1/b1/c2, source: c2}
  - {code: d1/s1/b1, name: Plaza, kind: site}
  - {code: d1/s1/b1/c1, name: North door, source: c1, position: [12.0, 40.5], overlaps: [d1/s1/b1/c2]}
  - {code: d1/s1/b-2}
  - {code: d1/s1/b-2/c1, clock_uncertainty_s: 2}
walks:
  - {from: d1/s1/b1, to: d1/s1/b-2, shortest_s: 30}
"""


@pytest.fixture
def city_file(tmp_path: Path) -> Path:
    path = tmp_path / "city.yaml"
    path.write_text(CITY)
    return path


def crop(camera: str, seconds: int = 0) -> NewCrop:
    return NewCrop(
        name="a crop",
        key=bytes([seconds + 1]) * 32,
        camera=camera,
        captured_at=datetime(2026, 1, 1, 8, 0, seconds, tzinfo=UTC),
        timed=True,
        source="manifest",
        track=None,
        box=None,
        picture=b"p" * 32,
        width_px=64,
        height_px=128,
        quality=0.5,
    )


def changed(city: City, code: str, **fields: object) -> City:
    units = [unit.model_copy(update=fields) if unit.code == code else unit for unit in city.units]
    return City.model_validate(city.model_copy(update={"units": tuple(units)}).model_dump(by_alias=True))


def without(city: City, code: str) -> City:
    walks = tuple(walk for walk in city.walks if code not in (walk.from_, walk.to))
    units = tuple(unit for unit in city.units if unit.code != code and not unit.code.startswith(code + "/"))
    return city.model_copy(update={"units": units, "walks": walks})


def counts(store: Store) -> dict[str, int]:
    with store.begin() as connection:
        return {
            table: connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0
            for table in ("city", "urban_unit", "camera_overlap", "walk", "audit")
        }


def test_a_city_comes_back_as_it_was_stored(store: Store, city_file: Path) -> None:
    city = read_city_file(city_file)
    assert store_city(store, city)
    found = read_city(store)
    assert found == canonical(city) == canonical(found)
    assert [unit.code for unit in found.units][:3] == ["d1", "d1/s1", "d1/s1/b-2"]
    by_code = {unit.code: unit for unit in found.units}
    assert by_code["d1/s1/b1/c2"].overlaps == ("d1/s1/b1/c1",)
    assert by_code["d1"].name == "Center <script>'; DROP TABLE city; -- 😀\nsecond line"
    assert found.timezone == "Europe/Berlin"


def test_a_city_is_read_once_until_another_is_stored(store: Store, city_file: Path) -> None:
    city = read_city_file(city_file)
    store_city(store, city)
    first = read_city(store)
    assert read_city(store) is first
    store_city(store, changed(city, "d1", name="Renamed"))
    assert {unit.code: unit.name for unit in read_city(store).units}["d1"] == "Renamed"
    store_city(store, city)
    assert read_city(store) == first


def test_what_lies_below_a_unit_is_told_from_its_neighbors(city_file: Path) -> None:
    streets = ["d1/s1", "d1/s10", "d1/s1-a", "d1/s1-a0", "d1/s2"]
    cameras = [f"{street}/{building}/c1" for street in streets for building in ("b", "b-1", "b1", "b10")]
    codes = {code[: len(code) - cut] for code in cameras for cut in (0, 3)} | {"d1", *streets}
    buildings = [(f"{street}/b", f"{street}/{other}") for street in streets for other in ("b-1", "b10")]
    walks = [{"from": a, "to": b, "shortest_s": 9} for a, b in [*buildings, ("d1/s1", "d1/s10"), ("d1/s2", "d1/s1-a")]]
    city = City.model_validate({"units": [{"code": code} for code in codes], "walks": walks})
    for unit in [*codes, "d1/s", "d2"]:
        assert [one.code for one in city.cameras(unit)] == sorted(c for c in cameras if is_within(c, unit))
        assert list(city.children(unit)) == sorted(c for c in codes if parent_of(c) == unit)
        inside = [w for w in city.walks if is_within(w.from_, unit) and w.from_ != unit and unit not in (w.from_, w.to)]
        assert sorted(map(str, city.walks_within(unit))) == sorted(map(str, inside))


def test_a_changed_copy_knows_its_own_cameras(city_file: Path) -> None:
    city = read_city_file(city_file)
    assert len(city.cameras()) == 3 and len(city.walks_within("d1")) == 1 and city.children("d1")
    empty = city.model_copy(update={"units": (), "walks": ()})
    assert not empty.cameras() and not empty.walks_within("d1") and not empty.children("d1")
    assert len(city.cameras()) == 3


def test_the_same_city_again_writes_nothing(store: Store, city_file: Path) -> None:
    city = read_city_file(city_file)
    store_city(store, city)
    before = counts(store)
    assert before == {"city": 1, "urban_unit": 7, "camera_overlap": 1, "walk": 1, "audit": 1}
    reordered = city.model_copy(update={"units": tuple(reversed(city.units))})
    assert not store_city(store, reordered)
    assert counts(store) == before


def test_a_city_may_grow_and_shrink_where_no_crops_are(store: Store, city_file: Path) -> None:
    city = read_city_file(city_file)
    store_city(store, city)
    with store.begin() as connection:
        write_crops(connection, [crop("d1/s1/b1/c1")], 300)
    smaller = without(city, "d1/s1/b-2")
    assert store_city(store, smaller)
    assert read_city(store) == canonical(smaller)
    assert store_city(store, changed(city, "d1/s1/b1/c1", name="Renamed"))
    assert read_city(store) == canonical(changed(city, "d1/s1/b1/c1", name="Renamed"))
    with store.signed_in() as connection:
        details = connection.execute(text("SELECT details FROM audit ORDER BY id")).scalars().all()
    assert [(entry["added"], entry["removed"]) for entry in details] == [(7, 0), (0, 2), (2, 0)]


def test_what_names_the_crops_of_a_unit_stays_with_them(store: Store, city_file: Path) -> None:
    city = read_city_file(city_file)
    store_city(store, city)
    with store.begin() as connection:
        write_crops(connection, [crop("d1/s1/b1/c1", 0), crop("d1/s1/b1/c2", 1)], 300)
    before = counts(store)
    with pytest.raises(CityError, match="unit d1/s1/b1/c1: its source cannot change"):
        store_city(store, changed(city, "d1/s1/b1/c1", source="c9"))
    for removed in ("d1/s1/b1/c1", "d1/s1/b1"):
        with pytest.raises(CityError, match=f"unit {removed} cannot be removed: it has crops"):
            store_city(store, without(changed(city, "d1/s1/b1/c1", overlaps=()), removed))
    assert counts(store) == before and read_city(store) == canonical(city)


def test_a_camera_that_is_taken_in_stays_in_the_city(store: Store, city_file: Path) -> None:
    city = read_city_file(city_file)
    store_city(store, city)
    with store.begin() as connection:
        write_feed(connection, Feed(camera="d1/s1/b-2/c1", address="rtsp://10.0.0.5/stream"))
    with pytest.raises(CityError, match=r"d1/s1/b-2/c1 cannot be removed: it has a feed; `urban-reid cameras remove"):
        store_city(store, without(city, "d1/s1/b-2"))


def test_geometry_changes_under_crops_and_the_audit_says_what_it_was(store: Store, city_file: Path) -> None:
    city = read_city_file(city_file)
    store_city(store, city)
    with store.begin() as connection:
        write_crops(connection, [crop("d1/s1/b1/c1", 0), crop("d1/s1/b1/c2", 1)], 300)
    new = changed(city, "d1/s1/b1/c1", position=(0.0, 1.5), overlaps=(), clock_uncertainty_s=9)
    walk = new.walks[0].model_copy(update={"shortest_s": 31.0})
    new = new.model_copy(update={"walks": (walk,), "timezone": "UTC"})
    assert store_city(store, new) and read_city(store) == canonical(new)
    with store.signed_in() as connection:
        details = connection.scalars(text("SELECT details FROM audit ORDER BY id DESC LIMIT 1")).one()
    assert details["changed"] == {
        "d1/s1/b1/c1": {
            "position": [[12.0, 40.5], [0.0, 1.5]],
            "clock_uncertainty_s": [0.5, 9.0],
            "overlaps": [["d1/s1/b1/c2"], []],
        },
        "d1/s1/b1/c2": {"overlaps": [["d1/s1/b1/c1"], []]},
        "d1/s1/b-2 -> d1/s1/b1": {"shortest_s": [30.0, 31.0]},
        "timezone": ["Europe/Berlin", "UTC"],
    }
    assert details["geometry_changed"] == ["d1", "d1/s1", "d1/s1/b1"]


def test_a_unit_that_a_watermark_names_is_not_removed(store: Store, city_file: Path) -> None:
    city = read_city_file(city_file)
    store_city(store, city)
    with store.begin() as connection:
        connection.execute(text("INSERT INTO watermark (unit) VALUES ('d1/s1/b-2')"))
    with pytest.raises(CityError, match=r"runs or searches refer to cannot be removed.*d1/s1/b-2"):
        store_city(store, without(city, "d1/s1/b-2"))


def test_no_city_says_how_to_load_one(store: Store) -> None:
    with pytest.raises(CityError, match="urban-reid city load"):
        read_city(store)


WALKS = "units: [{code: d1}, {code: d2}]\nwalks:\n  - {from: d1, to: d2, shortest_s: %s}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("units: &a [*a]", "line 1, column 8: anchors and aliases are not allowed"),
        ("units:\n  - {code: d1, code: d2}", "line 2, column 16: the key 'code' is repeated"),
        ("units:\n  - {code: d1}\nunits:\n  - {code: d2}", "line 3, column 1: the key 'units' is repeated"),
        ("units: [}", "line 1, column 9"),
        ("", "is not a city"),
        ("- d1", "is not a city"),
        ("timezone: Mars\nunits: [{code: d1}]", "line 1, column 1, timezone: 'Mars' is no time zone"),
        ("timezone: 5\nunits: [{code: d1}]", "timezone: Input should be a valid string; write it in quotes"),
        ("timezone: UTC\nunits: []", "line 2, column 1, units: "),
        ("units:\n", "line 1, column 1, units: "),
        ("units:\n- d1", "line 2, column 3, unit 1: "),
        ("units:\n- code: 1", "line 2, column 3, unit 1, code: Input should be a valid string; write it in quotes"),
        ("units: [{code: true}]", "unit True, code: Input should be a valid string; write it in quotes"),
        ("units:\n- {code: d1}\n- {name: x}", "line 3, column 3, unit 2, code: Field required"),
        ("units: [{code: D1}]", "line 1, column 10, unit D1, code: 'D1' is not a unit code"),
        ('units: [{code: d1, name: "a\\0b"}]', "line 1, column 20, unit d1, name: holds a NUL"),
        ("units: [{code: d1}, {code: d1}]", "unit codes are there twice: d1"),
        ("units: [{code: d1/s1}]", "d1/s1: its parent d1 is not among the units"),
        ("units: [{code: d1}, {code: d1/s1}, {code: d1/s1/c1, source: c1}]", "d1/s1/c1 is a building by its depth"),
        ("units: [{code: d1/s1/b1/c1, position: [.nan, 0]}]", "column 40, unit d1/s1/b1/c1, position, 0: .*finite"),
        ("units: [{code: d1/s1/b1/c1, position: [1, true]}]", "position, 1: true is not a number"),
        ("units: [{code: d1}, {code: d2}]\nwalks: [{from: d1, to: dd2, shortest_s: 3}]", "nearest: d2"),
        # A misspelt key, not the right one that is missing because of it
        (
            "units:\n- code: d1\n- name: x\n  cod: d2",
            "line 4, column 3, unit 2: .*'cod'; did you mean 'code'",
        ),
        ("unit: [{code: d1}]", "line 1, column 1: unknown key 'unit'; did you mean 'units'"),
        ("units: [{code: d1, color: red}]", "line 1, column 20, unit d1: unknown key 'color'"),
        ("units: [{code: d1}]\n1: 2", "line 2, column 1: unknown key '1'"),
        (WALKS.replace("to:", "too:") % 3, "line 3, column 16, walk 1: unknown key 'too'; did you mean 'to'"),
        # Numbers that are none
        (WALKS % "-3", "line 3, column 24, walk 1, shortest_s: "),
        (WALKS % "1:30", "line 3, column 24, walk 1, shortest_s: Input should be a valid number"),
        (WALKS % "yes", "walk 1, shortest_s: Input should be a valid number"),
        (WALKS % "true", "walk 1, shortest_s: true is not a number"),
        (WALKS % "~", "walk 1, shortest_s: Input should be a valid number"),
        (WALKS % ".inf", "walk 1, shortest_s: Input should be a finite number"),
        (WALKS % ("9" * 400), "walk 1, shortest_s: Input should be a valid number"),
        (WALKS % "{{ x }}", "line 3, column 37: a key must be text; put text that begins with { or \\[ in quotes"),
    ],
)
def test_a_bad_file_gives_one_line_that_says_where(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "city.yaml"
    path.write_text(content)
    with pytest.raises(CityError, match=message) as caught:
        read_city_file(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert isinstance(caught.value, UsageError)


def test_a_walk_of_060_seconds_takes_60_and_words_of_yaml_1_1_are_names(tmp_path: Path) -> None:
    path = tmp_path / "city.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (WALKS % "060").replace("code: d2", "code: d2, name: no").encode())
    city = read_city_file(path)
    assert city.walks[0].shortest_s == 60 and city.units[1].name == "no"


def test_files_that_cannot_be_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CityError, match="cannot be read"):
        read_city_file(tmp_path / "missing.yaml")
    with pytest.raises(CityError, match="cannot be read"):
        read_city_file(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"units: \xff")
    with pytest.raises(CityError, match="not UTF-8"):
        read_city_file(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * 5_000_001)
    with pytest.raises(CityError, match="larger than 5 MB"):
        read_city_file(tmp_path / "large.yaml")


def test_a_walk_that_is_there_twice_must_agree(city_file: Path) -> None:
    city_file.write_text(CITY + "  - {from: d1/s1/b-2, to: d1/s1/b1, shortest_s: 31}\n")
    with pytest.raises(CityError, match="is there twice with different times"):
        canonical(read_city_file(city_file))
