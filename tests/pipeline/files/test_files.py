"""A folder and an object store do the same."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from pipeline.crops.crop_store import CropStore, Place
from pipeline.crops.days import destroy_day
from pipeline.doctor.city import check_keys
from pipeline.encryption.data_keys import DataKeys
from pipeline.encryption.key_service import key_service
from pipeline.files.files import Files
from pipeline.files.object_store import ObjectStore
from pipeline.files.opening import open_files
from schemas.errors import PicturesUnavailable, StoreError
from schemas.settings import Settings
from tests.helpers.object_store import BUCKET, object_store

DAY = Place("d1", date(2026, 1, 1))


@pytest.fixture(scope="module")
def served() -> Iterator[ThreadedMotoServer]:
    with object_store() as server:
        yield server


@pytest.fixture(params=["folder", "object store"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "folder":
        return Settings(home=tmp_path)
    request.getfixturevalue("served")
    return Settings(home=tmp_path, pictures_url=f"s3://{BUCKET}/{tmp_path.name.replace('[', '-').strip(']')}")


@pytest.fixture
def kept(settings: Settings) -> Files:
    return open_files(settings, "crops")


def test_a_file_is_written_read_named_and_removed(kept: Files) -> None:
    assert kept.is_empty() and kept.info("d1/a") is None and not list(kept.names())
    for name in ("d1/2026-01-01/ab/cd", "d1/2026-01-02/ab/cd", "d10/2026-01-01/ab/cd"):
        kept.write(name, name.encode())
    assert kept.read("d1/2026-01-02/ab/cd") == b"d1/2026-01-02/ab/cd" and not kept.is_empty()
    assert list(kept.names("d1")) == ["d1/2026-01-01/ab/cd", "d1/2026-01-02/ab/cd"]
    assert len(list(kept.names())) == 3
    first = kept.info("d1/2026-01-01/ab/cd")
    kept.write("d1/2026-01-01/ab/cd", b"another")
    second = kept.info("d1/2026-01-01/ab/cd")
    assert first is not None and second is not None and second.bytes == 7 and first.stamp != second.stamp
    assert kept.remove_below("d1/2026-01-01") == 1 and kept.remove_below("d1/2026-01-01") == 0
    assert kept.remove("d1/2026-01-02/ab/cd") and not kept.remove("d1/2026-01-02/ab/cd")
    with pytest.raises(FileNotFoundError):
        kept.read("d1/2026-01-02/ab/cd")
    assert list(kept.names()) == ["d10/2026-01-01/ab/cd"] and kept.sweep() == 0


def test_of_many_that_create_a_file_one_does(kept: Files) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: kept.create("d1/2026-01-01", bytes([n])), range(12)))
    assert made.count(True) == 1 and kept.read("d1/2026-01-01") == bytes([made.index(True)])


def test_pictures_and_keys_of_a_day_go_together_and_others_stay(settings: Settings) -> None:
    crops, tomorrow = CropStore(settings), Place("d1", date(2026, 1, 2))
    for place in (DAY, tomorrow):
        sha256 = crops.put(place, b"picture")
        assert crops.put(place, b"picture") == sha256
    assert len(list(crops.files.names())) == 2 and crops.is_there()
    assert all(b"picture" not in crops.files.read(name) for name in crops.files.names())
    assert destroy_day(settings, DAY.owner, DAY.day) == 1
    with pytest.raises(StoreError, match="no key"):
        CropStore(settings).get(DAY, sha256)
    assert CropStore(settings).get(tomorrow, sha256) == b"picture"
    assert crops.remove([(tomorrow, sha256)]) == 1 and crops.find(tomorrow, sha256) is None


def test_a_changed_picture_is_found_wherever_it_lies(settings: Settings) -> None:
    crops = CropStore(settings)
    sha256 = crops.put(DAY, b"picture")
    name = crops.name(DAY, sha256)
    assert crops.is_whole(name) is True
    crops.files.write(name, crops.files.read(name)[:-1] + b"?")
    assert crops.is_whole(name) is False and crops.is_whole("d1/letter.txt") is None
    with pytest.raises(StoreError, match="is damaged: its content does not match its name"):
        crops.get(DAY, sha256)


def test_keys_are_wrapped_anew_wherever_they_lie(settings: Settings) -> None:
    crops = CropStore(settings)
    sha256 = crops.put(DAY, b"picture")
    renewed = key_service(settings).renew()
    keys = DataKeys(settings)
    assert list(keys.names()) == ["d1/2026-01-01"] and keys.rewrap() == 1 and keys.rewrap() == 0
    assert keys.files.read("d1/2026-01-01")[:8].hex() == renewed
    assert CropStore(settings).get(DAY, sha256) == b"picture"


def test_many_files_of_an_object_store_are_removed_by_few_requests(
    served: ThreadedMotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = CropStore(Settings(home=tmp_path, pictures_url=f"s3://{BUCKET}/bulk"))
    pictures = [(DAY, crops.put(DAY, bytes([number]))) for number in range(20)]
    assert isinstance(crops.files, ObjectStore)
    asked, ask = list[str](), crops.files._s3.call_s3

    def noted(operation: str, **given: object) -> object:
        asked.append(operation)
        return ask(operation, **given)

    monkeypatch.setattr(crops.files._s3, "call_s3", noted)
    monkeypatch.setattr("pipeline.files.object_store._AT_ONCE", 30)
    monkeypatch.setattr(crops.files, "info", None)  # is not asked
    assert crops.remove(pictures) == 20 and asked == ["delete_objects"] * 2
    assert not list(crops.files.names())
    monkeypatch.setattr(
        crops.files._s3, "call_s3", lambda *_, **__: {"Errors": [{"Code": "AccessDenied", "Message": "no"}]}
    )
    with pytest.raises(PicturesUnavailable, match="did not remove 1 files: AccessDenied: no"):
        crops.remove(pictures[:1])


def test_an_object_store_holds_all_and_the_data_directory_the_key_file(
    served: ThreadedMotoServer, tmp_path: Path
) -> None:
    CropStore(Settings(home=tmp_path, pictures_url=f"s3://{BUCKET}/all/")).put(DAY, b"picture")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key-file", "key-file.lock"]
    names = list(ObjectStore(f"s3://{BUCKET}/all").names())
    assert [name.split("/")[0] for name in names] == ["crops", "keys"]


def test_more_than_a_page_of_names(served: ThreadedMotoServer) -> None:
    kept = ObjectStore(f"s3://{BUCKET}/many")
    for number in range(7):
        kept.write(f"d1/{number}", b"x")
    assert [len(page) for page in kept._pages("d1", at_once=3)] == [3, 3, 1]


def test_a_key_that_another_machine_destroyed_serves_for_seconds_only(
    served: ThreadedMotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path, pictures_url=f"s3://{BUCKET}/two-machines")
    ours, theirs = DataKeys(settings), DataKeys(settings)
    ours.make("d1", DAY.day)
    theirs.destroy("d1", DAY.day)
    assert ours.find("d1", DAY.day) is not None
    monkeypatch.setattr(ObjectStore, "trusts_stamps_s", 0.0)
    assert ours.find("d1", DAY.day) is None


def test_a_store_that_is_away_says_so_and_never_that_a_picture_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.files.object_store._TRIES", 1)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    settings = Settings(home=tmp_path, pictures_url=f"s3://{BUCKET}/away")
    with object_store() as server:
        crops = CropStore(settings)
        sha256 = crops.put(DAY, b"picture")
        missing = CropStore(settings.model_copy(update={"pictures_url": "s3://no-such-bucket/away"}))
        for of in (lambda: missing.put(DAY, b"picture"), missing.is_there):
            with pytest.raises(PicturesUnavailable, match="there is no bucket no-such-bucket"):
                of()
        server.stop()
        for call in (
            lambda: crops.get(DAY, sha256),
            lambda: crops.put(DAY, b"another"),
            lambda: crops.find(DAY, sha256),
            lambda: crops.remove([(DAY, sha256)]),
            lambda: list(crops.files.names()),
            lambda: DataKeys(settings).destroy("d1", DAY.day),
            crops.is_there,
        ):
            with pytest.raises(PicturesUnavailable, match="the object store of s3://city/away/"):
                call()
        assert check_keys(settings).remedy.startswith("see that it answers")


@pytest.mark.parametrize("url", ["s3://", "http://city/x", "s3://user:password@city/x", "s3://city/../x y", "city"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="pictures_url"):
        Settings(pictures_url=url)
