"""Which of the data directory's files other users can open, and closing them."""

import os
import pwd
import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.doctor.permissions import close_to_others, open_to_others, warning
from pipeline.store import Store
from pipeline.store.embedded_programs import COPIED, account_of
from schemas.settings import Settings

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")


def modes(home: Path) -> dict[str, int]:
    return {str(path.relative_to(home)): stat.S_IMODE(path.stat().st_mode) for path in (home, *home.rglob("*"))}


@pytest.fixture
def city(home: Path, tmp_path: Path) -> Path:
    """A home as version 0.2 left it under a umask of 022."""
    home.chmod(0o711)
    for name in ("crops/ab", "models/demo", "reports"):
        (home / name).mkdir(parents=True, mode=0o755)
    for name in ("crops/ab/cdef", "models/demo/card.json", "errors.log"):
        (home / name).write_text("")
        (home / name).chmod(0o644)
    tmp_path.chmod(0o755)
    (home / "reports" / "d1").symlink_to(tmp_path)  # a report elsewhere, which may be meant for others
    return home


def test_a_home_that_others_can_open_is_told_and_closed(city: Path, tmp_path: Path) -> None:
    assert [path.name for path in open_to_others(city)] == ["crops", "errors.log", "models", "reports"]
    line = warning(city)
    assert line is not None and "crops, errors.log, models ..." in line and "urban-reid doctor --fix" in line
    assert close_to_others(city) == 9
    assert set(modes(city).values()) == {0o700, 0o600, 0o755}
    assert [name for name, mode in modes(city).items() if mode == 0o755] == ["reports/d1"]
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert open_to_others(city) == [] and warning(city) is None and close_to_others(city) == 0


def test_a_closed_home_is_closed_whatever_lies_in_it(city: Path) -> None:
    city.chmod(0o700)
    assert open_to_others(city) == []
    city.chmod(0o740)
    assert city in open_to_others(city)


def test_crops_on_another_disk_are_closed_too(home: Path, tmp_path: Path) -> None:
    home.chmod(0o711)
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "picture").write_text("")
    disk.chmod(0o755)
    (home / "crops").symlink_to(disk)
    assert open_to_others(home) == [home / "crops"]
    close_to_others(home)
    assert disk.stat().st_mode & 0o777 == 0o700
    assert open_to_others(home) == []


def test_no_home_is_closed(tmp_path: Path) -> None:
    assert warning(tmp_path / "nothing") is None


@as_root
def test_the_user_of_roots_database_keeps_its_way(home: Path) -> None:
    """And nobody else can hold a lock or list the home."""
    own = home / "own"
    settings = Settings(home=own, database_url=None)
    Store.open(settings).close()
    own.chmod(0o711)
    (own / COPIED).mkdir()
    (own / COPIED / "postgres").write_text("")
    (own / COPIED / "postgres").chmod(0o755)
    close_to_others(own)
    account = account_of(own)
    assert stat.S_IMODE(own.stat().st_mode) == 0o710 and own.stat().st_gid == account.gid
    assert stat.S_IMODE((own / COPIED / "postgres").stat().st_mode) == 0o750
    assert open_to_others(own) == []
    with Store.open(settings) as store, store.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM crop")) == 0
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        with pytest.raises(PermissionError):
            list(own.iterdir())
        with pytest.raises(PermissionError):
            (own / "postgres.lock").open("rb")
    finally:
        os.seteuid(0)
