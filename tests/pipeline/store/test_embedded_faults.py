"""Faults around the embedded server: unusual paths, damaged files, missing parts, failed starts."""

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text

from pipeline.store import Store, embedded, roles, url
from pipeline.store.embedded_home import exists
from pipeline.store.embedded_process import server_pid
from pipeline.store.embedded_programs import account_of
from schemas.errors import HomeError, StoreError
from schemas.settings import Settings
from tests.helpers.homes import copied_home


def settings_of(home: Path) -> Settings:
    return Settings(home=home, database_url=None)


def number_of_units(home: Path) -> int:
    with Store.open(settings_of(home)) as store, store.begin() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM urban_unit")) or 0)


# ---- paths


@pytest.mark.parametrize("name", ["a\"b'$HOME`id`$(id) \\%41%s&;#?*@=[ü] 人|<>~!^{}", "a,b"])
def test_a_home_with_unusual_characters(home: Path, name: str) -> None:
    odd = home / name
    assert number_of_units(odd) == 0
    with Store.open(settings_of(odd)):
        assert server_pid(odd / "postgres") is not None
        psycopg2.connect(url(settings_of(odd))).close()
    assert number_of_units(odd) == 0
    assert not embedded.running(odd)


@pytest.mark.parametrize("name", [b"a\nb", b"a\x1bb", b"a\xffb"])
def test_a_home_that_postgres_cannot_name_is_refused_before_anything_is_created(home: Path, name: bytes) -> None:
    odd = home / os.fsdecode(name)
    with pytest.raises(HomeError, match="holds control characters or is not UTF-8") as refusal:
        Store.open(settings_of(odd))
    assert str(refusal.value).isprintable() and "URBAN_REID_HOME" in str(refusal.value)
    assert not list(home.iterdir())


def test_a_home_that_is_a_loop_of_links_is_refused(home: Path) -> None:
    (home / "a").symlink_to(home / "b")
    (home / "b").symlink_to(home / "a")
    with pytest.raises(HomeError, match="cannot be used"):
        Store.open(settings_of(home / "a"))


# ---- damaged files


@pytest.fixture
def town(used_home: Path, home: Path) -> Iterator[Path]:
    """A home with one unit; its server is stopped, and stopped again after the test."""
    copied = copied_home(used_home, home / "town")
    with Store.open(settings_of(copied)) as store, store.begin() as connection:
        connection.execute(text("INSERT INTO urban_unit (code) VALUES ('d1')"))
    yield copied
    assert server_pid(copied / "postgres") is None


@pytest.mark.parametrize("content", ["", "\n", "garbage", "-1", "0", "9" * 30, "1\n2\n3", "\0\0\0\0"])
def test_a_damaged_pid_file(town: Path, content: str) -> None:
    (town / "postgres" / "postmaster.pid").write_text(content)
    assert number_of_units(town) == 1


def test_the_pid_file_of_a_dead_server_names_the_server_of_another_home(
    server: embedded.EmbeddedServer, town: Path
) -> None:
    other = psycopg2.connect(server.url())
    data = Path(other.info.host)
    other.close()
    shutil.copy(data / "postmaster.pid", town / "postgres")
    assert number_of_units(town) == 1
    assert server_pid(data) is not None


def test_the_socket_of_a_dead_server_names_a_process_that_lives(server: embedded.EmbeddedServer, town: Path) -> None:
    other = psycopg2.connect(server.url())
    pid = server_pid(Path(other.info.host))
    other.close()
    (town / "postgres" / ".s.PGSQL.5432.lock").write_text(f"{pid}\n{town / 'postgres'}\n0\n5432\n.\n")
    assert number_of_units(town) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_server_of_another_user_is_not_waited_for(server: embedded.EmbeddedServer, tmp_path: Path) -> None:
    """Whose folder that user's processes may not see."""
    other = psycopg2.connect(server.url())
    shutil.copy(Path(other.info.host) / "postmaster.pid", tmp_path)
    other.close()
    nobody = pwd.getpwnam("nobody").pw_uid
    for path in (tmp_path, tmp_path / "postmaster.pid"):
        os.chown(path, nobody, -1)
    parents = [path for path in tmp_path.parents if path.stat().st_mode & 0o001 == 0]
    for path in parents:
        path.chmod(0o711)
    os.seteuid(nobody)
    try:
        assert server_pid(tmp_path) is None
    finally:
        os.seteuid(0)
        for path in parents:
            path.chmod(0o700)


@pytest.mark.parametrize(
    "content",
    ["", "garbage", "[]", "{}", '{"password": 1, "socket": null}', '{"passwords": {}, "socket": null}', None],
)
def test_lost_passwords_are_one_line_and_can_be_reset(town: Path, content: str | None) -> None:
    state = town / "postgres.json"
    state.unlink()
    if content is not None:
        state.write_text(content)
    for _ in range(2):
        with pytest.raises(HomeError, match=rf"^{state}.* is (damaged|missing); .*`urban-reid db reset-passwords`"):
            Store.open(settings_of(town))
    assert server_pid(town / "postgres") is None
    assert (state.read_text() if state.exists() else None) == content
    embedded.reset_passwords(town)
    assert number_of_units(town) == 1
    assert state.stat().st_mode & 0o777 == 0o600


def test_passwords_of_another_database_are_told_from_a_dead_server(used_home: Path, town: Path) -> None:
    (town / "postgres.json").write_text(json.dumps({"password": "wrong", "socket": None}))
    with pytest.raises(HomeError, match=r"is not of this database; .*reset-passwords"):
        Store.open(settings_of(town))
    assert server_pid(town / "postgres") is None
    embedded.reset_passwords(town)
    assert number_of_units(town) == 1


def test_passwords_are_not_reset_under_a_program_that_uses_the_database(town: Path) -> None:
    with Store.open(settings_of(town)) as store:
        with pytest.raises(StoreError, match="is in use"):
            embedded.reset_passwords(town)
        with store.begin() as connection:
            assert connection.scalar(text("SELECT count(*) FROM urban_unit")) == 1


def test_there_are_no_passwords_to_reset_without_a_database(home: Path) -> None:
    with pytest.raises(StoreError, match="there is no database in"):
        embedded.reset_passwords(home)


# ---- a part of the home is away


@pytest.mark.parametrize("kind", ["dangling link", "empty mount point", "missing"])
def test_a_database_that_is_away_is_not_replaced(town: Path, kind: str) -> None:
    data, away = town / "postgres", town.parent / "away"
    before = (town / "postgres.json").read_bytes()
    data.rename(away)
    match kind:
        case "dangling link":
            data.symlink_to(town.parent / "not mounted yet")
        case "empty mount point":
            data.mkdir()
    for attempt in (lambda: Store.open(settings_of(town)), lambda: embedded.running(town), lambda: embedded.stop(town)):
        with pytest.raises(HomeError, match=r"is missing: there is .*postgres\.json.*, but no database") as refusal:
            attempt()
        assert "\n" not in str(refusal.value)
    assert (town / "postgres.json").read_bytes() == before
    assert not (town / "postgres.new").exists()
    if data.is_symlink():
        data.unlink()
    if data.exists():
        data.rmdir()
    away.rename(data)
    assert number_of_units(town) == 1


def test_a_folder_of_something_else_is_not_replaced(home: Path) -> None:
    (home / "postgres").mkdir()
    (home / "postgres" / "letter.txt").write_text("not a database")
    with pytest.raises(HomeError, match="is missing: there is postgres, but no database"):
        Store.open(settings_of(home))
    assert [path.name for path in (home / "postgres").iterdir()] == ["letter.txt"]
    assert not (home / "postgres.new").exists() and not (home / "postgres.json").exists()


def test_a_creation_that_was_killed_before_the_database_got_its_name(home: Path) -> None:
    (home / "postgres.new").mkdir()
    (home / "postgres.new" / "PG_VERSION").write_text("18")
    (home / "postgres").mkdir()  # made ready by an administrator
    assert not exists(home)
    assert number_of_units(home) == 0


# ---- failed starts


def test_a_server_that_does_not_start_says_why_and_is_ended(town: Path) -> None:
    with (town / "postgres" / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = 'much'\n")
    with pytest.raises(StoreError, match=r"does not start: .*FATAL.*contains errors; see .*server\.log"):
        Store.open(settings_of(town))
    assert server_pid(town / "postgres") is None


def test_a_database_that_cannot_be_migrated_is_released(town: Path) -> None:
    with embedded.hold(town) as held:
        owner = held.connect(roles.OWNER)
        with owner, owner.cursor() as cursor:
            cursor.execute("UPDATE alembic_version SET version_num = '9999'")
            cursor.execute("DROP FUNCTION oldest_program()")
        owner.close()
    with pytest.raises(StoreError, match="9999"):
        Store.open(settings_of(town))
    assert server_pid(town / "postgres") is None


def test_a_server_that_died_while_its_parent_does_not_reap_it(town: Path) -> None:
    """In a container process 1 may never reap: the dead server's number stays taken."""
    data, program = town / "postgres", town.parent / "postgres"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"], cwd=data, user=account_of(town).uid) as zombie:
        zombie.kill()
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
        (data / "postmaster.pid").write_text(f"{zombie.pid}\n{data}\n1\n5432\n{data}\n\n0 0\nready\n")
        assert number_of_units(town) == 1
