"""Each role's password in a file of its own, and who reads which."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.store import Store, embedded, roles, stop, upgrade
from pipeline.store.embedded_process import server_pid
from pipeline.store.embedded_secrets import FILES, STATE, read_password
from schemas import disk
from schemas.errors import HomeError
from schemas.settings import Settings
from tests.helpers.homes import copied_home

#: The roles of version 0.2.
EARLIER = (roles.SUPERUSER, roles.OWNER, roles.APP)


@pytest.fixture(scope="module")
def passwords(used_home: Path) -> dict[str, str]:
    return {role: read_password(used_home, role) for role in FILES}


@pytest.fixture
def copied(used_home: Path, home: Path) -> Iterator[Path]:
    """A copy of a home whose server is stopped."""
    folder = copied_home(used_home, home / "copied")
    yield folder
    assert server_pid(folder / "postgres") is None


def opens(home: Path) -> bool:
    with Store.open(Settings(home=home, database_url=None)) as store, store.begin() as connection:
        return bool(connection.scalar(text("SELECT count(*) = 0 FROM urban_unit")))


def test_no_file_holds_two_passwords(used_home: Path, passwords: dict[str, str]) -> None:
    assert len(set(passwords.values())) == len(FILES) == 5
    for role, name in FILES.items():
        content = (used_home / name).read_text()
        assert [other for other, password in passwords.items() if password in content] == [role]
        assert (used_home / name).stat().st_mode & 0o777 == 0o600


def test_a_command_needs_the_programs_password_alone(copied: Path) -> None:
    for role in (roles.OWNER, roles.SUPERUSER):
        (copied / FILES[role]).unlink()
    settings = Settings(home=copied, database_url=None)
    assert opens(copied)
    with Store.open(settings), embedded.hold(copied) as held:
        held.url()
        with pytest.raises(HomeError, match=r"postgres\.superuser\.json, which holds .* of postgres, is missing"):
            held.connect(roles.SUPERUSER, "postgres")
    assert stop(settings) is False
    with pytest.raises(HomeError, match=r"postgres\.owner\.json, .* is missing; .*`urban-reid db reset-passwords`"):
        upgrade(settings)
    embedded.reset_passwords(copied)
    assert opens(copied) and upgrade(settings)[0] is not None


def earlier(home: Path, passwords: dict[str, str]) -> None:
    """Puts the passwords where version 0.2 had them, which knew three roles."""
    for name in FILES.values():
        (home / name).unlink()
    (home / STATE).write_text(json.dumps({"passwords": {role: passwords[role] for role in EARLIER}, "socket": None}))


@pytest.mark.parametrize("written", range(6))
def test_the_one_file_of_an_earlier_version_is_split_even_if_that_is_killed(
    copied: Path, passwords: dict[str, str], monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    earlier(copied, passwords)
    (copied / FILES[roles.OWNER]).write_text("")  # of a file system that lost it
    write, done = disk.write_whole, 0

    def killed(*arguments: object, **options: object) -> None:
        nonlocal done
        if done == written:
            raise KeyboardInterrupt
        done += 1
        write(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_whole", killed)
        if written < 5:
            with pytest.raises(KeyboardInterrupt):
                opens(copied)
        else:
            assert opens(copied)
    assert opens(copied)
    found = {role: read_password(copied, role) for role in FILES}
    assert {role: found[role] for role in EARLIER} == {role: passwords[role] for role in EARLIER}
    test_no_file_holds_two_passwords(copied, found)


@pytest.mark.parametrize("moved", range(5))
def test_a_creation_that_was_killed_while_it_moved_the_passwords(
    copied: Path, passwords: dict[str, str], moved: int
) -> None:
    for name in list(FILES.values())[moved:]:
        (copied / name).rename(copied / "postgres" / name)
    assert opens(copied)
    assert {role: read_password(copied, role) for role in FILES} == passwords
