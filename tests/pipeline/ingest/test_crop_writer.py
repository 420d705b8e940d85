import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from sqlalchemy import text

from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.ingest.batches import Source
from pipeline.ingest.crop_writer import BATCH, CLOCK_SLACK, Candidate, is_future, take_in
from pipeline.ingest.manifest import ingest_manifest
from pipeline.ingest.undo import undo
from pipeline.store import Store, embedded
from schemas.errors import InputError, PicturesUnavailable, StoreUnavailable, UrbanReidError
from tests.helpers.homes import unbound
from tests.helpers.object_store import BUCKET, object_store
from tests.helpers.pictures import picture

C1 = "d1/s1/b1/c1"
NOW = datetime(2026, 1, 1, 8, tzinfo=UTC)


def candidate(seed: int, *, at: datetime = NOW, truth: str | None = None, name: str = "") -> Candidate:
    return Candidate(name=name or f"picture {seed}", read=lambda: picture(seed), camera=C1, captured_at=at, truth=truth)


def truths(store: Store) -> list[tuple[datetime, str | None]]:
    with store.begin() as connection:
        query = "SELECT captured_at, truth FROM crop LEFT JOIN crop_truth ON crop_id = id ORDER BY 1, 2"
        return [tuple(row) for row in connection.execute(text(query))]


def taken(store: Store, crops: CropStore, candidates: Sequence[Candidate | None]) -> tuple[int, int]:
    """How many were written and how many were there already."""
    report = take_in(store, crops, Source("test", "test"), candidates, total=len(candidates), now=NOW)
    return report.written, report.already_there


def test_the_future_begins_behind_the_slack_of_a_camera_clock(city_store: Store, crops: CropStore) -> None:
    assert not is_future(NOW + CLOCK_SLACK, NOW) and is_future(NOW + CLOCK_SLACK + timedelta(microseconds=1), NOW)
    assert not is_future(datetime.now(UTC)) and is_future(datetime.now(UTC) + 2 * CLOCK_SLACK)


def test_a_time_in_the_future_is_refused_for_every_door(city_store: Store, crops: CropStore, tmp_path: Path) -> None:
    late = candidate(2, at=NOW + 2 * CLOCK_SLACK)
    with pytest.raises(InputError, match=r"picture 2: time 2026-01-01T08:02:00\+00:00 lies in the future; no crops"):
        taken(city_store, crops, [candidate(1), late])
    assert truths(city_store) == []
    with pytest.raises(InputError, match="lies in the future; 1 crops were written before this"):
        taken(city_store, crops, [candidate(1), None, late])
    assert truths(city_store) == [(NOW, None)]
    (tmp_path / "0.jpg").write_bytes(picture(0))
    (tmp_path / "manifest.jsonl").write_text(f'{{"path": "0.jpg", "camera": "{C1}", "time": "2026-01-01T08:02:00Z"}}')
    with pytest.raises(InputError, match="lies in the future"):
        ingest_manifest(city_store, crops, tmp_path / "manifest.jsonl", now=NOW)


def test_a_crop_with_two_truths_is_refused_with_both_places(city_store: Store, crops: CropStore) -> None:
    message = "line 3: truth 'eve' contradicts 'ann', the same crop's truth in line 2; no crops were written"
    with pytest.raises(InputError, match=message):
        taken(
            city_store,
            crops,
            [
                candidate(1, name="line 1"),
                candidate(1, name="line 2", truth="ann"),
                candidate(1, name="line 3", truth="eve"),
            ],
        )
    assert truths(city_store) == []
    assert taken(city_store, crops, [candidate(1, truth="ann")]) == (1, 0)
    message = "line 1: truth 'eve' contradicts 'ann', the same crop's truth in the store; no crops were written"
    with pytest.raises(InputError, match=message):
        taken(city_store, crops, [candidate(1, name="line 1", truth="eve"), candidate(2, truth="bob")])
    assert truths(city_store) == [(NOW, "ann")]


def test_truth_that_comes_later_is_added(city_store: Store, crops: CropStore) -> None:
    assert taken(city_store, crops, [candidate(1), candidate(1, truth="ann"), candidate(1)]) == (1, 2)
    assert truths(city_store) == [(NOW, "ann")]
    assert taken(city_store, crops, [candidate(2, at=NOW + timedelta(seconds=1))]) == (1, 0)
    assert taken(city_store, crops, [candidate(2, at=NOW + timedelta(seconds=1), truth="bob")]) == (0, 1)
    assert [truth for _, truth in truths(city_store)] == ["ann", "bob"]


def test_a_manifest_below_a_folder_whose_name_is_not_utf8(city_store: Store, crops: CropStore, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    folder.mkdir()
    (folder / "0.jpg").write_bytes(picture(0))
    line = f'{{"path": "%d.jpg", "camera": "{C1}", "time": "2026-01-01T08:00:00Z"}}\n'
    (folder / "manifest.jsonl").write_text(line % 0 + line % 1)
    report = ingest_manifest(city_store, crops, folder / "manifest.jsonl", now=NOW)
    assert (report.written, report.skipped) == (1, ("line 2, '1.jpg': No such file or directory",))


def test_batches_before_a_fault_stay(city_store: Store, crops: CropStore) -> None:
    same = picture(0)
    many = [
        Candidate(name=str(n), read=lambda: same, camera=C1, captured_at=NOW - timedelta(seconds=n))
        for n in range(BATCH)
    ]
    with pytest.raises(InputError, match=f"; {BATCH} crops were written before this"):
        taken(city_store, crops, [*many, candidate(1, at=NOW + timedelta(days=1))])
    assert len(truths(city_store)) == BATCH


def test_a_part_whose_connection_is_lost_is_written_again_where_that_is_waited_out(
    city_store: Store, crops: CropStore, server: embedded.EmbeddedServer
) -> None:
    waited: list[UrbanReidError] = []

    def cut() -> bytes:
        if len(waited) < 2:
            with unbound(server, city_store.settings) as connection:
                cut_off = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                assert connection.scalar(text(f"{cut_off} WHERE application_name LIKE 'pytest %'"))
        return picture(3)

    def wait_out(error: UrbanReidError) -> bool:
        waited.append(error)
        return True

    given = [candidate(1), candidate(2), None, candidate(4), replace(candidate(3), read=cut), candidate(5)]
    with pytest.raises(StoreUnavailable):
        take_in(city_store, crops, Source("test", "test"), given, total=5, now=NOW)
    source = Source("test", "test")
    report = take_in(city_store, crops, source, given, total=5, now=NOW, wait_out=wait_out)
    assert [type(error) for error in waited] == [StoreUnavailable] * 2
    assert (report.read, report.written, report.already_there) == (5, 3, 2) and len(truths(city_store)) == 5
    with city_store.begin() as connection:
        row = connection.execute(text("SELECT read, written FROM ingest_batch WHERE id = :id"), {"id": report.batch})
        assert tuple(row.one()) == (5, 3)


def test_an_object_store_that_is_away_is_waited_out(city_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.files.object_store._TRIES", 1)
    with object_store() as served:
        host, port = served.get_host_and_port()
        settings = city_store.settings.model_copy(update={"pictures_url": f"s3://{BUCKET}/waited"})
        crops = CropStore(settings)
        served.stop()
        waited: list[UrbanReidError] = []

        def wait_out(error: UrbanReidError) -> bool:
            waited.append(error)
            back = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
            back.start()
            served._server = back._server
            return True

        source = Source("test", "test")
        report = take_in(city_store, crops, source, [candidate(1)], total=1, now=NOW, wait_out=wait_out)
        assert [type(error) for error in waited] == [PicturesUnavailable] and report.written == 1


def test_an_ingest_removes_what_killed_ones_left(city_store: Store, crops: CropStore) -> None:
    part = crops.root / "d1" / "2025-12-31" / "abcdef.0123.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half a picture")
    assert taken(city_store, crops, [candidate(1)]) == (1, 0)
    assert not part.exists()


def test_an_undo_removes_a_picture_from_the_places_of_its_own_crops(city_store: Store, crops: CropStore) -> None:
    """The same picture of two days is two files; of two crops of one day it is one."""
    yesterday, sha256 = NOW - timedelta(days=1), hashlib.sha256(picture(1)).digest()
    batches = []
    for number, moment in enumerate((NOW, NOW - timedelta(seconds=1), yesterday)):
        source = Source("test", f"source {number}")
        batches.append(take_in(city_store, crops, source, [candidate(1, at=moment)], total=1, now=NOW).batch)
    today, before = (crops.root / crops.name(place_of_crop(C1, moment), sha256) for moment in (NOW, yesterday))
    for batch, left in zip(reversed(batches), ({today}, {today}, set()), strict=True):
        assert batch is not None
        undo(city_store, crops, batch, operator="anna", reason="wrong camera")
        assert {path for path in (today, before) if path.exists()} == left
