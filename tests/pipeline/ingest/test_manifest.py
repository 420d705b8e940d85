import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.ingest import crop_writer as crops_in
from pipeline.ingest.manifest import ingest_manifest
from pipeline.store import Store
from schemas.crops import IngestReport
from schemas.errors import CityError, InputError

C1, C2 = "d1/s1/b1/c1", "d1/s1/b2/c2"
TRICKY = "<script>alert(1)</script> ../😀 'x' %s \\"


def line(number: int = 0, **fields: Any) -> dict[str, Any]:
    """A good line for picture `number`, with other fields where given."""
    return {"path": f"{number}.jpg", "camera": C1, "time": f"2026-01-01T08:00:{number:02}.120Z"} | fields


def write(folder: Path, lines: Sequence[dict[str, Any] | str], name: str = "manifest.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in lines))
    return path


def rows(store: Store) -> list[Any]:
    with store.begin() as connection:
        return list(
            connection.execute(
                text("SELECT c.*, truth FROM crop c LEFT JOIN crop_truth ON crop_id = c.id ORDER BY captured_at, key")
            )
        )


def versions(store: Store) -> dict[str, tuple[datetime, int]]:
    with store.begin() as connection:
        found = connection.execute(text("SELECT unit, dirty_from, version FROM watermark"))
        return {unit: (dirty_from, version) for unit, dirty_from, version in found}


def test_crops_come_in_as_the_manifest_says(city_store: Store, crops: CropStore, folder: Path) -> None:
    path = write(
        folder,
        [
            line(0, track=TRICKY, box=[10, 20, 64, 128.5], truth=TRICKY),
            line(1, camera=C2, time="2026-01-01T09:07:00+01:00"),
            line(1, time="2026-01-01T08:09:01Z"),  # the same picture under two cameras
        ],
    )
    seen: list[tuple[int, int]] = []
    report = ingest_manifest(city_store, crops, path, lambda done, total: seen.append((done, total)))
    assert report == IngestReport(batch=1, read=3, written=3)
    assert seen == [(3, 3)]
    first, second, third = rows(city_store)
    assert (first.camera, first.captured_at, first.timed) == (C1, datetime(2026, 1, 1, 8, 0, 0, 120_000, UTC), True)
    assert (first.track, first.truth, first.box) == (TRICKY, TRICKY, [10, 20, 64, 128.5])
    assert (first.width_px, first.height_px) == (32, 64) and 0 < first.quality < 1
    assert crops.get(place_of_crop(C1, first.captured_at), bytes(first.picture)) == (folder / "0.jpg").read_bytes()
    assert (second.camera, second.track, second.truth, second.box) == (C2, None, None, None)
    assert second.captured_at == datetime(2026, 1, 1, 8, 7, tzinfo=UTC)
    assert second.picture == third.picture and second.key != third.key
    assert versions(city_store) == {
        C1: (datetime(2026, 1, 1, 8, 0, tzinfo=UTC), 1),
        C2: (datetime(2026, 1, 1, 8, 5, tzinfo=UTC), 1),
    }


def test_the_same_manifest_twice_writes_nothing(city_store: Store, crops: CropStore, folder: Path) -> None:
    path = write(folder, [line(n, truth="7") for n in range(10)])
    assert ingest_manifest(city_store, crops, path) == IngestReport(batch=1, read=10, written=10)
    before = rows(city_store), versions(city_store)
    assert ingest_manifest(city_store, crops, path) == IngestReport(batch=1, read=10, already_there=10)
    assert (rows(city_store), versions(city_store)) == before


def test_keys_do_not_depend_on_folder_order_or_parts(
    city_store: Store, crops: CropStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_manifest(city_store, crops, write(folder, [line(n) for n in range(10)]))
    moved = folder.rename(folder.with_name("moved"))
    monkeypatch.setattr(crops_in, "BATCH", 3)
    for part in (range(9, 4, -1), range(5)):
        path = write(moved, [line(n) for n in part], f"part{part.start}.jsonl")
        assert ingest_manifest(city_store, crops, path).written == 0


def test_late_data_moves_the_mark_back_and_only_back(city_store: Store, crops: CropStore, folder: Path) -> None:
    start = datetime(2026, 1, 1, 8, 0, tzinfo=UTC)
    for number, (minute, marked) in enumerate([(12, 10), (3, 0), (40, 0)]):
        moment = (start + timedelta(minutes=minute)).isoformat()
        ingest_manifest(city_store, crops, write(folder, [line(number, time=moment)]))
        assert versions(city_store) == {C1: (start + timedelta(minutes=marked), number + 1)}


def test_a_line_that_stands_twice_is_one_crop(city_store: Store, crops: CropStore, folder: Path) -> None:
    report = ingest_manifest(city_store, crops, write(folder, [line(0), line(0), line(1), line(0)]))
    assert report == IngestReport(batch=1, read=4, written=2, already_there=2)


def test_truth_may_come_later_but_never_changes(city_store: Store, crops: CropStore, folder: Path) -> None:
    for truth in (None, "a", None):
        ingest_manifest(city_store, crops, write(folder, [line(0, truth=truth)]))
    assert [row.truth for row in rows(city_store)] == ["a"]
    with pytest.raises(InputError, match=r"line 1, '0.jpg': truth 'b' contradicts 'a', the same crop's truth"):
        ingest_manifest(city_store, crops, write(folder, [line(0, truth="b")]))
    assert [row.truth for row in rows(city_store)] == ["a"]


def test_unusable_pictures_among_good_ones_are_skipped_and_reported(
    city_store: Store, crops: CropStore, folder: Path
) -> None:
    (folder / "1.jpg").write_bytes(b"")
    (folder / "2.jpg").write_bytes((folder / "2.jpg").read_bytes()[:-300])
    (folder / "3.jpg").unlink()
    (folder / "4.jpg").unlink()
    os.mkfifo(folder / "4.jpg")
    (folder / "5.jpg").write_bytes(b"PK\x03\x04 an archive")
    report = ingest_manifest(city_store, crops, write(folder, [line(n) for n in range(7)]))
    assert (report.read, report.written, report.skipped_count) == (7, 2, 5)
    for number, reason in enumerate(("empty", "damaged", "No such file", "no regular file", "is no JPEG"), start=2):
        assert report.skipped[number - 2].startswith(f"line {number}, '{number - 1}.jpg': ")
        assert reason in report.skipped[number - 2]
    assert len(rows(city_store)) == 2


def test_a_manifest_without_one_usable_picture_is_refused(city_store: Store, crops: CropStore, folder: Path) -> None:
    path = write(folder, [line(20), line(21)])
    with pytest.raises(InputError, match=r"none of the 2 pictures can be used; the first: line 1, '20.jpg'"):
        ingest_manifest(city_store, crops, path)


BAD_LINES: list[tuple[dict[str, Any] | str, str]] = [
    ("{", "line 2: Invalid JSON"),
    ("[]", "line 2: "),
    ('{"path": "a.jpg"}', "line 2: camera: Field required"),
    (line(color="red"), "line 2: unknown key 'color'; known: box, camera, path, time, track, truth"),
    (
        '{"path":"0.jpg","camera":"d1/s1/b1/c1","tiem":"2026-01-01T08:00:00Z"}',
        "line 2: unknown key 'tiem'; did you .*'time'",
    ),
    (line(camera="d1/s1/b1/c11"), "line 2: no camera 'd1/s1/b1/c11' in this city; nearest: d1/s1/b1/c1"),
    (line(camera="d1/s1/b1"), "line 2: no camera 'd1/s1/b1'"),
    (line(camera="D1"), "line 2: camera: 'D1' is not a unit code"),
    (line(time="2026-01-01T08:00:00"), "line 2: time: .* has no zone"),
    (line(time="yesterday"), "line 2: time: 'yesterday' is not a time"),
    (line(time="0001-01-01T00:00:00+10:00"), "line 2: time: .* is not a time"),
    (line(time="2026-02-01T12:02:00Z"), "line 2: time .* lies in the future"),
    (line(box=[0, 0, 0, 5]), "line 2: the box has no area"),
    (line(box=[0, 0, 5]), "line 2: box"),
    ('{"path":"0.jpg","camera":"d1/s1/b1/c1","time":"2026-01-01T08:00:00Z","box":[NaN,0,1,1]}', "line 2: "),
    (line(path=""), "line 2: path: "),
    (line(path="a\x00.jpg"), "line 2: the path holds a NUL"),
    (line(path="/etc/passwd"), "line 2: the path '/etc/passwd' leaves"),
    (line(path="../0.jpg"), "line 2: the path '../0.jpg' leaves"),
    (line(path="a/../../0.jpg"), "leaves the manifest's folder"),
    (line(path="out.jpg"), "line 2: the path 'out.jpg' leads to a place outside"),
    (line(path="outside/0.jpg"), "leads to a place outside"),
    (line(path="file:///etc/passwd"), "leads to a place outside"),
    (line(path="file://host/etc/passwd"), "names another machine"),
    (line(path="https://example.org/a.jpg"), "lies below no allowed root"),
    (line(path="s3://bucket/a.jpg"), "lies below no allowed root"),
    (line(path="memory://other/a.jpg"), "lies below no allowed root"),
    (line(path="memory://allowed/../other/a.jpg"), "is not plain"),
    (line(path="memory://allowed/%2e%2e/other/a.jpg"), "is not plain"),
    (line(path="simplecache::memory://allowed/a.jpg"), "no plain scheme"),
    (line(path="file:///x::memory://allowed/a.jpg"), "is not plain"),
    (line(track="a\nb"), r"line 2: track: holds the control character U\+000A"),
    (line(truth="a\x00b"), "line 2: truth: holds a NUL"),
    (json.dumps(line(truth="x")).replace('"x"', '"\\ud800"'), "line 2: "),
    ("x" * 70_000, "line 2: longer than 65536 bytes"),
]


def test_a_line_that_cannot_be_meant_stops_it_with_nothing_written(city_store: Store, folder: Path) -> None:
    (folder.parent / "outside.jpg").write_bytes((folder / "0.jpg").read_bytes())
    (folder / "out.jpg").symlink_to(folder.parent / "outside.jpg")
    (folder / "outside").symlink_to(folder.parent)
    city_store.settings = city_store.settings.model_copy(update={"crop_roots": ("memory://allowed",)})
    crops = CropStore(city_store.settings)
    for bad, message in BAD_LINES:
        with pytest.raises(InputError, match=message) as caught:
            ingest_manifest(
                city_store, crops, write(folder, [line(0), bad]), now=datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
            )
        assert "\n" not in str(caught.value)
    assert rows(city_store) == [] and versions(city_store) == {}
    assert not crops.root.exists()


def test_a_link_to_itself_is_a_picture_that_cannot_be_read(city_store: Store, crops: CropStore, folder: Path) -> None:
    (folder / "loop.jpg").symlink_to("loop.jpg")
    report = ingest_manifest(city_store, crops, write(folder, [line(0), line(path="loop.jpg")]))
    assert (report.written, report.skipped_count) == (1, 1)


def test_the_first_ten_faults_are_listed(city_store: Store, crops: CropStore, folder: Path) -> None:
    path = write(folder, [line(0), *["{"] * 12])
    with pytest.raises(InputError, match=r"nothing was written. line 2: .*; line 11: [^;]*; and 2 more$"):
        ingest_manifest(city_store, crops, path)


def test_a_clock_a_little_ahead_is_taken(city_store: Store, crops: CropStore, folder: Path) -> None:
    now = datetime(2026, 1, 1, 8, 0, tzinfo=UTC)
    path = write(folder, [line(0, time="2026-01-01T08:00:59Z")])
    assert ingest_manifest(city_store, crops, path, now=now).written == 1


def test_a_clock_set_back_is_noted_once_a_camera(city_store: Store, crops: CropStore, folder: Path) -> None:
    times = ["08:00:01", "08:00:00", "07:00:00", "07:00:01"]
    lines = [line(n, track="5", time=f"2026-01-01T{time}Z") for n, time in enumerate(times)]
    report = ingest_manifest(
        city_store, crops, write(folder, [*lines, line(4, track="6", time="2026-01-01T06:00:00Z")])
    )
    assert report.written == 5
    assert len(report.notes) == 1
    assert f"camera {C1}: times of track '5' go back at line 2" in report.notes[0]


def test_pictures_below_an_allowed_root(city_store: Store, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "1.jpg").rename(elsewhere / "1.jpg")
    city_store.settings = city_store.settings.model_copy(update={"crop_roots": (str(elsewhere),)})
    lines = [line(0, path=f"file://{folder}/0.jpg"), line(1, path=f"FILE://{elsewhere}/1.jpg")]
    report = ingest_manifest(city_store, CropStore(city_store.settings), write(folder, lines))
    assert report == IngestReport(batch=1, read=2, written=2)


def test_a_uri_of_an_allowed_scheme_and_root(city_store: Store, folder: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/allowed/1.jpg", (folder / "1.jpg").read_bytes())
    roots = ("memory://allowed", "nosuch://root")
    city_store.settings = city_store.settings.model_copy(update={"crop_roots": roots})
    lines = [line(n, path=path) for n, path in enumerate(["memory://allowed/1.jpg", "nosuch://root/1.jpg"])]
    report = ingest_manifest(city_store, CropStore(city_store.settings), write(folder, lines))
    assert (report.written, report.skipped_count) == (1, 1)
    assert "Protocol not known: nosuch" in report.skipped[0]


def test_names_that_mean_something_to_others_are_just_names(city_store: Store, crops: CropStore, folder: Path) -> None:
    names = ["a::b.jpg", "*.jpg", "~.jpg", "%2e%2e.jpg", "a b?#.jpg", "😀\n.jpg", "-rf.jpg"]
    for number, name in enumerate(names):
        (folder / f"{number}.jpg").rename(folder / name)
    report = ingest_manifest(city_store, crops, write(folder, [line(n, path=name) for n, name in enumerate(names)]))
    assert report == IngestReport(batch=1, read=7, written=7)


def test_parquet_gives_the_same_crops_as_json_lines(city_store: Store, crops: CropStore, folder: Path) -> None:
    lines = [line(n, track=str(n), box=[1, 2, 3, 4], truth="x") for n in range(10)]
    ingest_manifest(city_store, crops, write(folder, [*lines, ""]))
    table = pa.Table.from_pylist([*lines])
    pq.write_table(table, folder / "text.parquet")
    moments = pa.array([datetime.fromisoformat(entry["time"]) for entry in lines], pa.timestamp("ns", "Europe/Berlin"))
    pq.write_table(table.set_column(2, "time", moments), folder / "moments.parquet")
    for batch, name in enumerate(("text", "moments"), start=2):
        assert ingest_manifest(city_store, crops, folder / f"{name}.parquet") == IngestReport(
            batch=batch, read=10, already_there=10
        )


def test_bad_parquet(city_store: Store, crops: CropStore, folder: Path) -> None:
    naive = pa.Table.from_pylist([line(0) | {"time": datetime(2026, 1, 1)}])  # noqa: DTZ001 - no zone is the point
    pq.write_table(naive, folder / "naive.parquet")
    with pytest.raises(InputError, match=r"line 1: time: .* has no zone"):
        ingest_manifest(city_store, crops, folder / "naive.parquet")
    (folder / "cut.parquet").write_bytes((folder / "naive.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        ingest_manifest(city_store, crops, folder / "cut.parquet")


@pytest.mark.parametrize(
    ("unit", "count", "time"),
    [
        ("s", 1_767_254_400, "2026-01-01T08:00:00+00:00"),
        ("ms", 1_767_254_400_123, "2026-01-01T08:00:00.123000+00:00"),
        ("ns", 1_767_254_400_123_456_789, "2026-01-01T08:00:00.123456+00:00"),
        ("ns", -1, "1969-12-31T23:59:59.999999+00:00"),
    ],
)
def test_parquet_timestamps_of_every_unit(
    city_store: Store, crops: CropStore, folder: Path, unit: str, count: int, time: str
) -> None:
    table = pa.Table.from_pylist([line(0)]).set_column(2, "time", pa.array([count], pa.timestamp(unit, "UTC")))
    pq.write_table(table, folder / "moments.parquet", version="2.6", coerce_timestamps=None)
    ingest_manifest(city_store, crops, folder / "moments.parquet")
    assert [row.captured_at for row in rows(city_store)] == [datetime.fromisoformat(time)]


@pytest.mark.parametrize("year", [10_000, 0, 200_000, -200_000])
def test_a_parquet_time_that_no_calendar_has_names_its_row(
    city_store: Store, crops: CropStore, folder: Path, year: int
) -> None:
    us = (year - 1970) * 31_556_952_000_000
    times = pa.array([1_767_254_400_000_000, us], pa.timestamp("us", "UTC"))
    table = pa.Table.from_pylist([line(0), line(1)])
    pq.write_table(table.set_column(2, "time", times), folder / "far.parquet")
    with pytest.raises(InputError, match=f"nothing was written. line 2: time: '{us} us since 1970' is not a time"):
        ingest_manifest(city_store, crops, folder / "far.parquet")
    with_other = table.append_column("until", times)
    pq.write_table(with_other, folder / "other.parquet")
    with pytest.raises(InputError, match=r"other\.parquet: (cannot be read as Parquet|nothing was written)"):
        ingest_manifest(city_store, crops, folder / "other.parquet")


def test_missing_and_empty_manifests(city_store: Store, crops: CropStore, folder: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        ingest_manifest(city_store, crops, folder / "missing.jsonl")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        ingest_manifest(city_store, crops, folder)
    with pytest.raises(InputError, match="holds no line"):
        ingest_manifest(city_store, crops, write(folder, ["", " "]))


def test_without_a_city(store: Store, crops: CropStore, folder: Path) -> None:
    with pytest.raises(CityError, match="urban-reid city load"):
        ingest_manifest(store, crops, write(folder, [line(0)]))


def test_what_stops_in_the_middle_leaves_whole_batches(
    city_store: Store, crops: CropStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops_in, "BATCH", 4)
    path = write(folder, [line(n, truth="1") for n in range(10)])

    def stop(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest_manifest(city_store, crops, path, stop)
    assert [row.truth for row in rows(city_store)] == ["1"] * 8
    assert versions(city_store)[C1][1] == 2
    assert ingest_manifest(city_store, crops, path) == IngestReport(batch=1, read=10, written=2, already_there=8)
