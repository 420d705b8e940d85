import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.crops.crop_store import CropStore
from schemas.errors import HomeError, StoreError
from schemas.settings import Settings


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_a_crop_lies_under_its_hash_and_is_written_once(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    sha256 = crops.put(b"picture")
    assert sha256 == hashlib.sha256(b"picture").digest()
    assert crops.path(sha256) == tmp_path / "crops" / sha256.hex()[:2] / sha256.hex()[2:]
    written = crops.path(sha256).stat().st_mtime_ns
    assert crops.put(b"picture") == sha256
    assert crops.path(sha256).stat().st_mtime_ns == written
    assert crops.get(sha256) == b"picture"
    assert files(tmp_path) == [crops.path(sha256)]


def test_many_writers_of_the_same_crops_leave_whole_files(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    data = [bytes([n % 5]) * 20_000 for n in range(100)]
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(crops.put, data))
    assert [crops.get(key) for key in keys] == data
    assert len(files(tmp_path)) == 5


def test_missing_and_damaged_crops_are_named(tmp_path: Path) -> None:
    crops = CropStore(Settings(home=tmp_path))
    with pytest.raises(StoreError, match="cannot be read"):
        crops.get(b"\x01" * 32)
    sha256 = crops.put(b"picture")
    crops.path(sha256).write_bytes(b"other")
    with pytest.raises(StoreError, match="damaged"):
        crops.get(sha256)


def test_a_full_disk_gives_one_line_and_no_part_of_a_file(small_disk: Path) -> None:
    crops = CropStore(Settings(home=small_disk))
    kept = crops.put(b"small")
    with pytest.raises(HomeError, match="no space left for crops"):
        crops.put(b"x" * 200_000)
    assert files(small_disk) == [crops.path(kept)]
    assert crops.get(kept) == b"small"


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
        CropStore(Settings(home=read_only_home)).put(b"picture")
