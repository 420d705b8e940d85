"""The dump that precedes a migration, and a migration that is interrupted."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from pipeline.backup import restore_dump
from pipeline.doctor.folder import check_folder
from pipeline.store import Store, embedded, kept_dumps, roles, schema, upgrade, user_supplied
from pipeline.store.dump import of_home, write_dump
from pipeline.store.user_supplied import supplied_url
from schemas.errors import HomeError, StoreError
from schemas.settings import Settings
from tests.helpers.catalog import catalog, rows
from tests.helpers.command_line import environment_of, program
from tests.helpers.homes import copied_home
from tests.helpers.rows import fill

#: Its functions do not qualify what they name.
_EARLIER = "0007"
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE alembic%'"


@pytest.fixture
def earlier(used_home: Path, home: Path) -> Iterator[tuple[Settings, embedded.EmbeddedServer]]:
    """A home with rows, of an earlier revision, held."""
    settings = Settings(home=copied_home(used_home, home / "city"), database_url=None)
    with Store.open(settings) as store, embedded.hold(settings.home) as server:
        fill(store)
        back(server)
        yield settings, server


def back(server: embedded.EmbeddedServer) -> None:
    schema.migrate(lambda: server.connect(roles.OWNER), command.downgrade, _EARLIER)


def test_a_dump_of_a_newer_program_is_refused_before_anything_is_created(
    used_home: Path, home: Path, tmp_path: Path
) -> None:
    of = copied_home(used_home, home / "city")
    with embedded.hold(of) as server:
        with schema.session(lambda: server.connect(roles.OWNER)) as connection, connection.begin():
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        write_dump(of_home(of), tmp_path / "newer.dump")
        with schema.session(lambda: server.connect(roles.OWNER)) as connection, connection.begin():
            connection.execute(text("DROP TABLE alembic_version"))
        write_dump(of_home(of), tmp_path / "other.dump")
    for name, why in (("newer", "has revision 9999, which this program does not know"), ("other", "no dump of a city")):
        with pytest.raises(StoreError, match=why):
            restore_dump(Settings(home=home / "new", database_url=None), tmp_path / f"{name}.dump")
    assert not (home / "new").exists()


def test_old_dumps_go_with_the_next_command(used_home: Path, home: Path) -> None:
    settings = Settings(home=copied_home(used_home, home / "city"), database_url=None)
    folder = settings.home / "backups"
    folder.mkdir()
    for name, days in (("0007-old.dump", 31), ("0008-young.dump", 29)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - days * 24 * 3600,) * 2)
    said = next(check.found for check in check_folder(settings) if check.name == "dumps")
    assert said.startswith("2 of before upgrades, the oldest of 20") and said.endswith("each is removed after 30 days")
    Store.open(settings).close()
    assert [path.name for path in folder.iterdir()] == ["0008-young.dump"]


def test_a_dump_precedes_every_migration_and_the_newest_few_are_kept(
    earlier: tuple[Settings, embedded.EmbeddedServer], home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, server = earlier
    folder = settings.home / "backups"
    before = rows(lambda: server.connect(roles.OWNER))
    names = []
    for _ in range(5):
        assert upgrade(settings) == (_EARLIER, schema.head())
        names.append(max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns).name)
        back(server)
    assert all(re.fullmatch(rf"{_EARLIER}-\d{{8}}T\d{{12}}Z\.dump", name) for name in names)
    assert {path.name for path in folder.iterdir()} == set(names[-3:]) and folder.stat().st_mode & 0o777 == 0o700
    kept = folder / names[-1]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert f"is dumped before its migration from revision {_EARLIER} to {schema.head()}, into {kept}" in caplog.text
    restored = Settings(home=home / "restored", database_url=None)
    with pytest.raises(HomeError, match="has a database already"):
        restore_dump(settings, kept)
    assert restore_dump(restored, kept) == (None, None)
    assert schema.revision(restored)[0] == _EARLIER
    with embedded.hold(restored.home) as other:
        after = rows(lambda: other.connect(roles.OWNER))
    (note,) = after.pop("audit")
    assert "backup.restore" in note and before.pop("audit") == []
    assert after == before
    Store.open(restored).close()


def test_without_room_for_the_dump_nothing_is_migrated(
    earlier: tuple[Settings, embedded.EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = earlier
    monkeypatch.setattr(kept_dumps, "_ROOM", 1e9)
    with pytest.raises(HomeError, match=r"needs about [\d.]+ TB, and the disk of .* has [\d.]+ \wB free; free some"):
        Store.open(settings)
    assert schema.revision(settings)[0] == _EARLIER and not list(settings.home.glob("backups/*"))


def test_a_migration_that_is_killed_leaves_the_database_as_it_was(
    earlier: tuple[Settings, embedded.EmbeddedServer],
) -> None:
    settings, server = earlier

    def state() -> tuple[set[str], dict[str, list[str]]]:
        return catalog(lambda: server.connect(roles.OWNER)), rows(lambda: server.connect(roles.OWNER))

    def waits() -> bool:
        with schema.session(lambda: server.connect(roles.OWNER)) as connection:
            return bool(connection.scalar(text(_WAITING)))

    before = state()
    with (
        schema.session(lambda: server.connect(roles.OWNER)) as holding,
        holding.begin(),
        subprocess.Popen(program("db", "upgrade"), env=environment_of(settings), stderr=subprocess.PIPE) as run,
    ):
        holding.execute(text("SELECT * FROM alembic_version FOR UPDATE"))  # each migration ends with an update of it
        try:
            until = time.monotonic() + 120
            while not waits() and time.monotonic() < until:
                time.sleep(0.1)
            assert waits()
        finally:
            run.kill()
        assert b"is dumped before its migration" in run.communicate()[1]
    assert state() == before
    assert upgrade(settings) == (_EARLIER, schema.head())


def test_the_migration_of_a_user_supplied_server_says_that_no_dump_precedes_it(
    granted: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade(granted)
    assert not caplog.messages
    schema.migrate(lambda: user_supplied.connect(supplied_url(granted)), command.downgrade, _EARLIER)
    assert upgrade(granted) == (_EARLIER, schema.head())
    (said,) = caplog.messages
    assert f"goes from revision {_EARLIER} to {schema.head()}, in one transaction; no dump precedes it" in said
