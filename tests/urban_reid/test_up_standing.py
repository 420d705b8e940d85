"""A standing search under `urban-reid up`: a window closes, a lead is raised, and a signed message tells of it."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import text

from pipeline.cameras.changes import Wanted, add_cameras
from pipeline.cameras.secrets import FILE, write_secret
from pipeline.search.request import upload_probe
from pipeline.standing.searches import approve, hits, look_at_pictures, standing_search, start
from pipeline.store import Store, embedded
from reid_core.decoding import decode
from reid_core.detection.files import keep_detector
from schemas.feeds import Feed
from schemas.parameters import StandingParameters
from schemas.settings import Settings
from tests.helpers.command_line import environment_of, program
from tests.helpers.detectors import red_detector
from tests.helpers.governed import Governed
from tests.helpers.homes import superuser_of
from tests.helpers.receiver import SECRET, receiving
from tests.helpers.rtsp_server import PASSWORD, USER, serving
from tests.helpers.town import Town
from tests.helpers.video_files import write_video
from tests.helpers.waiting import wait_until

CAMERA = "d1/s1/b1/c1"
WINDOW_S = 10
PATIENCE_S = 300.0

pytestmark = [pytest.mark.system, pytest.mark.server]


def figure() -> NDArray[np.uint8]:
    """A person as the detector of the test sees them: red, in stripes (48, 48, 3) BGR."""
    found = np.full((48, 48, 3), (20, 20, 230), np.uint8)
    found[6::12] = (50, 50, 180)
    return found


def visits(seconds: int = 12, per_second: int = 10) -> list[NDArray[np.uint8]]:
    """Frames (320, 320, 3) in which somebody stands, not quite still, for the first four seconds."""
    frames = []
    for number in range(seconds * per_second):
        frame = np.full((320, 320, 3), 120, np.uint8)
        if number < 4 * per_second:
            left = 156 + (number % 5)
            frame[116:164, left : left + 48] = figure()
        frames.append(frame)
    return frames


def test_who_is_seen_is_raised_as_the_window_closes_and_told_with_a_signature(
    store: Store, server: embedded.EmbeddedServer, city_files: Path, model_folder: Path, tmp_path: Path
) -> None:
    settings: Settings = store.settings
    town = Town(store, city_files, model_folder)
    keep_detector(settings, "red", [red_detector(tmp_path)])
    write_secret(settings.home / FILE, "gate", USER, PASSWORD)
    video = write_video(tmp_path / "visits.avi", visits())
    with serving({"gate": [str(video)]}) as stream, receiving() as receiver:
        feed = {"camera": CAMERA, "address": stream.address("gate"), "secret": "gate", "detector": "red"}
        add_cameras(store, [Wanted(Feed.model_validate(feed))], operator="pytest")
        governed = Governed(store, superuser_of(server, settings))
        governed.past_rules("UPDATE authorization_limits SET standing = true")
        now = datetime.now(UTC)
        period: dict[str, Any] = {"from_time": now - timedelta(hours=1), "to_time": now + timedelta(days=1)}
        authorization = governed.authorized(kind="standing", expires_at=now + timedelta(days=2), **period)

        governed.as_("anna", authorization)
        done, picture = cv2.imencode(".png", figure())
        assert done and decode(picture.tobytes()).shape == (48, 48, 3)
        probe = upload_probe(store, town.crops, picture.tobytes(), "anna")
        asked = StandingParameters(units=("d1",), probes=(probe,), bar=0.01, reason="the child", operator="anna")
        standing = start(store, asked)
        governed.as_("ben", authorization)
        assert look_at_pictures(store, town.crops, standing)
        approve(store, str(standing), reason="it is the child")
        assert standing_search(store, str(standing)).state == "looks"

        environment = environment_of(settings) | {
            "URBAN_REID_WEBHOOK_URL": receiver.url,
            "URBAN_REID_WEBHOOK_SECRET": SECRET,
            "URBAN_REID_ASSOCIATION__WINDOW_S": str(WINDOW_S),
        }
        log = tmp_path / "up.log"
        with log.open("wb") as said:
            up = subprocess.Popen(program("up"), env=environment, cwd=tmp_path, stdout=said, stderr=said)
        try:
            told = wait_until(
                lambda: [one for one in receiver.taken if one["event"] == "standing.hit"],
                PATIENCE_S,
                still=lambda: up.poll() is None,
            )
        finally:
            up.terminate()
            up.wait(timeout=PATIENCE_S)
        logs = log.read_text() + "".join(one.read_text() for one in settings.home.rglob("*.log"))
        assert SECRET not in logs and receiver.url not in logs and PASSWORD not in logs

    governed.as_("anna", authorization)
    raised = hits(store, standing)
    assert {one["lead"] for one in told} <= {str(one.lead) for one in raised}
    assert {one["standing"] for one in told} == {str(standing)}
    assert all(one.unit == "d1" and one.verdict == "open" for one in raised)
    with store.owning() as connection:
        rows = connection.execute(text(_RAISED), {"standing": standing}).all()
        kind = connection.scalar(text("SELECT count(*) FROM crop WHERE camera = :camera"), {"camera": CAMERA})
    assert kind and rows and all(row.raised_at > row.window_end for row in rows)
    latencies = sorted((row.raised_at - row.last_frame_at).total_seconds() for row in rows)
    sys.stdout.write(
        f"windows of {WINDOW_S} s: raised {', '.join(f'{one:.1f}' for one in latencies)} s after the last frame\n"
    )


# When each passage that was raised had its window end, by the camera's time.
_RAISED = (
    "SELECT p.raised_at, p.last_frame_at, max(r.window_end) AS window_end FROM standing_passage p "
    "JOIN identity i ON i.persistent_id = p.tracklet JOIN run r ON r.id = i.run_id AND r.unit = i.unit "
    "WHERE p.standing_id = :standing AND p.rank IS NOT NULL GROUP BY 1, 2"
)
