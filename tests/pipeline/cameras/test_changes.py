"""Cameras added, changed and removed, with the city's units and the audit."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from pipeline.cameras.changes import Wanted, add_cameras, find_feed, pause_camera, remove_camera, set_camera
from pipeline.cameras.rows import read_feeds
from pipeline.cameras.secrets import FILE, write_secret
from pipeline.city.units import find_city, read_city, store_city
from pipeline.store import Store
from schemas.city_file import City
from schemas.errors import CityError, InputError, UsageError
from schemas.feeds import Feed

ADDRESS = "rtsp://10.0.0.5/stream"


def wanted(camera: str = "d1/s1/b1/c1", address: str = ADDRESS, /, **unit: Any) -> Wanted:
    return Wanted(Feed(camera=camera, address=address), unit)


def audited(store: Store) -> list[tuple[str, str | None, str | None, dict[str, Any]]]:
    with store.signed_in() as connection:
        rows = connection.execute(text("SELECT action, unit, reason, details FROM audit ORDER BY id")).all()
    return [tuple(row) for row in rows]


def test_a_camera_brings_the_units_above_it(store: Store) -> None:
    assert add_cameras(store, [wanted(name="North door", position=(1, 2))], operator="anna") == {"d1/s1/b1/c1": "added"}
    city = read_city(store)
    assert [unit.code for unit in city.units] == ["d1", "d1/s1", "d1/s1/b1", "d1/s1/b1/c1"]
    assert city.units[3].position == (1.0, 2.0) and city.units[3].name == "North door" and city.timezone == "UTC"
    assert find_feed(store, "d1/s1/b1/c1") == wanted().feed
    assert [(action, unit) for action, unit, *_ in audited(store)] == [
        ("city.change", None),
        ("camera.add", "d1/s1/b1/c1"),
    ]
    assert audited(store)[1][3] == {"address": ADDRESS}


def test_the_same_again_writes_nothing_and_another_feed_is_refused(store: Store) -> None:
    add_cameras(store, [wanted()], operator="anna")
    before = audited(store)
    assert add_cameras(store, [wanted()], operator="anna") == {"d1/s1/b1/c1": "unchanged"}
    other = wanted("d1/s1/b1/c1", "rtsp://10.0.0.6/stream")
    with pytest.raises(UsageError, match=rf"is taken in already, from {ADDRESS}; `urban-reid cameras set"):
        add_cameras(store, [wanted("d1/s1/b1/c2"), other], operator="anna")
    assert audited(store) == before and len(read_city(store).units) == 4, "all or nothing"
    pause_camera(store, "d1/s1/b1/c1", paused=True, operator="anna", reason="works")
    assert add_cameras(store, [other], operator="anna", update=True) == {"d1/s1/b1/c1": "changed"}
    assert find_feed(store, "d1/s1/b1/c1") == other.feed.model_copy(update={"paused": True})


def test_what_is_known_of_a_camera_changes_and_the_audit_says_what_it_was(store: Store) -> None:
    cameras = ["d1/s1/b1/c1", "d1/s1/b1/c2", "d1/s1/b1/c3"]
    add_cameras(
        store,
        [wanted(cameras[0], overlaps=(cameras[1],)), *(wanted(camera) for camera in cameras[1:])],
        operator="anna",
    )
    given = {"overlaps": (cameras[2],), "position": (5, 6)}
    assert set_camera(store, cameras[0], {"looks_per_s": "2.5"}, given, operator="bob") == "changed"
    by_code = {unit.code: unit for unit in read_city(store).units}
    assert by_code[cameras[0]].overlaps == (cameras[2],) and by_code[cameras[1]].overlaps == ()
    assert find_feed(store, cameras[0]).looks_per_s == 2.5
    (_, _, _, city), (_, unit, _, feed) = audited(store)[-2:]
    assert city["changed"][cameras[0]] == {
        "position": [None, [5.0, 6.0]],
        "overlaps": [[cameras[1]], [cameras[2]]],
    }
    assert (unit, feed) == (cameras[0], {"looks_per_s": [5, 2.5]})
    before = audited(store)
    assert set_camera(store, cameras[0], {"looks_per_s": 2.5}, given, operator="bob") == "unchanged"
    with pytest.raises(UsageError, match=r"looks_per_s: .*greater than or equal to 0.5"):
        set_camera(store, cameras[0], {"looks_per_s": 0}, {"position": None}, operator="bob")
    with pytest.raises(CityError, match="overlaps d2/s1/b1/c1, which is no other camera"):
        set_camera(store, cameras[0], {}, {"overlaps": ("d2/s1/b1/c1",)}, operator="bob")
    assert audited(store) == before


def test_a_camera_without_a_feed_has_a_place_all_the_same(store: Store) -> None:
    store_city(store, City.model_validate({"units": [{"code": c} for c in ("d1", "d1/s1", "d1/s1/b1", "d1/s1/b1/c1")]}))
    assert set_camera(store, "d1/s1/b1/c1", {}, {"position": (1, 2)}, operator="bob") == "changed"
    with pytest.raises(UsageError, match="d1/s1/b1/c1 is not taken in; `urban-reid cameras add"):
        set_camera(store, "d1/s1/b1/c1", {"fps": 5}, {}, operator="bob")
    with pytest.raises(CityError, match="no unit 'd1/s1/b1/c9' in this city; nearest: d1/s1/b1/c1"):
        set_camera(store, "d1/s1/b1/c9", {}, {"position": (1, 2)}, operator="bob")


def test_a_camera_pauses_resumes_and_goes_and_its_unit_stays(store: Store) -> None:
    add_cameras(store, [wanted()], operator="anna")
    for paused in (True, False):
        assert pause_camera(store, "d1/s1/b1/c1", paused=paused, operator="anna", reason="works")
        assert not pause_camera(store, "d1/s1/b1/c1", paused=paused, operator="anna", reason="works")
    remove_camera(store, "d1/s1/b1/c1", operator="anna", reason="taken down")
    assert [(action, reason) for action, _, reason, _ in audited(store)[2:]] == [
        ("camera.pause", "works"),
        ("camera.resume", "works"),
        ("camera.remove", "taken down"),
    ]
    with store.begin() as connection:
        assert read_feeds(connection) == []
    assert len(read_city(store).units) == 4
    for gone in (
        lambda: remove_camera(store, "d1/s1/b1/c1", operator="anna", reason="again"),
        lambda: find_feed(store, "d1/s1/b1/c1"),
    ):
        with pytest.raises(UsageError, match="is not taken in"):
            gone()


def test_what_a_feed_names_must_be_there(store: Store, tmp_path: Path) -> None:
    home = store.settings.home

    def add(**fields: Any) -> None:
        feed = Feed.model_validate({"camera": "d1/s1/b1/c1", "address": ADDRESS} | fields)
        add_cameras(store, [Wanted(feed)], operator="anna")

    for fields, message in (
        ({"address": str(tmp_path / "gone.avi")}, r"gone.avi: cannot be read: No such file"),
        ({"secret": "gate"}, "no secret 'gate'"),
        ({"detector": "other"}, "no detector 'other' in this home, which has hog"),
        ({"address": str(tmp_path), "start": "2026-01-01T08:00:00Z"}, "start is of one file"),
    ):
        with pytest.raises((InputError, UsageError), match=message):
            add(**fields)
    assert find_city(store) is None
    write_secret(home / FILE, "gate", "viewer", "hushhush")
    add(secret="gate")
    assert "hushhush" not in str(audited(store))
    remove_camera(store, "d1/s1/b1/c1", operator="anna", reason="another")
    add(address=str(tmp_path))
    assert find_feed(store, "d1/s1/b1/c1").kind == "folder"
    (tmp_path / "plaza.avi").touch()
    set_camera(store, "d1/s1/b1/c1", {"address": f"{tmp_path}/plaza.avi/"}, {}, operator="anna")
    assert find_feed(store, "d1/s1/b1/c1").address == str(tmp_path / "plaza.avi")
