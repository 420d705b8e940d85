"""Pictures that version 0.2 stored by hash alone move to their places, however often the move is killed."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.crops.crop_store import PROBES, CropStore, Place
from pipeline.crops.earlier_layout import UNCLAIMED, is_earlier, move_pictures
from pipeline.store import Store, embedded
from tests.helpers.homes import unbound
from tests.helpers.rows import insert_city

CAMERA = "d1/s1/b1/c1"
DAY = datetime(2026, 1, 1, 12, tzinfo=UTC)
PICTURES = [b"picture %d" % number for number in range(40)]
SHARED, PROBED, ORPHAN = b"at two places", b"a probe", b"of a killed ingest"
NOTE = b"a file that somebody put there"
#: A district whose code looks like a folder of the earlier layout.
OTHER = sha256(SHARED).hexdigest()[:2]


def put_early(crops: CropStore, data: bytes) -> Path:
    name = sha256(data).hexdigest()
    path = crops.root / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def crops(server: embedded.EmbeddedServer, store: Store) -> Iterator[CropStore]:
    """A store with rows and pictures as version 0.2 left them."""
    crops = CropStore(store.settings)
    held = [(f"{CAMERA}", data) for data in [*PICTURES, SHARED]] + [(f"{OTHER}/s1/b1/c1", SHARED)]
    with store.begin() as connection:
        insert_city(connection)
        for code in (OTHER, f"{OTHER}/s1", f"{OTHER}/s1/b1", f"{OTHER}/s1/b1/c1"):
            connection.execute(text("INSERT INTO urban_unit (code) VALUES (:code)"), {"code": code})
        connection.execute(
            text(
                "INSERT INTO crop (key, camera, captured_at, timed, source, picture, width_px, height_px, quality) "
                "VALUES (:key, :camera, :at, true, 'test', :picture, 64, 128, 0.5)"
            ),
            [
                {"key": sha256(camera.encode() + data).digest(), "camera": camera, "at": DAY, "picture": digest(data)}
                for camera, data in held
            ],
        )
    probe = {"picture": digest(PROBED), "at": DAY}
    with unbound(server, store.settings) as connection:  # of then, which no session may say
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text("INSERT INTO probe (picture, uploaded_by, uploaded_at) VALUES (:picture, 'anna', :at)"), probe
        )
    for data in [*PICTURES, SHARED, PROBED, ORPHAN]:
        put_early(crops, data)
    put_early(crops, SHARED).with_name("abc.part").write_bytes(b"half")
    put_early(crops, SHARED).with_name("note.txt").write_bytes(NOTE)
    yield crops


def digest(data: bytes) -> bytes:
    return sha256(data).digest()


def check_moved(crops: CropStore) -> None:
    day = DAY.date()
    places = [(Place("d1", day), data) for data in [*PICTURES, SHARED]]
    places += [(Place(OTHER, day), SHARED), (Place(PROBES, day), PROBED)]
    for place, data in places:
        assert crops.get(place, digest(data)) == data
    name = digest(ORPHAN).hex()
    unclaimed = crops.root / UNCLAIMED / name[:2] / name[2:]
    assert unclaimed.read_bytes() == ORPHAN
    note = crops.root / UNCLAIMED / OTHER / "note.txt"
    assert note.read_bytes() == NOTE
    files = {path for path in crops.root.rglob("*") if path.is_file()}
    assert files == {crops.earlier_path(place, digest(data)) for place, data in places} | {unclaimed, note}
    assert all(path.stat().st_nlink == 1 for path in files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files - {unclaimed, note}} == {0o600}
    assert stat.S_IMODE(crops.root.stat().st_mode) == 0o700
    assert {path.name for path in crops.root.iterdir()} == {"d1", OTHER, PROBES, UNCLAIMED}
    assert not is_earlier(crops)


def test_opening_the_store_moves_the_pictures(store: Store, crops: CropStore) -> None:
    assert is_earlier(crops)
    with Store.open(store.settings):
        check_moved(crops)
    emptied = crops.root / "0f"
    emptied.mkdir()  # a move was killed before it removed the folder
    with Store.open(store.settings):
        assert not emptied.exists()
    inodes = {path: path.stat().st_ino for path in crops.root.rglob("*")}
    with Store.open(store.settings):
        assert {path: path.stat().st_ino for path in crops.root.rglob("*")} == inodes


def test_a_database_without_crops_moves_nothing(store: Store) -> None:
    crops = CropStore(store.settings)
    path = put_early(crops, PICTURES[0])
    with Store.open(store.settings):
        assert path.read_bytes() == PICTURES[0]


def test_a_file_system_without_hard_links_gets_copies(
    store: Store, crops: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    with store.begin() as connection:
        move_pictures(connection, crops)
    check_moved(crops)


_KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.store import Store
from schemas.settings import settings
left = int(sys.argv[1])
def counted(name):
    real = getattr(Path, name)
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(Path, name, call)
for name in ("hardlink_to", "unlink", "rename", "rmdir", "replace"):
    counted(name)
with Store.open(settings()):
    print("done")
"""


def test_a_move_that_is_killed_anywhere_loses_no_picture(store: Store, crops: CropStore) -> None:
    settings = store.settings
    environment = {**os.environ, "URBAN_REID_HOME": str(settings.home)}
    assert settings.database_url is not None
    environment["URBAN_REID_DATABASE_URL"] = settings.database_url
    kept = {digest(data) for data in [*PICTURES, SHARED, PROBED, ORPHAN]}
    kills = 0
    for steps in (3, 10, 25, 20, 15, 10, 35, 5, 3, 1_000):
        command = [sys.executable, "-c", _KILLED, str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        found = {digest(path.read_bytes()) for path in crops.root.rglob("*") if path.is_file()}
        assert kept <= found
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
    assert kills >= 4 and done.stdout == "done\n"
    check_moved(crops)
