import json
import os
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import av
import numpy as np
import pytest

from pipeline.cameras.start_times import start_of, time_in
from schemas.errors import InputError
from tests.helpers.video_files import walk, write_raw, write_video

BERLIN = ZoneInfo("Europe/Berlin")
EIGHT = datetime(2026, 6, 1, 6, 0, 5, tzinfo=UTC)  # 08:00:05 in Berlin


@pytest.mark.parametrize(
    "name",
    [
        "2026-06-01T08-00-05",
        "2026-06-01 08.00.05",
        "2026-06-01_08-00-05",
        "plaza_20260601_080005",
        "plaza.20260601080005",
        "20260601T060005Z",
        "20260601T080005+0200",
        "2026-06-01T06:00:05+00:00-plaza",
        "NVR_ch3_main_20260601080005_20260601081005",
        "2026-06-01/08-00-05",
        "20260601/080005",
        "cam1-1780293605",
        "2026-06-01_08h00m05s",
    ],
)
def test_times_in_names(name: str) -> None:
    assert time_in(name, BERLIN) == EIGHT


def test_fractions_of_a_second_in_names() -> None:
    assert time_in("2026-06-01_08-00-05-250000", BERLIN) == EIGHT + timedelta(seconds=0.25)
    assert time_in("20260601T080005.250", BERLIN) == EIGHT + timedelta(seconds=0.25)


@pytest.mark.parametrize("name", ["plaza", "channel-12345678", "20261399_080005", "2026-06-01", "1080p", "20260601_99"])
def test_names_without_a_time(name: str) -> None:
    assert time_in(name, BERLIN) is None


def test_what_lies_beside_a_file_counts_before_its_name_and_that_before_its_container(tmp_path: Path) -> None:
    named = tmp_path / "2026-06-01T08-00-05.mp4"
    with av.open(str(named), "w") as container:
        container.metadata["creation_time"] = "2026-06-02T09:00:00.000000Z"
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for frame in walk(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")))
        container.mux(stream.encode())
    assert (start_of(named, BERLIN).at, start_of(named, BERLIN).known_from) == (EIGHT, "its name")
    nameless = named.rename(tmp_path / "plaza.mp4")
    assert start_of(nameless, BERLIN).at == datetime(2026, 6, 2, 9, tzinfo=UTC)
    sidecar = tmp_path / "plaza.mp4.json"
    sidecar.write_text(json.dumps({"start": "2026-06-03T10:00:00", "fps": 25}))
    found = start_of(nameless, BERLIN)
    assert (found.at, found.known_from, found.fps) == (datetime(2026, 6, 3, 8, tzinfo=UTC), "its sidecar", 25.0)
    for wrong in ("no JSON", "[]", "{}", '{"start": "noon"}', '{"start": "2026-06-03T10:00:00", "zone": "UTC"}'):
        sidecar.write_text(wrong)
        with pytest.raises(InputError, match=r"plaza.mp4.json: is written \{"):
            start_of(nameless, BERLIN)


def test_without_anything_else_a_file_ends_when_it_was_changed_last(tmp_path: Path) -> None:
    file = write_video(tmp_path / "plaza.avi", walk(40))
    ended = datetime(2026, 6, 1, 8, tzinfo=UTC)
    os.utime(file, (ended.timestamp(), ended.timestamp()))
    found = start_of(file, BERLIN)
    assert (found.at, found.known_from) == (ended - timedelta(seconds=4), "its last change less its length")
    raw = write_raw(tmp_path / "plaza.m2v", walk(40), Fraction(10))
    os.utime(raw, (ended.timestamp(), ended.timestamp()))
    assert start_of(raw, BERLIN, fps=8).at == ended - timedelta(seconds=5)
    (tmp_path / "broken.avi").write_bytes(b"no video")
    with pytest.raises(InputError, match="is no video that can be read"):
        start_of(tmp_path / "broken.avi", BERLIN)
