"""Which districts have closed windows to resolve, as the resolver of `up` asks."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from pipeline.cameras.rows import write_health
from pipeline.city import watermarks
from pipeline.ingest.batches import Source, end_batch, open_batch
from pipeline.ingest.looks import WRITE_EVERY
from pipeline.resolve.closing import GRACE_S, LATE_S, PAUSE_S, Closing
from pipeline.store import Store
from schemas.feeds import Health, State
from schemas.parameters import ResolveParameters
from schemas.times import parse_time
from tests.helpers.rows import insert_city, insert_crop, insert_model

EIGHT = parse_time("2026-01-01T08:00:00Z")
FIRST, SECOND, OTHER = "d1/s1/b1/c1", "d1/s1/b1/c2", "d1/s1/b2/c1"


def at(minutes: float) -> datetime:
    return EIGHT + timedelta(minutes=minutes)


class Cameras:
    """A city whose crops come in, and what is due at a time of the steady clock in seconds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.closing = Closing(store.settings.association)
        with store.begin() as connection:
            insert_city(connection)
            connection.execute(text("UPDATE model SET in_use = true WHERE id = :id"), {"id": insert_model(connection)})

    def begin(self, name: str) -> int:
        with self.store.begin() as connection:
            return open_batch(connection, Source("test", name, name.encode() * 32), "anna")

    def take(self, camera: str, minutes: float, batch: int) -> None:
        """A crop of the batch, with its camera's mark."""
        with self.store.begin() as connection:
            crop = insert_crop(connection, camera, at(minutes))
            connection.execute(
                text("UPDATE crop SET batch_id = :batch WHERE id = :crop"), {"batch": batch, "crop": crop}
            )
            watermarks.mark_crops(connection, [(camera, at(minutes))], 300)

    def see(self, camera: str, minutes: float, state: State = "up") -> None:
        """The camera's frames up to a time have been looked at."""
        with self.store.begin() as connection:
            write_health(connection, Health(camera=camera, state=state, at=at(minutes), last_frame_at=at(minutes)))

    def due(self, now: float) -> list[tuple[str, datetime | None]]:
        with self.store.begin() as connection:
            return [(one.unit, one.to_time) for one in self.closing.look(connection, now)]

    def resolve(self, until: datetime | None, now: float, seconds: float = 0.1) -> None:
        """A run that leaves the windows from `until` on, and ends at `now`."""
        with self.store.begin() as connection:
            left = "CASE WHEN CAST(:until AS timestamptz) IS NOT NULL THEN greatest(dirty_from, :until) END"
            connection.execute(text(f"UPDATE watermark SET dirty_from = {left}"), {"until": until})
        self.closing.resolved(ResolveParameters(unit="d1", to_time=until), now - seconds, now)


@pytest.fixture
def cameras(store: Store) -> Cameras:
    return Cameras(store)


def test_an_ingest_that_ended_is_due_at_once_and_whole(cameras: Cameras) -> None:
    assert cameras.due(0) == []
    batch = cameras.begin("a")
    cameras.take(FIRST, 1, batch)
    assert cameras.due(1) == [], "its window may get more"
    end_batch(cameras.store, batch, [])
    assert cameras.due(2) == [("d1", None)]
    cameras.resolve(None, 3)
    assert cameras.due(4) == []


def test_windows_of_an_ingest_that_goes_on_close_behind_it(cameras: Cameras) -> None:
    batch = cameras.begin("a")
    cameras.take(FIRST, 1, batch)
    cameras.take(FIRST, 5.05, batch)
    assert cameras.due(0) == [], "a passage that ends in the first window may go on"
    cameras.take(FIRST, 5.07, batch)
    assert cameras.due(1) == [("d1", at(5))]
    cameras.resolve(at(5), 2)
    assert cameras.due(3) == []
    assert cameras.due(1 + GRACE_S + 1) == [("d1", None)], "a killed ingest holds nothing open for long"


def test_the_slower_camera_counts_as_long_as_it_moves(cameras: Cameras) -> None:
    batch = cameras.begin("a")
    cameras.take(SECOND, 3, batch)
    cameras.take(FIRST, 7, batch)
    assert cameras.due(0) == []
    cameras.take(FIRST, 8, batch)
    assert cameras.due(GRACE_S) == []
    assert cameras.due(GRACE_S + 1) == [("d1", at(5))], "the second stands still"


def test_old_recordings_do_not_hold_up_live_cameras(cameras: Cameras) -> None:
    batch = cameras.begin("a")
    cameras.take(OTHER, -10_000, batch)
    done = cameras.begin("b")
    cameras.take(FIRST, 1, done)
    end_batch(cameras.store, done, [])
    cameras.see(SECOND, 4)
    assert cameras.due(0) == [("d1", at(0))], "what is recorded, as far as it is there"
    cameras.resolve(at(0), 1)
    cameras.take(OTHER, -9_990, batch)
    cameras.see(SECOND, 6)
    assert cameras.due(10) == [("d1", at(5))]


@pytest.mark.parametrize(("state", "holds"), [("up", True), ("down", False), ("ended", False), ("refused", False)])
def test_a_camera_that_is_looked_at_holds_windows_open_without_people(
    cameras: Cameras, state: State, holds: bool
) -> None:
    batch = cameras.begin("a")
    cameras.take(FIRST, 1, batch)
    end_batch(cameras.store, batch, [])
    written = (4 + WRITE_EVERY.total_seconds() + 1) / 60  # when the crops of the last passage are in the store
    for second, minutes in enumerate((2, 3, 4.99, 4.99 + written)):
        cameras.see(OTHER, minutes, state)
        assert bool(cameras.due(second)) is not holds
    cameras.see(OTHER, 5 + written, state)
    assert cameras.due(5) == [("d1", at(5) if holds else None)]


def test_late_crops_wait_for_each_other_and_further_windows_do_not(cameras: Cameras) -> None:
    batch = cameras.begin("a")
    cameras.take(FIRST, 6, batch)
    cameras.resolve(at(5), 0)
    cameras.take(FIRST, 2, batch)
    assert cameras.due(PAUSE_S + 1) == []
    assert cameras.due(LATE_S - 1) == []
    assert cameras.due(LATE_S) == [("d1", at(5))]
    cameras.take(FIRST, 12, batch)
    assert cameras.due(PAUSE_S + 1) == [("d1", at(10))]
    cameras.resolve(at(10), 60, seconds=50)
    cameras.take(FIRST, 18, batch)
    assert cameras.due(60 + 49) == [], "a long run is followed by a long pause"
    assert cameras.due(60 + 50) == [("d1", at(15))]


def test_without_a_model_in_use_nothing_is_due(cameras: Cameras) -> None:
    batch = cameras.begin("a")
    cameras.take(FIRST, 1, batch)
    end_batch(cameras.store, batch, [])
    with cameras.store.begin() as connection:
        connection.execute(text("UPDATE model SET in_use = false"))
    assert cameras.due(0) == []
