"""Each missing look at a stream is explained: by an outage with its times, or by a count of looks left out."""

import threading
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import av
import pytest

from pipeline.cameras.outages import DEBOUNCE, Change, Outages
from pipeline.cameras.rows import read_outages
from pipeline.ingest.live_camera import LiveCamera
from pipeline.ingest.pace import Pace
from pipeline.store import Store
from reid_core.detection.hog import HogDetector
from tests.helpers.rtsp_server import PASSWORD, USER, serving

C1 = "d1/s1/b1/c1"
LOOKS_PER_S = 5.0
AWAY_S = DEBOUNCE.total_seconds() + 2

pytestmark = pytest.mark.system


class Counted(Pace):
    """Counts the frames that are to be looked at."""

    due = 0

    def is_due(self, since: timedelta) -> bool:
        found = super().is_due(since)
        self.due += found
        return found


class Tapped(LiveCamera):
    """Notes when each frame arrived."""

    def __init__(self, address: str, changes: list[Change], stop: threading.Event) -> None:
        def tell(up: bool, at: datetime, reason: str) -> None:
            changes.append(Change(up, at, reason))

        super().__init__(lambda: address, "gate", looks_per_s=LOOKS_PER_S, stop=stop, tell=tell)
        self.arrived: list[datetime] = []
        self._pace: Counted = Counted(LOOKS_PER_S)

    def _offer(self, moment: datetime, since: timedelta, frame: av.VideoFrame) -> None:
        self.arrived.append(moment)
        super()._offer(moment, since, frame)


def test_each_missing_look_over_a_server_that_is_killed_and_comes_back_is_explained(
    city_store: Store, plaza: Path
) -> None:
    changes: list[Change] = []
    stop = threading.Event()
    with serving({"gate": [str(plaza)]}) as server:
        address = server.address("gate").replace("://", f"://{USER}:{quote(PASSWORD, safe='')}@")
        camera = Tapped(address, changes, stop)
        detector, looks = HogDetector(), []
        for moment, _, frame in camera:
            looks.append(moment)
            detector.detect([frame] * 3)  # so slow that frames come meanwhile
            if len(looks) == 10:
                server.kill()
                threading.Timer(AWAY_S, server.start).start()
            elif len(looks) == 30:
                stop.set()
    # Each frame that was to be looked at was, or is counted, or is the one that waited when it ended.
    assert camera._pace.due == camera.read + camera.passed_over + (camera._newest is not None)
    assert camera.read == len(looks) == 30 and camera.passed_over > 0
    following = list(pairwise(camera.arrived))
    lost = {(down.at, up.at) for down, up in pairwise(changes) if not down.up and up.up}
    assert lost <= set(following)  # each time that it was lost lies between two frames that follow each other
    long = {pair for pair in following if pair[1] - pair[0] >= DEBOUNCE}
    assert long and long <= lost
    outages = Outages(C1)
    for change in changes:
        outages.take(change, city_store)
    with city_store.begin() as connection:
        rows = read_outages(connection, C1)
    assert {(row.down_at, row.up_at) for row in rows} == {pair for pair in lost if pair[1] - pair[0] >= DEBOUNCE}
