"""Files and folders that the service takes in, in processes of its own."""

import logging
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.helpers.video_files import walk, write_video
from tests.pipeline.cameras.conftest import Stepped

C1, C2 = "d1/s1/b1/c1", "d1/s1/b2/c2"

pytestmark = pytest.mark.system


def test_a_file_and_a_folder_are_taken_in_once(
    cameras: Stepped, plaza: Path, detector: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "urban_reid.cameras")
    folder = tmp_path / "recorder"
    folder.mkdir()
    (folder / "20260101_070000.mp4").write_bytes(b"no video")
    shutil.copy(plaza, folder / "20260101_080000.avi")
    cameras.feed(camera=C1, address=str(plaza), detector=detector, start="2026-01-01T09:00:00Z")
    cameras.feed(camera=C2, address=f"{folder}/", detector=detector)
    begun = "SELECT FROM camera_file f WHERE camera = '{}' AND EXISTS (SELECT FROM crop c WHERE c.camera = f.camera)"
    cameras.until(lambda: cameras.rows(begun.format(C1)))
    os.kill(cameras.process(C1), signal.SIGKILL)  # in the middle of the file: nothing of it is lost, see below
    cameras.until(lambda: cameras.state(C1) == "ended")
    cameras.until(lambda: cameras.health()[C2].detail == "2 of 2 files are done, 1 of them refused")
    files = "SELECT path, state, start, batch_id IS NOT NULL FROM camera_file WHERE camera = '{}' ORDER BY path"
    [file] = cameras.rows(files.format(C1))
    assert file.state == "taken" and f"{file.start:%H:%M}" == "09:00"
    broken, whole = cameras.rows(files.format(C2))
    assert (broken.state, whole.state, f"{whole.start:%Y-%m-%d %H:%M}") == ("refused", "taken", "2026-01-01 08:00")
    assert "20260101_070000.mp4 is refused: is no video that can be read" in caplog.text
    before = cameras.rows("SELECT camera, count(*) FROM crop GROUP BY 1 ORDER BY 1")
    assert len(before) == 2 and before[0].count == before[1].count > 10

    os.kill(cameras.process(C2), signal.SIGKILL)
    write_video(folder / "20260101_080100.avi", walk(20))
    cameras.until(lambda: cameras.health()[C2].detail == "3 of 3 files are done, 1 of them refused")
    assert cameras.rows("SELECT camera, count(*) FROM crop GROUP BY 1 ORDER BY 1") == before
    folder.rename(tmp_path / "away")
    cameras.until(lambda: cameras.state(C2) == "down")
    assert "no such file or folder" in cameras.health()[C2].detail and cameras.state(C1) == "ended"
    cameras.step_for(12)
    assert caplog.text.count("no such file or folder") == 1
    (tmp_path / "away").rename(folder)
    cameras.until(lambda: cameras.state(C2) == "up")
