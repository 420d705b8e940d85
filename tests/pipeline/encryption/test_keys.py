import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest

from pipeline.crops.crop_store import CropStore, Place
from pipeline.encryption.data_keys import DataKeys
from pipeline.encryption.key_service import key_service
from schemas.errors import HomeError, StoreError
from schemas.settings import Settings

DAY = date(2026, 1, 1)
PLACES = [Place(owner, date(2026, 1, day)) for owner in ("d1", "d2") for day in (1, 2, 3)]


def test_no_key_lies_on_the_disk_as_it_is_and_files_are_closed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", key_file=tmp_path / "elsewhere" / "key")
    before = os.umask(0)
    try:
        DataKeys(settings).make("d1", DAY)
    finally:
        os.umask(before)
    wrapped = settings.home / "keys" / "d1" / "2026-01-01"
    secret = key_service(settings).unwrap(wrapped.read_bytes(), "d1/2026-01-01")
    assert len(secret) == 32 and secret not in wrapped.read_bytes()
    assert secret.hex() not in (tmp_path / "elsewhere" / "key").read_text()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert not (settings.home / "key-file").exists()


def test_many_that_need_a_key_at_once_get_the_same(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: DataKeys(settings).make("d1", DAY).name(b"x" * 32), range(40)))
    assert len(set(names)) == 1


def test_a_key_is_of_its_day_alone(tmp_path: Path) -> None:
    keys = DataKeys(Settings(home=tmp_path))
    keys.make("d1", DAY)
    keys.files.write("d2/2026-01-01", keys.files.read("d1/2026-01-01"))
    with pytest.raises(StoreError, match="the key of d2/2026-01-01 is damaged"):
        keys.find("d2", DAY)


def test_a_missing_or_another_key_file_is_one_line_and_makes_none(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    crops = CropStore(settings)
    sha256 = crops.put(PLACES[0], b"picture")
    file = tmp_path / "key-file"
    content = file.read_text()
    file.unlink()
    with pytest.raises(HomeError, match="key-file is missing"):
        CropStore(settings).get(PLACES[0], sha256)
    with pytest.raises(HomeError, match="without it no picture can be read"):
        CropStore(settings).put(PLACES[1], b"picture")
    assert not file.exists()
    for damaged, complaint in (("ab" * 32, "holds another key"), ("no key", "holds no key"), ("ab", "holds no key")):
        file.write_text(damaged)
        file.chmod(0o600)
        with pytest.raises(HomeError, match=complaint):
            CropStore(settings).get(PLACES[0], sha256)
    file.write_text(content)
    file.chmod(0o640)
    with pytest.raises(HomeError, match=r"other users can read the key file .*chmod 600"):
        CropStore(settings).get(PLACES[0], sha256)
    file.chmod(0o600)
    assert CropStore(settings).get(PLACES[0], sha256) == b"picture"


def test_a_renewed_key_file_wraps_all_and_pictures_stay_as_they_are(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    crops = CropStore(settings)
    stored = {place: crops.put(place, str(place).encode()) for place in PLACES}
    written = {path: path.read_bytes() for path in (tmp_path / "crops").rglob("*") if path.is_file()}
    before = (tmp_path / "key-file").read_text()
    for _ in range(2):  # the second time, as after one that was killed before it wrapped anything anew
        renewed = key_service(settings).renew()
    crops.put(Place("d3", DAY), b"meanwhile")
    keys = DataKeys(settings)
    assert keys.rewrap() == len(PLACES) and keys.rewrap() == 0
    assert all(keys.files.read(name)[:8].hex() == renewed for name in keys.names())
    earlier = sorted(tmp_path.glob("key-file.*[0-9a-f]"))
    assert len(earlier) == 2 and before in {path.read_text() for path in earlier}
    for path in earlier:
        path.unlink()
    for store in (crops, CropStore(settings)):
        assert all(store.get(place, sha256) == str(place).encode() for place, sha256 in stored.items())
    assert {path: path.read_bytes() for path in written} == written


def test_a_rewrap_that_ends_in_the_middle_leaves_every_key_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    crops = CropStore(settings)
    stored = {place: crops.put(place, str(place).encode()) for place in PLACES}
    key_service(settings).renew()
    real, left = Path.replace, [3]

    def replace(path: Path, target: Path) -> Path:
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        return real(path, target)

    with monkeypatch.context() as patched, pytest.raises(OSError):
        patched.setattr(Path, "replace", replace)
        DataKeys(settings).rewrap()
    assert all(CropStore(settings).get(place, sha256) for place, sha256 in stored.items())
    assert DataKeys(settings).rewrap() == len(PLACES) - 2


def test_a_damaged_key_loses_its_day_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    crops = CropStore(settings)
    stored = {place: crops.put(place, b"picture") for place in PLACES}
    path = tmp_path / "keys" / "d1" / "2026-01-01"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match="the key of d1/2026-01-01 is damaged"):
        CropStore(settings).get(PLACES[0], stored[PLACES[0]])
    assert CropStore(settings).get(PLACES[1], stored[PLACES[1]]) == b"picture"
