"""Streams that stay up, from a real RTSP server: killed and back, stalled, refused, resized, damaged, two at once."""

import logging
import os
import signal
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.cameras.outages import DEBOUNCE
from pipeline.cameras.secrets import FILE, write_secret
from tests.helpers.rtsp_server import PASSWORD, USER, serving
from tests.pipeline.cameras.conftest import Stepped, stepped

C1, C2 = "d1/s1/b1/c1", "d1/s1/b2/c2"

pytestmark = pytest.mark.system


def crops_of(cameras: Stepped, camera: str) -> int:
    return int(cameras.rows(f"SELECT count(*) FROM crop WHERE camera = '{camera}'")[0][0])


def assert_gaps_are_explained(cameras: Stepped, camera: str) -> None:
    """Between two crops that lie further apart than a stream may be gone without a word, there was an outage."""
    times = [row[0] for row in cameras.rows(f"SELECT captured_at FROM crop WHERE camera = '{camera}' ORDER BY 1")]
    outages = cameras.rows(f"SELECT down_at, up_at FROM camera_outage WHERE camera = '{camera}'")
    assert len(times) > 10
    for before, after in pairwise(times):
        if after - before > DEBOUNCE + timedelta(seconds=2):
            assert any(down < after and up > before for down, up in outages if up), (before, after, outages)


def test_two_streams_of_which_one_is_killed_stalled_and_resized(
    cameras: Stepped, plaza: Path, detector: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "urban_reid.cameras")
    write_secret(cameras.store.settings.home / FILE, "gate", USER, PASSWORD)
    with serving({"gate": [str(plaza), f"{plaza}:640x360"]}) as gate, serving({"back": [str(plaza)]}) as back:
        for camera, server, mount in ((C1, gate, "gate"), (C2, back, "back")):
            cameras.feed(camera=camera, address=server.address(mount), secret="gate", detector=detector)
        cameras.until(lambda: cameras.state(C1) == cameras.state(C2) == "up")
        other = cameras.process(C2)
        cameras.until(lambda: crops_of(cameras, C1) and crops_of(cameras, C2))

        gate.order("gate stall")
        cameras.until(lambda: cameras.state(C1) == "down")
        gate.order("gate go")
        cameras.until(lambda: cameras.state(C1) == "up")
        [(down_at, up_at, reason)] = cameras.rows("SELECT down_at, up_at, reason FROM camera_outage")
        assert reason == "sends nothing" and up_at - down_at >= DEBOUNCE

        gate.kill()
        cameras.until(lambda: cameras.state(C1) == "down")
        cameras.until(lambda: len(cameras.rows("SELECT FROM camera_outage")) == 2)
        gate.start()
        cameras.until(lambda: cameras.state(C1) == "up")
        outages = cameras.rows("SELECT down_at, up_at, reason FROM camera_outage ORDER BY id")
        assert all(up is not None for _, up, _ in outages)

        before = crops_of(cameras, C1)
        gate.order("gate play 1")
        cameras.until(lambda: crops_of(cameras, C1) > before + 20)
        sizes = cameras.rows(f"SELECT max(box[1] + box[3]) FROM crop WHERE camera = '{C1}'")
        assert cameras.state(C1) == "up" and sizes[0][0] <= 768
        health = cameras.health()[C2]
        assert health.state == "up" and health.reconnects == 0 and cameras.process(C2) == other
        assert health.looks_per_s == pytest.approx(5, abs=1.5) and health.people is not None
        assert health.lag_s is not None and 0 <= health.lag_s < 5
        assert health.clock_offset_s == pytest.approx(0, abs=2)
        assert not health.frozen and not health.black
    cameras.until(lambda: cameras.state(C1) == cameras.state(C2) == "down")
    cameras.service.close()
    for camera in (C1, C2):
        assert_gaps_are_explained(cameras, camera)
    said = [record.getMessage() for record in caplog.records]
    lost = [line for line in said if "tries again" in line]
    assert len(lost) == len(set(lost)) or len(lost) < 12, lost
    everything = " ".join(said) + str(cameras.rows("SELECT reason FROM camera_outage")) + str(cameras.health())
    assert PASSWORD not in everything and USER not in everything and "s3cret" not in everything


def test_a_refused_password_garbage_and_what_is_no_camera_stop_no_other(
    cameras: Stepped, plaza: Path, detector: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "urban_reid.cameras")
    secrets = cameras.store.settings.home / FILE
    write_secret(secrets, "gate", USER, PASSWORD)
    write_secret(secrets, "wrong", USER, "n0t this one")
    with serving({"gate": [str(plaza)]}) as server:
        cameras.feed(camera=C1, address=server.address("gate"), secret="gate", detector=detector)
        cameras.feed(camera=C2, address=server.address("gate"), secret="wrong", detector=detector)
        cameras.until(lambda: cameras.state(C1) == "up" and cameras.state(C2) == "down")
        assert cameras.health()[C2].detail == "refuses its user and password"
        cameras.until(lambda: cameras.rows("SELECT FROM camera_outage WHERE reason LIKE 'refuses%'"))
        write_secret(secrets, "wrong", USER, PASSWORD)
        # A stream is opened with the secret as it was; a change of the feed takes the new one.
        cameras.feed(camera=C2, address=server.address("gate"), secret="wrong", detector=detector, looks_per_s=4)
        cameras.until(lambda: cameras.state(C2) == "up")
        assert not cameras.rows("SELECT FROM camera_outage WHERE up_at IS NULL")

        server.order("gate garbage")
        cameras.until(lambda: cameras.state(C1) == "down")
        server.order("gate go")
        cameras.until(lambda: cameras.state(C1) == "up")
        alive = cameras.process(C1)
        cameras.feed(camera=C2, address=server.address("nothing"), secret="gate", detector=detector)
        cameras.until(lambda: cameras.health()[C2].detail == "has no such stream")
        cameras.feed(camera=C2, address=server.address("gate"), secret="gate", detector="no such detector")
        cameras.until(lambda: "no detector of this home" in cameras.health()[C2].detail)
        cameras.feed(camera=C2, address=server.address("gate"), secret="gate", detector=detector, paused=True)
        cameras.until(lambda: cameras.state(C2) == "paused")
        assert cameras.state(C1) == "up" and cameras.process(C1) == alive
    assert "n0t this one" not in caplog.text and PASSWORD not in caplog.text


def test_what_ends_is_started_again_and_what_did_not_run_is_an_outage(
    cameras: Stepped, plaza: Path, detector: str
) -> None:
    write_secret(cameras.store.settings.home / FILE, "gate", USER, PASSWORD)
    with serving({"gate": [str(plaza)], "back": [str(plaza)]}) as server:
        cameras.feed(camera=C1, address=server.address("gate"), secret="gate", detector=detector)
        cameras.feed(camera=C2, address=server.address("back"), secret="gate", detector=detector)
        cameras.until(lambda: cameras.state(C1) == cameras.state(C2) == "up")
        first, other = cameras.process(C1), cameras.process(C2)
        cameras.until(lambda: min(crops_of(cameras, camera) for camera in (C1, C2)) > 5)
        os.kill(first, signal.SIGKILL)
        cameras.until(lambda: cameras.process(C1) != first and cameras.state(C1) == "up")
        assert cameras.process(C2) == other
        before = crops_of(cameras, C1)
        cameras.until(lambda: crops_of(cameras, C1) > before + 5)
        running = dict(cameras.service._running)
        cameras.service._running.clear()  # as after `kill -9` of the service: nobody says that the cameras are down
        for ended in running.values():
            assert ended.process is not None
            ended.process.kill()
            ended.process.join()
        time.sleep(DEBOUNCE.total_seconds())
        with stepped(cameras.store) as again:
            again.until(lambda: len(again.rows("SELECT FROM camera_outage WHERE up_at IS NOT NULL")) == 2)
            reasons = again.rows("SELECT DISTINCT reason FROM camera_outage")
            assert [tuple(row) for row in reasons] == [("`urban-reid up` did not run",)]
            before = crops_of(again, C2)
            again.until(lambda: crops_of(again, C2) > before + 5)
    assert_gaps_are_explained(cameras, C1)
    assert_gaps_are_explained(cameras, C2)
    for row in cameras.rows("SELECT camera FROM camera_outage WHERE up_at IS NULL"):
        assert row.camera in {C1, C2}  # ended in good order, and blind from then on
