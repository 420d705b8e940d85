import os
import re
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.ingest.video_file import START, VideoFile
from schemas.errors import InputError
from tests.helpers.assets import asset
from tests.helpers.video_files import walk, write_matroska, write_raw, write_video


def seconds(video: VideoFile) -> list[float]:
    """The times of all frames, from START."""
    return [(moment - START).total_seconds() for moment, _, _ in video]


def noise(frames: int) -> list[NDArray[np.uint8]]:
    """Frames that compress badly, so that a few hundred bytes lie within one."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 255, (240, 320, 3), dtype=np.uint8) for _ in range(frames)]


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".ts"])
def test_a_whole_file_has_its_times_and_no_notes(tmp_path: Path, suffix: str) -> None:
    video = VideoFile(write_video(tmp_path / f"walk{suffix}", walk(40)), None)
    assert (video.total, video.last_moment()) == (40, START + timedelta(seconds=3.9))
    assert seconds(video) == pytest.approx([number / 10 for number in range(40)])
    assert (video.read, video.lost, video.notes) == (40, 0, [])


def test_recordings_cut_together_keep_their_lengths(tmp_path: Path) -> None:
    slow = write_video(tmp_path / "slow.ts", walk(100, 2), per_second=5)
    fast = write_video(tmp_path / "fast.ts", walk(250, 1), per_second=25)
    (tmp_path / "both.ts").write_bytes(slow.read_bytes() + fast.read_bytes())
    video = VideoFile(tmp_path / "both.ts", None)
    expected = [number / 5 for number in range(100)] + [20 + number / 25 for number in range(250)]
    assert seconds(video) == pytest.approx(expected, abs=1e-3)
    assert video.notes == [
        "the time stamps step back, jump or repeat once, first after 19.8 s; the frames there are spaced like their "
        "neighbors"
    ]


def test_a_stream_without_times_asks_for_its_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "walk.mjpeg", walk(60))
    with pytest.raises(InputError, match=r"walk.mjpeg: states no times .* `urban-reid ingest video FILE --fps 25`"):
        VideoFile(path, None)
    with pytest.raises(InputError, match=r"with `urban-reid cameras set d1/s1/b1/c1 --fps 25`"):
        VideoFile(path, None, rate_by="urban-reid cameras set d1/s1/b1/c1 --fps 25")
    assert seconds(VideoFile(path, None, fps=12)) == pytest.approx([number / 12 for number in range(60)], abs=1e-6)


@pytest.mark.parametrize(("suffix", "rate"), [(".m1v", 25.0), (".m2v", 25.0), (".m4v", 12.0), (".h263", 15000 / 1001)])
def test_a_raw_stream_that_states_its_rate_asks_for_none(tmp_path: Path, suffix: str, rate: float) -> None:
    path = write_raw(tmp_path / f"walk{suffix}", walk(60), Fraction(rate).limit_denominator(2000))
    expected = [number / rate for number in range(60)]
    assert seconds(VideoFile(path, None)) == pytest.approx(expected, abs=1e-5)
    assert seconds(VideoFile(path, None, fps=12)) == pytest.approx([number / 12 for number in range(60)], abs=1e-5)


def test_raw_h264_asks_for_its_rate() -> None:
    path = asset("data/people-detection.264")
    with pytest.raises(InputError, match="states no times"):
        VideoFile(path, None)
    assert seconds(VideoFile(path, None, fps=12))[-1] == pytest.approx(595 / 12)


def test_a_rate_replaces_the_stamps_of_any_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "walk.avi", walk(40))
    video = VideoFile(path, None, fps=5)
    assert video.last_moment() == START + timedelta(seconds=7.8)
    assert seconds(video) == pytest.approx([number / 5 for number in range(40)]) and video.notes == []
    for rate in (0.0, -1.0, 1e9, float("nan")):
        with pytest.raises(InputError, match=r"a frame rate of .*/s is not possible; give 0.01 to 1000"):
            VideoFile(path, None, fps=rate)


def test_reading_goes_on_behind_damaged_frames(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "noise.avi", noise(120))
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    header = data.tobytes().find(b"\xff\xd8", len(data) // 2)  # where a frame begins
    data[header : header + 400] ^= 0xFF
    path.write_bytes(data.tobytes())
    for fps in (None, 10.0):
        video = VideoFile(path, None, fps)
        found = seconds(video)
        assert (len(found), video.read, video.lost) == (119, 119, 1)
        assert video.notes == ["1 of 120 frames could not be read"]
        assert found[-1] == pytest.approx(11.9)  # the lost frame keeps its time
    assert capfd.readouterr().err == ""  # FFmpeg says nothing by itself


def test_reading_ends_where_nothing_can_be_read_any_more(tmp_path: Path) -> None:
    path = write_video(tmp_path / "noise.avi", noise(40))
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    data[len(data) // 2 :] = 0
    path.write_bytes(data.tobytes())
    video = VideoFile(path, None)
    assert 10 < len(seconds(video)) < 25
    assert re.fullmatch(r"the file ends after [12]\.\d s of the 4\.0 s that it states", video.notes[-1])


@pytest.mark.parametrize(
    "tenths",
    [list(range(36_000, 36_120)), [*range(20), *(20 + 7 * number for number in range(60))]],
    ids=["a start offset", "an uneven rate"],
)
def test_a_matroska_file_that_is_whole_is_said_to_be_whole(tmp_path: Path, tenths: list[int]) -> None:
    video = VideoFile(write_matroska(tmp_path / "walk.mkv", walk(len(tenths), 1), tenths), None)
    assert seconds(video) == pytest.approx([(tenth - tenths[0]) / 10 for tenth in tenths])
    assert video.notes == []


@pytest.mark.parametrize("first", [0, 36_000])
def test_a_matroska_file_cut_short_is_said_to_be(tmp_path: Path, first: int) -> None:
    path = write_matroska(tmp_path / "walk.mkv", walk(120, 1), range(first, first + 120))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = VideoFile(path, None)
    end = seconds(video)[-1]
    assert 4 < end < 8 and video.total == 120
    assert video.notes == [f"the file ends after {end:.1f} s of the 12.0 s that it states"]


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    folder.mkdir()
    for name in ("walk.avi", os.fsdecode(b"\xfc.avi"), os.fsdecode(b"a.\xff")):
        written = write_video(tmp_path / "walk.avi", walk(10))
        written.rename(folder / name)
        video = VideoFile(folder / name, None)
        assert len(seconds(video)) == 10 and video.last_moment() == START + timedelta(seconds=0.9)


def test_a_path_and_a_folder_for_temporary_files_that_are_not_utf8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    write_video(tmp_path / "walk.avi", walk(10)).rename(folder / "walk.avi")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with pytest.raises(InputError, match="neither this path nor that of TMPDIR is UTF-8; rename one of them"):
        VideoFile(folder / "walk.avi", None)
