"""Backups: what is written, restored, verified and refused."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.backup import BackedUp, backup, restore, verify
from pipeline.backup.keys import backup_key
from pipeline.backup.manifest import read_files, read_manifest, write_manifest
from pipeline.backup.objects import bring_back, copy_whole, file_hash, object_path
from pipeline.backup.restore import other_settings
from pipeline.browsing.plan_picture import read_extent, read_picture, store_picture
from pipeline.city.status import status
from pipeline.city.watermarks import mark_everything
from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.doctor.folder import check_folder
from pipeline.encryption.key_service import key_service
from pipeline.encryption.sealed import unseal
from pipeline.governance.audit_chain import verify_city
from pipeline.ingest.undo import undo
from pipeline.registry import model_in_use
from pipeline.resolve import resolve_unit, units_within
from pipeline.store import Store, embedded, roles, upgrade
from pipeline.store.embedded_programs import client
from pipeline.store.embedded_secrets import read_password
from pipeline.store.user_supplied import supplied_url
from reid_core.detection.files import default_detector, keep_detector, make_default
from schemas import disk
from schemas.errors import HomeError, InputError, StoreError
from schemas.settings import AssociationSettings, Settings
from tests.helpers.catalog import catalog, rows
from tests.helpers.command_line import environment_of
from tests.helpers.homes import superuser_of
from tests.helpers.people import add_people, become
from tests.helpers.pictures import noise
from tests.helpers.rows import fill, fill_standing
from tests.helpers.town import Town

Taken = tuple[Path, BackedUp]


@pytest.fixture
def copied(taken: Taken, tmp_path: Path) -> Path:
    return shutil.copytree(taken[0], tmp_path / "copied")


def killed_at(step: str, call: str, settings: Settings, folder: Path) -> None:
    """Runs `backup` or `restore` in a process of its own that is killed, as by the kernel, when `step` begins."""
    script = (
        "import os, signal, sys; from pathlib import Path; from pipeline import backup; "
        "from schemas.settings import settings\n"
        "def tell(label, done, total):\n"
        "    if label == sys.argv[3] and done >= total // 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "getattr(backup, sys.argv[1])(settings(), Path(sys.argv[2]), tell)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, call, str(folder), step], env=environment_of(settings), capture_output=True
    )
    assert done.returncode == -9, done.stderr.decode()


def pg(program: str, *arguments: str) -> str:
    """What one of PostgreSQL's programs prints."""
    return subprocess.run([client(program), *arguments], env={}, check=True, capture_output=True, text=True).stdout


# ---- the law


def test_a_restored_city_has_the_same_decisions_and_nothing_to_resolve(
    resolved: Town, taken: Taken, home: Path, server: embedded.EmbeddedServer
) -> None:
    before = status(resolved.store)
    home = home / "new" / "city"  # made by the restore; root's database must be able to pass through
    settings = Settings(home=home, database_url=None)
    done = restore(settings, taken[0])
    assert done.digest == taken[1].manifest.decision_digest == before["digest"]
    assert done.other_settings == {}
    with Store.open(settings) as store:
        assert status(store) == before
        with store.begin() as connection:
            model = model_in_use(connection)
            mark_everything(connection)  # so that each window is looked at, and its run's key computed, again
            assert connection.scalar(text("SELECT count(*) FROM audit WHERE action = 'backup.restore'")) == 1
        written = sum(
            resolve_unit(store, resolved.core, model, code, settings=settings.association).written
            for code in units_within(store, "d1")
        )
        assert written == 0
    pictures = [file for file in read_files(taken[0], taken[1].manifest) if file.path.startswith("crops/")]
    assert len(pictures) == len({path for path in resolved.crops.root.rglob("*") if path.is_file()}) > 0
    contexts = [file for file in read_files(taken[0], taken[1].manifest) if file.path.startswith("context/")]
    assert before["context_frames"] > 0 and len(contexts) == 1  # all tracks have one picture, of one day
    for file in (*pictures, *contexts):
        assert (home / file.path).read_bytes() == (resolved.store.settings.home / file.path).read_bytes()


@pytest.fixture
def target(granted: Settings, home: Path) -> Settings:
    """An empty home and an empty database on a user-supplied server."""
    return granted.model_copy(update={"home": home})


def test_the_detectors_of_a_home_come_along_and_files_of_two_models_once(
    settings: Settings, target: Settings, tmp_path: Path
) -> None:
    """Without its detector a restored home would see other people; a feature space has the files of its base."""
    for name in ("base", "space"):
        (settings.models_dir / name).mkdir(parents=True)
        (settings.models_dir / name / "network.bin").write_bytes(b"weights")
    (tmp_path / "net.onnx").write_bytes(b"a network")
    keep_detector(settings, "net", [tmp_path / "net.onnx"])
    make_default(settings, "net")
    backup(settings, tmp_path / "city")
    restore(target, tmp_path / "city")
    assert default_detector(target) == "net"
    assert (target.detectors_dir / "net" / "net.onnx").read_bytes() == b"a network"
    files = [target.models_dir / name / "network.bin" for name in ("base", "space")]
    assert files[0].samefile(files[1]) and files[1].read_bytes() == b"weights"


def test_a_restored_database_has_every_row_right_and_definition(
    server: embedded.EmbeddedServer, settings: Settings, target: Settings, tmp_path: Path
) -> None:
    with Store.open(settings) as store:
        fill(store)
        fill_standing(superuser_of(server, settings))
        add_people(store)
        become(store, "anna")
    store_picture(settings, noise(300, 600), 5.0, 6.0, 200.0)
    backup(settings, tmp_path / "city")
    of_old, of_new = (supplied_url(one).database or "" for one in (settings, target))
    was = rows(lambda: server.connect(roles.OWNER, of_old))
    restore(target, tmp_path / "city")
    now = rows(lambda: server.connect(roles.OWNER, of_new))
    assert catalog(lambda: server.connect(roles.OWNER, of_new)) == catalog(lambda: server.connect(roles.OWNER, of_old))
    (note,) = set(now.pop("audit")) - set(was.pop("audit"))
    assert "backup.restore" in note
    (link,) = set(now.pop("audit_chain")) - set(was.pop("audit_chain"))
    assert '"position": 2' in link
    assert '"ended_at": null' in was.pop("session")[0] and '"ended_at": null' not in now.pop("session")[0]
    assert now == was
    for table in ("standing_search", "standing_picture", "standing_passage", "standing_message", "search_example"):
        assert now[table], table
    assert now["review_open"] and read_picture(target) == read_picture(settings) is not None
    assert read_extent(target) == read_extent(settings) is not None
    with Store.open(target) as store:
        verdict = verify_city(store)
    assert (verdict.faults, verdict.rows) == ([], 2)  # the chain goes on in the restored city


def test_a_backup_is_of_one_moment_while_the_city_is_at_work(
    resolved: Town, lines: list[str], tmp_path: Path, home: Path
) -> None:
    before = status(resolved.store)
    took_in: list[str] = []

    def tell(label: str, done: int, total: int) -> None:
        if label.startswith("reading the decisions") and not took_in:
            took_in.append(label)
            resolved.take_in(lines[150:160])
            resolved.resolve()

    done = backup(resolved.store.settings, tmp_path / "city", tell)
    assert took_in and status(resolved.store)["digest"] != before["digest"]
    assert done.manifest.decision_digest == before["digest"] and done.manifest.missing_pictures == 0
    assert restore(Settings(home=home, database_url=None), tmp_path / "city").digest == before["digest"]


# ---- backups in a row, and interrupted ones


def test_a_further_backup_copies_what_is_new_or_damaged_and_drops_what_the_city_dropped(
    fresh_town: Callable[..., Town], lines: list[str], tmp_path: Path
) -> None:
    town, folder = fresh_town(), tmp_path / "city"
    town.take_in(lines[:20])
    first = backup(town.store.settings, folder)
    assert first.copied_files == first.manifest.count > 20
    assert backup(town.store.settings, folder).copied_files == 0
    damaged = next(read_files(folder, read_manifest(folder)))
    object_path(folder, damaged.sha256).write_bytes(b"damaged")
    town.take_in(lines[20:25])
    third = backup(town.store.settings, folder)
    assert third.copied_files == 6 and third.manifest.count == first.manifest.count + 5
    with town.store.begin() as connection:
        newest = connection.scalar(text("SELECT max(id) FROM ingest_batch"))
    undo(town.store, town.crops, int(newest or 0), operator="anna", reason="wrong camera")
    fourth = backup(town.store.settings, folder)
    assert fourth.manifest.count == first.manifest.count and fourth.manifest.missing_pictures == 0
    assert len([path for path in (folder / "objects").rglob("*") if path.is_file()]) == first.manifest.count
    assert not verify(folder).faults
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "backup.lock", "key-file", "manifest.json", "objects", fourth.manifest.database.name, fourth.manifest.files.name
    }  # fmt: skip


def test_what_the_city_lost_stays_in_its_backup(
    fresh_town: Callable[..., Town], lines: list[str], tmp_path: Path, home: Path
) -> None:
    """It may be the last copy; a backup made every night must not remove it."""
    town, folder = fresh_town(), tmp_path / "city"
    settings = town.store.settings
    town.take_in(lines[:20])
    before = backup(settings, folder).manifest
    pictures = [settings.home / file.path for file in read_files(folder, before) if file.path.startswith("crops/")]
    content = {path: path.read_bytes() for path in (pictures[0], pictures[1], *settings.models_dir.glob("test/*"))}
    pictures[0].unlink()
    pictures[1].write_bytes(b"damaged")
    for path in settings.models_dir.glob("test/*.safetensors"):
        path.write_bytes(b"damaged")
    for _ in range(2):
        after = backup(settings, folder).manifest
        assert (after.count, after.missing_pictures, after.missing_models) == (before.count, 0, ())
    restore(Settings(home=home, database_url=None), folder)
    for path, was in content.items():
        assert (home / path.relative_to(settings.home)).read_bytes() == was
    other = backup(settings, tmp_path / "another").manifest
    assert (other.missing_pictures, other.missing_models) == (2, ("test",))


@pytest.mark.parametrize(
    "step", ["reading the decisions", "files copied or found there", "checking and writing to the disk"]
)
def test_a_killed_backup_leaves_the_one_before_and_is_made_up_for(resolved: Town, copied: Path, step: str) -> None:
    before = read_manifest(copied)
    lost = {file.path for file in read_files(copied, before) if file.sha256.startswith("0")}
    for folder in (copied / "objects").glob("0?"):
        shutil.rmtree(folder)
    killed_at(step, "backup", resolved.store.settings, copied)
    assert read_manifest(copied) == before
    assert {fault.split()[0] for fault in verify(copied).faults} <= lost
    after = backup(resolved.store.settings, copied)
    assert not verify(copied).faults
    assert {path.name for path in copied.glob("*-2*")} == {after.manifest.database.name, after.manifest.files.name}


@pytest.mark.parametrize("step", ["files copied", "checking the decisions"])
def test_a_killed_restore_is_told_and_goes_on(taken: Taken, copied: Path, home: Path, step: str) -> None:
    settings = Settings(home=home, database_url=None)
    killed_at(step, "restore", settings, taken[0])
    for use in (lambda: Store.open(settings), lambda: upgrade(settings)):
        with pytest.raises(HomeError, match=r"a restore into .* is not finished; .*`urban-reid db restore DIR` again"):
            use()
    assert "restore" in {check.name for check in check_folder(settings)}
    with pytest.raises(HomeError, match="holds an unfinished restore of another backup"):
        (copied / "manifest.json").write_text((copied / "manifest.json").read_text() + " ")
        restore(settings, copied)
    assert restore(settings, taken[0]).digest == taken[1].manifest.decision_digest
    Store.open(settings).close()
    assert "restore" not in {check.name for check in check_folder(settings)}


def test_a_full_disk_is_one_line_and_leaves_no_manifest(resolved: Town, small_disk: Path) -> None:
    with pytest.raises(StoreError, match=r"database-\S+ cannot be written: .*(No space left|File too large)"):
        backup(resolved.store.settings, small_disk / "city")
    assert [path.name for path in (small_disk / "city").iterdir()] == ["backup.lock"]


# ---- what a backup holds, and who may read it


def test_a_backup_is_closed_to_others_and_holds_no_password(taken: Taken, resolved: Town, tmp_path: Path) -> None:
    folder = taken[0]
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    password = supplied_url(resolved.store.settings).password
    assert isinstance(password, str)
    for path in (folder / "manifest.json", folder / taken[1].manifest.files.name):
        assert password not in path.read_text()
    with (folder / taken[1].manifest.database.name).open("rb") as sealed, (tmp_path / "plain").open("wb") as plain:
        key = backup_key(resolved.store.settings, taken[1].manifest).key
        unseal(key, sealed, plain)
    script = pg("pg_restore", "--file=-", str(tmp_path / "plain"))
    assert "PASSWORD '" not in script.upper() and password not in script and "CREATE ROLE" not in script


def test_settings_that_decide_are_compared(taken: Taken) -> None:
    settings = Settings(association=AssociationSettings(window_s=60))
    assert other_settings(taken[1].manifest, settings) == {"URBAN_REID_ASSOCIATION__WINDOW_S": 300}


# ---- encryption


def test_without_the_key_file_a_backup_says_nothing_and_is_verified_all_the_same(
    fresh_town: Callable[..., Town], lines: list[str], tmp_path: Path, home: Path
) -> None:
    town, folder, file = fresh_town(), tmp_path / "city", tmp_path / "key"
    town.take_in(lines[:20])
    (town.store.settings.home / "key-file").rename(file)
    settings = town.store.settings.model_copy(update={"key_file": file})
    pictures = [path.read_bytes() for path in town.files.rglob("*.jpg")]
    digest = backup(settings, folder).manifest.decision_digest
    held = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert pictures and not any(picture[:40] in content for picture in pictures for content in held.values())
    assert not any(b"d1/s1/b1" in content or b"PGDMP" in content for content in held.values())
    key = file.read_bytes()
    assert not any(key.strip() in content or bytes.fromhex(key.decode()) in content for content in held.values())
    file.unlink()
    assert not verify(folder).faults
    with pytest.raises(HomeError, match=r"key is missing, .* name its copy in URBAN_REID_KEY_FILE"):
        restore(Settings(home=home, database_url=None, key_file=file), folder)
    copy = tmp_path / "copy of the key"
    copy.write_bytes(key)
    copy.chmod(0o600)
    restored = Settings(home=home, database_url=None, key_file=copy)
    assert restore(restored, folder).digest == digest and not (home / "restore.dump").exists()
    with Store.open(restored) as store, store.begin() as connection:
        rows_of = connection.execute(text("SELECT camera, captured_at, picture FROM crop")).all()
    found = {CropStore(restored).get(place_of_crop(row.camera, row.captured_at), bytes(row.picture)) for row in rows_of}
    assert len(found) == 20 and found <= set(pictures)


def test_the_key_file_of_a_data_directory_comes_along_and_one_elsewhere_does_not(
    settings: Settings, tmp_path: Path
) -> None:
    """A city must not be lost with its disk because the key lay in the data directory, where it lies by default."""
    backup(settings, tmp_path / "city")
    assert (tmp_path / "city" / "key-file").read_bytes() == (settings.home / "key-file").read_bytes()
    (settings.home / "key-file").rename(tmp_path / "key")
    backup(settings.model_copy(update={"key_file": tmp_path / "key"}), tmp_path / "city")
    assert not (tmp_path / "city" / "key-file").exists()


def test_a_renewed_key_file_reads_the_backup_before_and_wraps_the_next(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "city"
    first = backup(settings, folder).manifest
    key_service(settings).renew()
    second = backup(settings, folder).manifest
    assert second.key != first.key
    (earlier,) = settings.home.glob("key-file.*[0-9a-f]")
    earlier.unlink()
    assert backup(settings, folder).copied_files == 0


def test_a_backup_of_an_earlier_version_is_restored_verified_and_taken_over(
    fresh_town: Callable[..., Town], lines: list[str], tmp_path: Path, home: Path
) -> None:
    """What version 0.2 wrote: nothing is encrypted, pictures lie by their SHA-256."""
    town, folder = fresh_town(), tmp_path / "city"
    town.take_in(lines[:20])
    as_earlier(town)
    settings, manifest = town.store.settings, backup(town.store.settings, folder).manifest
    key, listed = backup_key(settings, manifest).key, []
    for file in read_files(folder, manifest):
        sealed, whole = object_path(folder, file.sha256), tmp_path / "whole"
        assert file.sealed and sealed.exists()
        bring_back(sealed, whole, file.sha256, key)
        copy_whole(whole, object_path(folder, file_hash(whole)), file_hash(whole))
        listed.append(file.model_copy(update={"sha256": file_hash(whole), "sealed": False}))
        sealed.unlink()
    dump, files = folder / manifest.database.name, folder / manifest.files.name
    bring_back(dump, dump, manifest.database.sha256, key)
    lines_of = [json.dumps(file.model_dump(include={"path", "sha256", "bytes"})) for file in listed]
    files.write_text("\n".join(lines_of) + "\n")
    (folder / "key-file").unlink()
    parts = {name: getattr(manifest, name).model_copy(update={"sha256": file_hash(path)})
             for name, path in (("database", dump), ("files", files))}  # fmt: skip
    write_manifest(folder, manifest.model_copy(update={"format": 1, "key": None, **parts}))
    assert verify(folder).faults == ()
    assert restore(Settings(home=home, database_url=None), folder).digest == manifest.decision_digest
    kept = [path for path in (home / "crops").rglob("*") if path.is_file()]
    assert {path.relative_to(home) for path in kept} == {
        path.relative_to(settings.home) for path in town.crops.root.rglob("*") if path.is_file()
    }
    kept[0].unlink()  # the only copy left is that of the backup
    with Store.open(Settings(home=home, database_url=None)):
        after = backup(Settings(home=home, database_url=None), folder).manifest
    assert (after.missing_pictures, after.count) == (0, manifest.count)
    assert all(file.sealed for file in read_files(folder, after)) and not verify(folder).faults


def as_earlier(town: Town) -> None:
    """Has the pictures of a town lie as version 0.2 stored them."""
    with town.store.begin() as connection:
        for row in connection.execute(text("SELECT camera, captured_at, picture FROM crop")).all():
            place, picture = place_of_crop(row.camera, row.captured_at), bytes(row.picture)
            data, path = town.crops.get(place, picture), town.crops.earlier_path(place, picture)
            town.crops.remove([(place, picture)])
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    shutil.rmtree(town.store.settings.home / "keys")
    (town.store.settings.home / "key-file").unlink()


# ---- verify


def damage_object(folder: Path) -> None:
    file = next(read_files(folder, read_manifest(folder)))
    object_path(folder, file.sha256).write_bytes(b"other")


def lose_object(folder: Path) -> None:
    file = next(read_files(folder, read_manifest(folder)))
    object_path(folder, file.sha256).unlink()


def truncate_dump(folder: Path) -> None:
    path = folder / read_manifest(folder).database.name
    path.write_bytes(path.read_bytes()[:-100])


def lose_dump(folder: Path) -> None:
    (folder / read_manifest(folder).database.name).unlink()


def lose_list(folder: Path) -> None:
    (folder / read_manifest(folder).files.name).unlink()


def damage_list(folder: Path) -> None:
    path = folder / read_manifest(folder).files.name
    path.write_bytes(b"\xff" + path.read_bytes())


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (damage_object, r"^keys/\S+ is damaged$"),
        (lose_object, r"^keys/\S+ is missing$"),
        (truncate_dump, r"^database-\S+ is damaged$"),
        (lose_dump, r"^database-\S+ cannot be read: No such file"),
        (lose_list, r"^files-\S+ cannot be read: No such file"),
        (damage_list, r"^files-\S+ is damaged$"),
    ],
)
def test_a_damaged_backup_is_found_and_not_restored(
    copied: Path, home: Path, damage: Callable[[Path], None], fault: str
) -> None:
    assert verify(copied).faults == ()
    damage(copied)
    (found,) = verify(copied).faults
    assert re.search(fault, found)
    with pytest.raises(InputError, match=r"is missing or damaged; `urban-reid db verify"):
        restore(Settings(home=home, database_url=None), copied)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is damaged, or was written by a newer program"),
        ('{"format": 3}', "newer program"),
        (None, "holds no backup"),
    ],
)
def test_a_manifest_that_is_none(copied: Path, home: Path, content: str | None, said: str) -> None:
    (copied / "manifest.json").unlink()
    if content is not None:
        (copied / "manifest.json").write_text(content)
    for call in (lambda: verify(copied), lambda: restore(Settings(home=home, database_url=None), copied)):
        with pytest.raises(InputError, match=said):
            call()
    assert not list(home.iterdir())


@pytest.mark.parametrize("path", ["../x", "crops/../../x", "/etc/passwd", "postgres.json", "crops", "crops/a\0b"])
def test_a_backup_writes_nothing_outside_the_folders_it_holds(copied: Path, home: Path, path: str) -> None:
    before = read_manifest(copied)
    listed = copied / before.files.name
    listed.write_text(json.dumps({"path": path, "sha256": "0" * 64, "bytes": 0}) + "\n")
    files = before.files.model_copy(update={"sha256": file_hash(listed)})
    write_manifest(copied, before.model_copy(update={"files": files}))
    with pytest.raises(InputError, match=r"line 1, is damaged: .*is not below keys or crops"):
        restore(Settings(home=home, database_url=None), copied)


# ---- what is refused


def test_places_for_a_backup_that_are_refused(
    resolved: Town, taken: Taken, fresh_town: Callable[..., Town], copied: Path, tmp_path: Path
) -> None:
    settings = resolved.store.settings
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "letter").touch()
    with pytest.raises(InputError, match="is not empty and holds no backup"):
        backup(settings, tmp_path / "documents")
    with pytest.raises(InputError, match="lies in the data directory"):
        backup(settings, settings.home / "crops" / "backup")
    with pytest.raises(InputError, match="holds the backup of another city"):
        backup(fresh_town().store.settings, copied)
    with (copied / "backup.lock").open("rb") as held:
        disk.lock(held)
        with pytest.raises(InputError, match="another program is writing a backup"):
            backup(settings, copied)
    with pytest.raises(StoreError, match="there is no database in"):
        backup(Settings(home=tmp_path / "nowhere", database_url=None), copied)
    assert not (tmp_path / "nowhere").exists()
    assert not verify(copied).faults


def test_data_are_not_overwritten(resolved: Town, taken: Taken, home: Path, used_home: Path) -> None:
    with pytest.raises(HomeError, match="keys is not empty; restore into an empty data directory"):
        restore(resolved.store.settings, taken[0])
    with pytest.raises(HomeError, match="has a database already"):
        restore(Settings(home=used_home, database_url=None), taken[0])
    with pytest.raises(StoreError, match=r"has \d+ tables already; restore into an empty database"):
        restore(resolved.store.settings.model_copy(update={"home": home}), taken[0])
    assert {path.name for path in home.iterdir()} <= {"restore.lock"}


def test_a_backup_of_a_newer_program_is_refused_before_anything_is_created(copied: Path, home: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text()) | {"revision": "9999"}
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=r"the backup in .* has revision 9999, which this program does not know"):
        restore(Settings(home=home, database_url=None), copied)
    assert not list(home.iterdir())


def test_without_room_nothing_is_restored(copied: Path, home: Path) -> None:
    write_manifest(copied, read_manifest(copied).model_copy(update={"file_bytes": 10**18}))
    with pytest.raises(HomeError, match=r"to be restored: that needs about [\d.]+ \wB, and the disk of .*; free some"):
        restore(Settings(home=home, database_url=None), copied)
    assert [path.name for path in home.iterdir()] == ["restore.lock"]


# ---- PostgreSQL's own programs


def test_pg_dump_and_pg_restore_work_with_the_owners_address(
    resolved: Town, server: embedded.EmbeddedServer, target: Settings, tmp_path: Path
) -> None:
    """Without anything of this program: a dump as an administrator makes and restores it, in one transaction."""
    file = tmp_path / "plain.dump"
    address = server.url(str(supplied_url(resolved.store.settings).database), roles.OWNER)
    pg("pg_dump", "--format=custom", f"--file={file}", f"--dbname={address}")
    where = supplied_url(target)
    home = Path(str(where.query["host"])).parent
    superuser = where.set(drivername="postgresql", username="postgres", password=read_password(home, "postgres"))
    address = superuser.render_as_string(hide_password=False)
    pg("pg_restore", "--single-transaction", f"--dbname={address}", str(file))
    with Store.open(target) as store:
        assert status(store) == status(resolved.store)
