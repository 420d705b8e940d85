import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.city.units import find_city, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.dataset import ingest_dataset
from pipeline.store import Store
from schemas.city_file import City
from schemas.crops import IngestReport
from schemas.errors import CityError, InputError
from schemas.times import UNTIMED
from tests.helpers.assets import real_set
from tests.helpers.pictures import UNITS, picture

NAMES = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c12s2_000050_01.jpg"],
    "query": ["0007_c1s1_000000_00.jpg"],
    "bounding_box_test": ["-1_c1s1_000001_01.jpg", "0000_c1s1_000010_01.jpg", "0007_c12s1_000020_01.jpg"],
}


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    for split, names in NAMES.items():
        (tmp_path / split).mkdir()
        (tmp_path / split / "Thumbs.db").write_bytes(b"no picture")
        for name in names:
            (tmp_path / split / name).write_bytes(picture(sum(name.encode())))
    return tmp_path


def rows(store: Store) -> list[tuple[str, datetime, bool, str | None]]:
    with store.begin() as connection:
        query = "SELECT camera, captured_at, timed, truth FROM crop LEFT JOIN crop_truth ON crop_id = id ORDER BY 2, 1"
        return [tuple(row) for row in connection.execute(text(query))]


def test_frames_become_times(store: Store, crops: CropStore, small_city: City, data_set: Path) -> None:
    report = ingest_dataset(store, crops, data_set, "market1501", small_city, "frames:25")
    assert report == IngestReport(
        batch=1,
        read=6,
        written=5,
        skipped_count=1,
        skipped=("bounding_box_test/-1_c1s1_000001_01.jpg: junk, person -1",),
    )
    c1, c12 = "d1/s1/b1/c1", "d1/s1/b2/c2"
    assert rows(store) == [
        (c1, datetime(2000, 1, 1, tzinfo=UTC), True, "7"),
        (c1, datetime(2000, 1, 1, 0, 0, 0, 400_000, UTC), True, None),
        (c12, datetime(2000, 1, 1, 0, 0, 0, 800_000, UTC), True, "7"),
        (c1, datetime(2000, 1, 1, 0, 0, 18, 40_000, UTC), True, "2"),
        (c12, datetime(2000, 1, 2, 0, 0, 2, tzinfo=UTC), True, "2"),
    ]
    again = ingest_dataset(store, crops, data_set, "market1501", small_city, "frames:25")
    assert (again.written, again.already_there) == (0, 5)


def test_splits_in_parts_are_the_same_crops(store: Store, crops: CropStore, small_city: City, data_set: Path) -> None:
    for split, written in (("bounding_box_train", 2), ("query", 1), ("bounding_box_test", 2)):
        report = ingest_dataset(store, crops, data_set, "market1501", small_city, "frames:25", splits=[split])
        assert report.written == written
    assert ingest_dataset(store, crops, data_set, "market1501", small_city, "frames:25").already_there == 5


def test_a_folder_whose_name_is_not_utf8(
    store: Store, crops: CropStore, small_city: City, data_set: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path_factory.mktemp("set")) + b"/\xff\xfe"))
    data_set.rename(folder)
    (folder / "query" / NAMES["query"][0]).write_bytes(b"no picture")
    report = ingest_dataset(store, crops, folder, "market1501", small_city, "none")
    assert (report.written, report.skipped_count) == (4, 2)
    (folder / "query" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    with pytest.raises(InputError, match=r"unlike '\\udcff.jpg'"):
        ingest_dataset(store, crops, folder, "market1501", small_city, "none")


def test_without_times(store: Store, crops: CropStore, small_city: City, data_set: Path) -> None:
    ingest_dataset(store, crops, data_set, "market1501", small_city, "none", splits=["query", "bounding_box_train"])
    assert {(captured_at, timed) for _, captured_at, timed, _ in rows(store)} == {(UNTIMED, False)}


def test_a_request_that_makes_no_sense_is_an_error(
    store: Store, crops: CropStore, small_city: City, data_set: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def refused(message: str, directory: Path = data_set, times: str = "none", splits: list[str] | None = None) -> None:
        with pytest.raises(InputError, match=message):
            ingest_dataset(store, crops, directory, "market1501", small_city, times, splits=splits)

    for times in ("frames:0", "frames:-1", "frames:", "25", "frames:nan"):
        refused("write frames:25", times=times)
    refused("no such folder", directory=data_set / "missing")
    refused("no split 'test'", splits=["test"])
    empty = tmp_path_factory.mktemp("empty")
    refused("holds no folder bounding_box_train, query, bounding_box_test", directory=empty)
    (empty / "query").mkdir()
    refused("holds no picture", directory=empty)
    refused("holds no folder bounding_box_test", directory=empty, splits=["query", "bounding_box_test"])
    (empty / "query" / "-1_c1s1_000001_01.jpg").write_bytes(picture(0))
    refused("every picture is junk", directory=empty)
    for number in range(12):
        (data_set / "query" / f"{number:02}.jpg").write_bytes(b"")
    refused(r"query: a picture's name has the form 0002_c1s1_000451_03.jpg, unlike '00.jpg', .*'09.jpg' and 2 more")
    assert rows(store) == []


def test_cameras_are_found_by_source(store: Store, crops: CropStore, data_set: Path) -> None:
    units = [unit | ({"source": "c1"} if "source" in unit else {}) for unit in UNITS]
    with pytest.raises(CityError, match=r"d1/s1/b1/c1 and d1/s1/b2/c2 have the same source 'c1'"):
        ingest_dataset(store, crops, data_set, "market1501", City.model_validate({"units": units}), "none")
    city = City.model_validate({"units": UNITS[:-1]})
    with pytest.raises(CityError, match=r"no camera of the city has the source c12 \(2 pictures\)"):
        ingest_dataset(store, crops, data_set, "market1501", city, "none")
    assert find_city(store) is None


def test_the_loaded_city_must_be_the_same(store: Store, crops: CropStore, small_city: City, data_set: Path) -> None:
    store_city(store, City.model_validate({"units": UNITS, "timezone": "Asia/Tokyo"}))
    with pytest.raises(CityError, match="another city is loaded"):
        ingest_dataset(store, crops, data_set, "market1501", small_city, "none")


def test_a_set_without_a_usable_picture_leaves_no_city(
    store: Store, crops: CropStore, small_city: City, data_set: Path
) -> None:
    for split, names in NAMES.items():
        for name in names:
            (data_set / split / name).write_bytes(b"no picture")
    message = r"none of the 5 pictures can be used; the first: bounding_box_train/0002_c12s2_000050_01.jpg: "
    with pytest.raises(InputError, match=message):
        ingest_dataset(store, crops, data_set, "market1501", small_city, "none")
    assert find_city(store) is None
    (data_set / "query" / NAMES["query"][0]).write_bytes(picture(1))
    report = ingest_dataset(store, crops, data_set, "market1501", small_city, "none")
    assert (report.written, report.skipped_count) == (1, 5) and find_city(store) is not None


def test_a_set_with_two_truths_of_one_crop_leaves_no_city(
    store: Store, crops: CropStore, small_city: City, data_set: Path
) -> None:
    for name in ("0002_c1s1_000451_03.jpg", "0003_c1s1_000451_04.jpg"):
        (data_set / "query" / name).write_bytes(picture(99))
    with pytest.raises(InputError, match=r"truth '3' contradicts '2', .* no crops were written before this"):
        ingest_dataset(store, crops, data_set, "market1501", small_city, "none")
    assert find_city(store) is None and rows(store) == []


def test_a_set_with_other_times_adds_only_on_request(
    store: Store, crops: CropStore, small_city: City, data_set: Path
) -> None:
    ingest_dataset(store, crops, data_set, "market1501", small_city, "none")
    untimed = rows(store)
    message = r"taken in before with other options.*\(batch 1: 5 crops, times none, .*--add .*--replace "
    with pytest.raises(InputError, match=message):
        ingest_dataset(store, crops, data_set, "market1501", small_city, "frames:25")
    assert rows(store) == untimed
    report = ingest_dataset(store, crops, data_set, "market1501", small_city, "frames:25", again="replace")
    assert report.written == 5
    with store.begin() as connection:
        timed = connection.execute(text("SELECT timed FROM crop WHERE withdrawn_at IS NULL")).scalars().all()
    assert timed == [True] * 5


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("0002_c1s9999_000000_01.jpg", "frames:25"),
        ("0002_c1s1_999999999_01.jpg", "frames:0.5"),
        ("0002_c1s1_999999999_01.jpg", "frames:0.000001"),  # past the year 9999
    ],
)
def test_times_in_the_future_are_an_error_and_nothing_is_written(
    store: Store, crops: CropStore, small_city: City, data_set: Path, name: str, times: str
) -> None:
    (data_set / "query" / name).write_bytes(picture(1))
    with pytest.raises(InputError, match=f"query/{name}: at .* frames/s, .* lies in the future"):
        ingest_dataset(store, crops, data_set, "market1501", small_city, times)
    assert find_city(store) is None


def test_one_picture_of_two_people_is_an_error(
    store: Store, crops: CropStore, small_city: City, data_set: Path
) -> None:
    (data_set / "query" / "0009_c1s1_000007_00.jpg").write_bytes((data_set / "query" / NAMES["query"][0]).read_bytes())
    message = (
        r"query/0009_c1s1_000007_00.jpg: truth '9' contradicts '7', the same crop's truth in "
        r"query/0007_c1s1_000000_00.jpg; no crops were written before this"
    )
    with pytest.raises(InputError, match=message):
        ingest_dataset(store, crops, data_set, "market1501", small_city, "none")
    assert rows(store) == []


def test_a_real_set(store: Store, crops: CropStore) -> None:
    folder = real_set()
    units = [*UNITS[:-1], {"code": "d1/s1/b2/c2", "source": "c2"}]
    city = City.model_validate({"units": units})
    report = ingest_dataset(store, crops, folder, "market1501", city, "none", splits=["query", "bounding_box_test"])
    assert report == IngestReport(batch=1, read=938, written=938)
    with store.begin() as connection:
        query = "SELECT camera, count(*), count(DISTINCT truth) FROM crop JOIN crop_truth ON crop_id = id GROUP BY 1"
        found = {camera: (count, people) for camera, count, people in connection.execute(text(query))}
    assert sum(count for count, _ in found.values()) == 938
    assert Counter(people for _, people in found.values()) == Counter({100: 2})
