"""Two hosts with cameras, as processes: one is killed, and the other goes on with its cameras; no crop twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sqlalchemy import text

from pipeline.cameras.hosts import read_holders
from pipeline.cameras.overview import overview
from pipeline.cameras.rows import write_feed
from pipeline.cameras.secrets import FILE, write_secret
from pipeline.store import Store
from schemas.feeds import Feed
from tests.helpers.rtsp_server import PASSWORD, USER, serving
from tests.helpers.video_files import write_video
from tests.helpers.worker_hosts import Host, hosts, other_home, turns_at, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

CAMERAS = ("d1/s1/b1/c1", "d1/s1/b2/c2")
#: Lost after so long; what a host may look at is given, so that the trial of a busy machine does not decide.
VARIABLES = {"URBAN_REID_HOST_LOST_S": "20", "URBAN_REID_CAMERA_LOOKS_PER_S": "40"}


def rows(store: Store, query: str) -> list[Any]:
    with store.begin() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def holders(store: Store) -> dict[str, str]:
    with store.begin() as connection:
        return read_holders(connection)


def crops(store: Store, camera: str, host: str) -> int:
    """Crops of a camera that a host has taken in, which is its operator."""
    query = "SELECT count(*) FROM crop c JOIN ingest_batch b ON b.id = c.batch_id"
    return int(rows(store, f"{query} WHERE c.camera = '{camera}' AND b.operator = '{host}'")[0][0])


@contextmanager
def two_hosts(store: Store) -> Iterator[tuple[Host, Host]]:
    settings = store.settings
    with other_home(settings) as home:
        words = ("--role", "cameras")
        a = Host("a", settings, settings.home, *words, **VARIABLES)
        b = Host("b", settings, home, *words, **VARIABLES)
        with hosts(a, b):
            yield a, b


def test_the_cameras_of_a_killed_host_go_to_the_other(city_store: Store, plaza: Path, detector: str) -> None:
    store = city_store
    write_secret(store.settings.home / FILE, "gate", USER, PASSWORD)
    with serving({"gate": [str(plaza)], "back": [str(plaza)]}) as server:
        with store.begin() as connection:
            for camera, mount in zip(CAMERAS, ("gate", "back"), strict=True):
                address = server.address(mount)
                write_feed(connection, Feed(camera=camera, address=address, secret="gate", detector=detector))
        with two_hosts(store) as (a, b):

            def said() -> str:
                return f"{holders(store)} {rows(store, 'SELECT * FROM camera_lease')}\n{a.said()}\n{b.said()}"

            def shared() -> dict[str, str]:
                held = holders(store)
                return held if len(set(held.values())) == 2 else {}

            # Whoever comes first may get both; one moves when they have settled.
            held = wait_until(shared, said)
            of_a, of_b = ({host: camera for camera, host in held.items()}[name] for name in ("a", "b"))
            wait_until(lambda: crops(store, of_a, "a") and crops(store, of_b, "b"), said)
            a.kill()
            wait_until(lambda: holders(store) == dict.fromkeys(CAMERAS, "b"), said)
            before = crops(store, of_a, "b")
            wait_until(lambda: crops(store, of_a, "b") > before, said)
            with store.begin() as connection:
                seen = overview(connection, rows(store, "SELECT now()")[0][0])
            assert {one.host for one in seen} == {"b"}
            [(reason,)] = rows(
                store, f"SELECT reason FROM camera_outage WHERE camera = '{of_a}' ORDER BY id DESC LIMIT 1"
            )
            assert reason == "it had no host"
            b.end()
            assert holders(store) == {} and rows(store, "SELECT name FROM camera_host") == []
            assert PASSWORD not in said()
    # One host after the other looked at each camera, never two at once. One of the two may have had it before, alone.
    turns = {camera: turns_at(store, camera) for camera in CAMERAS}
    assert turns[of_a] in (["a", "b"], ["b", "a", "b"]) and turns[of_b] in (["b"], ["a", "b"]), turns


@pytest.mark.slow
def test_a_file_that_a_killed_host_had_begun_is_taken_in_once(
    city_store: Store, plaza: Path, detector: str, tmp_path: Path
) -> None:
    store, start = city_store, datetime(2026, 1, 1, 12, tzinfo=UTC)
    capture = cv2.VideoCapture(str(plaza))
    frames = [np.asarray(capture.read()[1], np.uint8) for _ in range(60)]
    video = write_video(tmp_path / "long.avi", frames * 6)
    with store.begin() as connection:
        write_feed(connection, Feed(camera=CAMERAS[0], address=str(video), start=start, detector=detector))
    with two_hosts(store) as (a, b):

        def said() -> str:
            return f"{holders(store)}\n{a.said()}\n{b.said()}"

        begun = wait_until(lambda: rows(store, "SELECT state FROM camera_file") and holders(store), said)
        first, other = (a, b) if begun[CAMERAS[0]] == "a" else (b, a)
        first.kill()
        wait_until(lambda: rows(store, "SELECT FROM camera_file WHERE state = 'taken'"), said)
        other.end()
    found = rows(store, "SELECT captured_at, box, count(*) FROM crop WHERE withdrawn_at IS NULL GROUP BY 1, 2")
    assert found and all(many == 1 for *_, many in found)
