"""A city whose pictures lie in an object store is the city that it is with a folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem
from sqlalchemy import text

from pipeline.backup.restore import restore
from pipeline.backup.write import backup
from pipeline.city.status import status
from pipeline.crops.crop_store import CropStore
from pipeline.doctor.check import State
from pipeline.doctor.city import check_city
from pipeline.erasure.absence import verify_absence
from pipeline.erasure.erase import erase
from pipeline.resolve import embed_camera
from pipeline.store import Store
from schemas.errors import InputError, PicturesUnavailable
from schemas.settings import Settings
from tests.helpers.object_store import BUCKET, object_store
from tests.helpers.town import Town


@pytest.fixture
def remote(settings: Settings, city_files: Path, model_folder: Path) -> Iterator[Town]:
    with object_store():
        there = settings.model_copy(update={"pictures_url": f"s3://{BUCKET}/{settings.home.name}"})
        with Store.open(there, "pytest") as store:
            yield Town(store, city_files, model_folder)


@pytest.mark.system
def test_it_decides_the_same_looks_whole_is_erased_and_backed_up_without_its_pictures(
    remote: Town, resolved: Town, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, home = remote.store, remote.store.settings.home
    remote.take_in(lines[:150])
    monkeypatch.setattr("pipeline.files.object_store._TRIES", 1)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody answers
        S3FileSystem.clear_instance_cache()
        with pytest.raises(PicturesUnavailable, match="does not do what is asked"):
            embed_camera(store, remote.core, CropStore(store.settings), remote.model, "d1/s1/b1/c1")
    S3FileSystem.clear_instance_cache()
    assert status(store)["gone"] == 0
    assert remote.resolve() > 0
    assert status(store)["digest"] == status(resolved.store)["digest"]
    assert not any((home / kind).exists() for kind in ("crops", "keys", "context"))
    found = {check.name: check for check in check_city(store.settings)}
    assert all(found[name].state is State.OK for name in ("pictures", "files", "keys", "context")), found

    with store.begin() as connection:
        query = "SELECT persistent_id FROM identity_now WHERE unit = 'd1' ORDER BY crops DESC, key LIMIT 1"
        person = str(connection.execute(text(query)).scalar_one())
    files = remote.crops.files
    before = {name: files.read(name) for name in files.names()}
    done = erase(store, "identity", [person], actor="anna", reason="request of the 3rd")
    gone = before.keys() - set(files.names())
    assert len(gone) == done.counts["pictures"] > 0
    assert verify_absence(store, str(done.id), actor="anna").found == ()
    back = min(gone)
    files.write(back, before[back])  # somebody copies it back
    assert verify_absence(store, str(done.id), actor="anna").found == (f"file {files.where(back)}",)

    backup(store.settings, tmp_path / "backup")
    with pytest.raises(InputError, match="holds no pictures, because they lay in s3://city/"):
        restore(Settings(home=tmp_path / "new"), tmp_path / "backup")
