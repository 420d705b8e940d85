from pathlib import Path

from pipeline.crops.crop_store import CropStore, Place
from pipeline.doctor.check import State
from pipeline.doctor.city import check_keys
from schemas.settings import Settings
from tests.pipeline.ingest.test_earlier_pictures import PLACES, put_early


def test_keys_that_cannot_be_read_and_pictures_that_are_not_encrypted_are_told_of(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert check_keys(settings).state is State.OK
    crops = CropStore(settings)
    crops.put(Place("d1", PLACES[0].day), b"picture")
    found = check_keys(settings)
    assert found.state is State.OK and "lies in the data directory itself" in found.found
    put_early(crops, PLACES[0], b"earlier")
    found = check_keys(settings)
    assert found.state is State.TO_DO and "1 pictures are not encrypted" in found.found
    (tmp_path / "key-file").unlink()
    found = check_keys(settings)
    assert found.state is State.TO_DO and "is missing" in found.found
