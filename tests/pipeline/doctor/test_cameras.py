"""What the doctor says of cameras and of how soon people are decided on."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from pipeline.cameras.overview import LATE
from pipeline.cameras.rows import went_down, write_feed, write_health
from pipeline.doctor.cameras import check_cameras, check_detectors
from pipeline.doctor.check import State
from pipeline.store import Store
from reid_core.detection.files import make_default
from schemas.feeds import Feed, Health
from tests.helpers.rows import insert_city

DOWN, FEW, FINE = (f"d1/s1/b1/c{n}" for n in (1, 2, 3))


def test_cameras_that_are_down_and_looks_that_are_missing(store: Store) -> None:
    assert list(check_cameras(store)) == []
    now = datetime.now(UTC)
    with store.begin() as connection:
        insert_city(connection)
        for camera in (DOWN, FEW, FINE):
            write_feed(connection, Feed(camera=camera, address="rtsp://10.0.0.5/stream"))
        went_down(connection, DOWN, now - timedelta(minutes=12), "no picture for 15 s")
        write_health(connection, Health(camera=DOWN, state="down", at=now, detail="no picture for 15 s"))
        write_health(connection, Health(camera=FEW, state="up", at=now, looks_per_s=2.1))
        write_health(connection, Health(camera=FINE, state="up", at=now, looks_per_s=4.9))
    cameras, looks = check_cameras(store)
    assert (cameras.state, cameras.found) == (
        State.TO_DO,
        f"1 down, 2 up; {DOWN}: down for 12 min: no picture for 15 s",
    )
    assert looks.found == f"1 of 2 streams are looked at less often than asked, per second: {FEW} 2.1 of 5"
    with store.begin() as connection:
        for camera in (DOWN, FEW):
            write_health(connection, Health(camera=camera, state="up", at=now, looks_per_s=5))
        write_health(connection, Health(camera=FINE, state="up", at=now, looks_per_s=5, black=True))
    store.settings = store.settings.model_copy(update={"hardware_decoding": "dxva2"})
    cameras, looks, hardware = check_cameras(store)
    assert hardware.state is State.TO_DO and hardware.found.startswith("no dxva2 to decode with")
    store.settings = store.settings.model_copy(update={"hardware_decoding": "off"})
    assert cameras.found == f"3 up; {FINE}: its picture is black"
    assert looks.state is State.OK
    with store.begin() as connection:
        connection.execute(text("UPDATE camera_health SET at = at - interval '2 minutes'"))
    cameras, _ = check_cameras(store)
    assert (cameras.state, cameras.found) == (State.OK, "3 not running, because `urban-reid up` does not run")


def test_cameras_that_nothing_looks_at_while_it_looks_at_others(store: Store) -> None:
    now = datetime.now(UTC)
    with store.begin() as connection:
        insert_city(connection)
        for camera in (DOWN, FEW, FINE):
            write_feed(connection, Feed(camera=camera, address="rtsp://10.0.0.5/stream"))
        write_health(connection, Health(camera=DOWN, state="up", at=now - timedelta(minutes=5)))
        write_health(connection, Health(camera=FEW, state="starting", at=now, detail=LATE))
        write_health(connection, Health(camera=FINE, state="starting", at=now))
    cameras, _ = check_cameras(store)
    assert cameras.state is State.TO_DO and cameras.found == (
        f"2 starting, 1 not running; {DOWN}: nothing looks at it, and others are looked at; "
        f"{FEW}: nothing looks at it after a minute"
    )


def test_recorded_files_that_were_refused(store: Store) -> None:
    with store.begin() as connection:
        insert_city(connection)
        write_feed(connection, Feed(camera=FINE, address="/recordings/door/"))
    _, recordings = check_cameras(store)
    assert (recordings.name, recordings.state) == ("recordings", State.OK)
    with store.begin() as connection:
        for name, state in (("a.mp4", "refused"), ("b.mp4", "taken")):
            connection.execute(
                text(
                    "INSERT INTO camera_file (camera, path, bytes, modified_ns, state, note) "
                    "VALUES (:camera, :path, 1, 1, :state, 'is no video')"
                ),
                {"camera": FINE, "path": f"/recordings/door/{name}", "state": state},
            )
    _, recordings = check_cameras(store)
    assert (recordings.state, recordings.found) == (
        State.TO_DO,
        f"recorded files were refused: 1 of {FINE}, the last: /recordings/door/a.mp4 is no video",
    )


def test_detectors_that_are_missing_or_do_not_open(store: Store) -> None:
    found = check_detectors(store)
    assert (found.state, found.found) == (State.OK, "HOG can be opened")
    with store.begin() as connection:
        insert_city(connection)
        write_feed(connection, Feed(camera=DOWN, address="/a/", detector="gone"))
    found = check_detectors(store)
    assert found.state is State.TO_DO
    assert found.found == f"{DOWN}: gone: no such file, and no detector of this home, which has hog"
    folder = store.settings.detectors_dir / "broken"
    folder.mkdir(parents=True)
    (folder / "broken.xml").write_text("no network")
    make_default(store.settings, "broken")
    found = check_detectors(store)
    assert found.state is State.TO_DO
    assert found.found.startswith("the default: ") and "broken.xml" in found.found and "and 1 more" in found.found
