from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from pipeline.cameras.rows import (
    came_up,
    read_feeds,
    read_health,
    read_outages,
    remove_feed,
    went_down,
    write_feed,
    write_health,
)
from pipeline.store import Store
from schemas.errors import StoreError
from schemas.feeds import Feed, Health, Outage
from tests.helpers.rows import CAMERA, insert_city

OTHER = "d1/s1/b2/c1"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FULL = Feed(
    camera=CAMERA,
    address="/videos/plaza.avi",
    looks_per_s=2.5,
    detector="small",
    region=(0, 10, 384, 288),
    masks=(((0, 0), (0.5, 0), (0.25, 1)), ((0.5, 0.5), (1, 0.5), (1, 1))),
    motion_gate=True,
    start=NOON,
    fps=12.5,
    paused=True,
)


@pytest.fixture
def city(store: Store) -> Store:
    with store.begin() as connection:
        insert_city(connection)
    return store


def test_a_feed_comes_back_as_it_was_written(city: Store) -> None:
    stream = Feed(camera=OTHER, address="rtsp://10.0.0.5/stream", secret="gate")
    with city.begin() as connection:
        for feed in (stream, FULL):
            write_feed(connection, feed)
        assert read_feeds(connection) == [FULL, stream]
        write_feed(connection, changed := Feed(camera=CAMERA, address="/videos/"))
        assert read_feeds(connection) == [changed, stream]


def test_a_feed_of_a_camera_that_the_city_lacks_is_refused(city: Store) -> None:
    with pytest.raises(StoreError, match="camera_feed_camera_fkey"), city.begin() as connection:
        write_feed(connection, FULL.model_copy(update={"camera": "d1/s1/b1/c9"}))


def test_the_newest_health_counts(city: Store) -> None:
    first = Health(camera=CAMERA, state="starting", at=NOON)
    full = Health(
        camera=CAMERA,
        state="up",
        at=NOON + timedelta(seconds=5),
        detail="slower than wanted",
        last_frame_at=NOON,
        looks_per_s=4.9,
        people=3,
        lag_s=0.2,
        reconnects=2,
        clock_offset_s=-1.5,
        frozen=True,
        black=True,
    )
    with city.begin() as connection:
        for health in (first, full):
            write_health(connection, health)
            assert read_health(connection) == {CAMERA: health}


def test_an_outage_begins_once_and_ends_once(city: Store) -> None:
    with city.begin() as connection:
        assert not came_up(connection, CAMERA, NOON)
        assert went_down(connection, CAMERA, NOON, "stalled")
        assert not went_down(connection, CAMERA, NOON + timedelta(minutes=1), "no route")
        assert came_up(connection, CAMERA, NOON + timedelta(minutes=29))
        assert not came_up(connection, CAMERA, NOON + timedelta(minutes=30))
        assert went_down(connection, CAMERA, NOON + timedelta(hours=1), "no route")
        assert came_up(connection, CAMERA, NOON)  # the clock was set back
        assert went_down(connection, OTHER, NOON, "wrong password")
        found = [(o.camera, o.down_at, o.up_at, o.reason) for o in read_outages(connection, "d1")]
    later = NOON + timedelta(hours=1)
    assert found == [
        (CAMERA, later, later, "no route"),
        (CAMERA, NOON, NOON + timedelta(minutes=29), "stalled"),
        (OTHER, NOON, None, "wrong password"),
    ]


def test_outages_of_a_unit_and_a_period(city: Store) -> None:
    minute = timedelta(minutes=1)
    with city.begin() as connection:
        for camera, start in ((CAMERA, NOON), (CAMERA, NOON + 20 * minute), (OTHER, NOON)):
            went_down(connection, camera, start, "stalled")
            if camera == CAMERA:
                came_up(connection, camera, start + 10 * minute)

        def begun(unit: str, start: datetime | None, end: datetime | None) -> list[datetime]:
            return [outage.down_at for outage in read_outages(connection, unit, start, end)]

        assert begun("d1/s1/b1", None, None) == [NOON + 20 * minute, NOON]
        assert [outage.camera for outage in read_outages(connection, "d1", newest=2)] == [CAMERA, CAMERA]
        assert begun("d1/s1/b1", NOON + 9 * minute, NOON + 20 * minute) == [NOON]
        assert begun("d1/s1/b1", NOON + 10 * minute, None) == [NOON + 20 * minute]
        assert begun("d1/s1/b2", NOON + 60 * minute, None) == [NOON]
        assert begun("d1/s1/b", None, None) == []


def test_an_outage_says_when_it_was() -> None:
    outage = Outage(camera=CAMERA, down_at=NOON, up_at=NOON + timedelta(minutes=29), reason="stalled")
    zone = ZoneInfo("Europe/Berlin")
    assert outage.when(zone) == "1 Jan 2026 13:00:00-13:29:00"
    assert outage.model_copy(update={"up_at": None}).when(zone) == "since 1 Jan 2026 13:00:00"


def test_a_feed_goes_and_its_outages_stay(city: Store) -> None:
    with city.begin() as connection:
        write_feed(connection, FULL)
        write_health(connection, Health(camera=CAMERA, state="up", at=NOON))
        went_down(connection, CAMERA, NOON, "stalled")
        remove_feed(connection, CAMERA)
        assert not read_feeds(connection) and not read_health(connection)
        (outage,) = read_outages(connection, CAMERA)
        assert outage.down_at == NOON and outage.up_at is not None, "it is over for a camera that nobody looks at"


@pytest.mark.parametrize("change", ["down_at = now()", "reason = ''", "camera = 'd1/s1/b1/c2'"])
def test_what_an_outage_says_stays(city: Store, change: str) -> None:
    with pytest.raises(StoreError, match="permission denied"), city.begin() as connection:
        connection.execute(text(f"UPDATE camera_outage SET {change}"))
