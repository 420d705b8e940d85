import hashlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline.crops.crop_store import CropStore, Place, place_of_crop, place_of_probe
from schemas.errors import HomeError, StoreError
from schemas.settings import Settings

DAY = Place("d1", date(2026, 1, 1))


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_a_crop_lies_under_its_district_day_and_hash_and_is_written_once(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    sha256 = crops.put(DAY, b"picture")
    assert sha256 == hashlib.sha256(b"picture").digest()
    path = crops.path(DAY, sha256)
    assert path == tmp_path / "crops" / "d1" / "2026-01-01" / sha256.hex()[:2] / sha256.hex()[2:]
    written = path.stat().st_mtime_ns
    assert crops.put(DAY, b"picture") == sha256
    assert path.stat().st_mtime_ns == written
    assert crops.get(DAY, sha256) == b"picture"
    assert files(tmp_path) == [path]


def test_the_day_is_that_of_utc() -> None:
    late = datetime(2026, 1, 1, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
    assert place_of_crop("d1/s2/b3/c4", late) == Place("d1", date(2026, 1, 2))
    assert place_of_probe(late) == Place("_probes", date(2026, 1, 2))


def test_the_same_picture_in_two_places_is_two_files(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    probe = place_of_probe(datetime(2026, 1, 1, tzinfo=UTC))
    places = [DAY, Place("d1", date(2026, 1, 2)), Place("d2", DAY.day), probe]
    (sha256,) = {crops.put(place, b"picture") for place in places}
    assert len({crops.path(place, sha256).stat().st_ino for place in places}) == 4
    crops.path(DAY, sha256).unlink()
    assert [crops.get(place, sha256) for place in places[1:]] == [b"picture"] * 3


def test_pictures_are_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path / "new"))
    before = os.umask(0)
    try:
        crops.put(DAY, b"picture")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {path.is_dir(): mode for path, mode in modes.items()} == {True: 0o700, False: 0o600}
    assert set(modes.values()) == {0o700, 0o600}


def test_many_writers_of_the_same_crops_leave_whole_files(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    data = [bytes([n % 5]) * 20_000 for n in range(100)]
    with ThreadPoolExecutor(8) as pool:
        sweeping = pool.submit(lambda: [crops.sweep() for _ in range(200)])
        keys = list(pool.map(lambda one: crops.put(DAY, one), data))
        sweeping.result()
    assert [crops.get(DAY, key) for key in keys] == data
    assert len(files(tmp_path)) == 5


_WRITE_AND_WAIT = """
import os, signal, sys
from datetime import date
from pathlib import Path
from pipeline.crops.crop_store import CropStore, Place
from schemas.settings import Settings
def stop(descriptor):
    print("in the middle", flush=True)
    signal.pause()
os.fsync = stop
CropStore(Settings(home=Path(sys.argv[1]))).put(Place("d1", date(2026, 1, 1)), b"picture")
"""


def test_the_part_of_a_killed_process_is_swept_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    command = [sys.executable, "-c", _WRITE_AND_WAIT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "in the middle\n"
        assert crops.sweep() == 0 and len(files(tmp_path)) == 1
        process.send_signal(signal.SIGKILL)
    assert crops.sweep() == 1 and not files(tmp_path)


def test_missing_and_damaged_crops_are_named(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    with pytest.raises(StoreError, match="cannot be read"):
        crops.get(DAY, b"\x01" * 32)
    sha256 = crops.put(DAY, b"picture")
    crops.path(DAY, sha256).write_bytes(b"other")
    with pytest.raises(StoreError, match="damaged"):
        crops.get(DAY, sha256)


def test_a_full_disk_gives_one_line_and_no_part_of_a_file(small_disk: Path) -> None:
    crops = CropStore(Settings(home=small_disk))
    kept = crops.put(DAY, b"small")
    with pytest.raises(HomeError, match="no space left for crops"):
        crops.put(DAY, b"x" * 200_000)
    assert files(small_disk) == [crops.path(DAY, kept)]
    assert crops.get(DAY, kept) == b"small"


@pytest.fixture
def read_only_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a read-only crops folder; the test runs as a user without root's permissions."""
    home = tmp_path_factory.mktemp("read-only")
    (home / "crops").mkdir()
    (home / "crops").chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield home
    os.seteuid(user)
    (home / "crops").chmod(0o755)


def test_a_read_only_folder_gives_one_line(read_only_home: Path) -> None:
    with pytest.raises(HomeError, match="cannot be written"):
        CropStore(Settings(home=read_only_home)).put(DAY, b"picture")
