import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline.crops.context_frames import context_store
from pipeline.crops.crop_store import CropStore, Place, place_of_crop, place_of_probe
from pipeline.crops.days import destroy_day
from pipeline.encryption.data_keys import DataKeys
from schemas.errors import HomeError, StoreError
from schemas.settings import Settings

DAY = Place("d1", date(2026, 1, 1))


def files(root: Path) -> list[Path]:
    """The pictures of a home and the parts of such."""
    return sorted(path for path in (root / "crops").rglob("*") if path.is_file())


def test_a_crop_lies_under_its_district_day_and_name_and_is_written_once(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    sha256 = crops.put(DAY, b"picture")
    assert sha256 == hashlib.sha256(b"picture").digest()
    path = crops.root / crops.name(DAY, sha256)
    name = path.parent.name + path.name
    assert path == tmp_path / "crops" / "d1" / "2026-01-01" / name[:2] / name[2:] and len(name) == 32
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
    assert len({(crops.root / crops.name(place, sha256)).stat().st_ino for place in places}) == 4
    (crops.root / crops.name(DAY, sha256)).unlink()
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
from pipeline.crops.context_frames import context_store
from pipeline.crops.crop_store import CropStore, Place
from schemas.settings import Settings
def stop(descriptor):
    print("in the middle", flush=True)
    signal.pause()
os.fsync = stop
CropStore(Settings(home=Path(sys.argv[1]))).put(Place("d1", date(2026, 1, 1)), b"picture")
"""


def test_the_part_of_a_killed_process_is_swept_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    crops = CropStore(settings)
    DataKeys(settings).make(DAY.owner, DAY.day)
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
    path = crops.root / crops.name(DAY, sha256)
    written = path.read_bytes()
    for position in range(len(written)):  # format, nonce, content and tag
        changed = bytes(byte ^ (index == position) for index, byte in enumerate(written))
        path.write_bytes(changed)
        with pytest.raises(StoreError, match="damaged"):
            crops.get(DAY, sha256)
    for other in (written[:-1], written[:7], b"", b"other"):
        path.write_bytes(other)
        with pytest.raises(StoreError, match="damaged"):
            crops.get(DAY, sha256)


def test_two_pictures_that_were_exchanged_are_found(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    one, two = (crops.root / crops.name(DAY, crops.put(DAY, data)) for data in (b"one", b"two"))
    one.rename(tmp_path / "kept")
    two.rename(one)
    with pytest.raises(StoreError, match="damaged"):
        crops.get(DAY, hashlib.sha256(b"one").digest())


def test_neither_name_nor_content_says_which_picture_it_is(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    data = b"a picture that somebody has, and looks for"
    other = Place("d1", date(2026, 1, 2))
    paths = [crops.root / crops.name(place, crops.put(place, data)) for place in (DAY, other)]
    assert len({path.name for path in paths}) == 2
    held = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(data[:12] in path.read_bytes() for path in held)
    assert not any(hashlib.sha256(data).hexdigest()[:16] in path.as_posix().replace("/", "") for path in held)


def test_pictures_of_an_earlier_version_are_read_as_they_are(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    sha256 = put_earlier(crops, DAY, b"picture")
    assert crops.get(DAY, sha256) == b"picture"
    crops.put(DAY, b"another")  # the day gets a key
    assert crops.get(DAY, sha256) == b"picture"
    assert crops.root / str(crops.find(DAY, sha256)) == crops.earlier_path(DAY, sha256)
    assert crops.remove([(DAY, sha256)]) and crops.find(DAY, sha256) is None
    crops.earlier_path(DAY, put_earlier(crops, DAY, b"picture")).write_bytes(b"other")
    with pytest.raises(StoreError, match="damaged"):
        crops.get(DAY, sha256)


def put_earlier(crops: CropStore, place: Place, data: bytes) -> bytes:
    sha256 = hashlib.sha256(data).digest()
    path = crops.earlier_path(place, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return sha256


def test_a_day_whose_key_is_destroyed_is_lost_and_others_are_not(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    crops, contexts = CropStore(settings), context_store(settings)
    others = [Place("d2", DAY.day), Place("d1", date(2026, 1, 2)), Place("_probes", DAY.day)]
    for place in (DAY, *others):
        sha256 = crops.put(place, b"picture")
    frame = contexts.put(DAY, b"frame")
    shutil.copytree(tmp_path / "crops", tmp_path / "copy")  # such as a disk's image
    assert destroy_day(settings, DAY.owner, DAY.day) == 2
    assert not (tmp_path / "crops" / "d1" / "2026-01-01").exists() and contexts.find(DAY, frame) is None
    shutil.copytree(tmp_path / "copy", tmp_path / "crops", dirs_exist_ok=True)
    for store in (crops, CropStore(settings)):
        with pytest.raises(StoreError, match="no key"):
            store.get(DAY, sha256)
        assert [store.get(place, sha256) for place in others] == [b"picture"] * 3
    assert destroy_day(settings, DAY.owner, DAY.day) == 1  # what is there without its key
    assert destroy_day(settings, DAY.owner, DAY.day) == 0
    assert crops.put(DAY, b"picture") == sha256  # it comes again, under a key of its own
    assert CropStore(settings).get(DAY, sha256) == b"picture"


def test_a_full_disk_gives_one_line_and_no_part_of_a_file(small_disk: Path) -> None:
    crops = CropStore(Settings(home=small_disk))
    kept = crops.put(DAY, b"small")
    with pytest.raises(HomeError, match="no space left for crops"):
        crops.put(DAY, b"x" * 200_000)
    assert files(small_disk) == [crops.root / crops.name(DAY, kept)]
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
