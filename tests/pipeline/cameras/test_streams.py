"""Streams that stay up, from a real RTSP server: killed and back, stalled, refused, resized, damaged, two at once."""

import logging
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.cameras.secrets import FILE, write_secret
from pipeline.cameras.service import DEBOUNCE
from tests.helpers.rtsp_server import PASSWORD, USER, serving
from tests.pipeline.cameras.conftest import Stepped

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
