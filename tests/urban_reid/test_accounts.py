"""Accounts and sessions from the command line."""

import io
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from pipeline.city.units import read_city_file, store_city
from pipeline.governance.audit import read_audit
from pipeline.store import Store, embedded
from pipeline.store.session_file import FILE
from schemas.errors import InputError, NotAllowed
from schemas.roles import Role
from schemas.settings import Settings
from schemas.settings import settings as read_settings
from tests.helpers.command_line import Run, error_object_of, error_of
from tests.helpers.homes import become_live, stay_open, superuser_of
from tests.helpers.people import PASSWORD, PEOPLE, add_people, become
from tests.helpers.town import Town
from urban_reid import passwords
from urban_reid.permissions import DOORS, Door, check

Type = Callable[[str], None]


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Type:
    """Puts text on stdin for the next command."""
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


@pytest.fixture
def live(server: embedded.EmbeddedServer, settings: Settings, store: Store, city_files: Path) -> Store:
    """A home with people of real cameras, and no account."""
    store_city(store, read_city_file(city_files / "city.yaml"))
    become_live(superuser_of(server, settings))
    return store


def found(run: Run, *arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_way_from_no_account_to_a_session_and_out(run_here: Run, settings: Settings, type_in: Type) -> None:
    assert found(run_here, "whoami") == {"account": None}
    type_in(f"{PASSWORD}\n")
    assert "there is none" in error_of(run_here("accounts", "add", "anna", "--role", "operator"), 1)
    type_in(f"{PASSWORD}\n")
    assert run_here("accounts", "add", "zoe", "--role", "administrator").stdout == (
        "zoe may sign in as administrator: `urban-reid login zoe`\n"
    )
    assert "sign in with `urban-reid login`" in error_of(run_here("accounts", "list"), 1)
    type_in("wrong horse battery\n")
    assert error_object_of(run_here("login", "zoe", "--json"), 1)["error"] == "NotAllowed"
    type_in(f"{PASSWORD}\n")
    assert run_here("login", "zoe").stdout.startswith("zoe is signed in as administrator at all units, until ")
    assert stat.S_IMODE((settings.home / FILE).stat().st_mode) == 0o600
    type_in(f"{PASSWORD}\n")
    added = found(run_here, "accounts", "add", "anna", "--role", "operator", "--to", "2100-01-01T00:00:00Z")
    assert added == {"account": "anna", "role": "operator", "units": [""], "waiting": []}
    assert run_here("accounts", "grant", "anna", "--role", "auditor").returncode == 0
    assert run_here("accounts", "revoke", "anna", "--role", "operator").stdout == "anna is operator no more\n"
    assert run_here("accounts", "unlock", "anna").returncode == 0
    (anna, zoe) = found(run_here, "accounts", "list")["accounts"]
    assert [role["role"] for role in anna["roles"]] == ["auditor"] and zoe["account"] == "zoe"
    listed = run_here("accounts", "list").stdout
    assert PASSWORD not in listed and "argon2" not in listed and "anna" in listed
    assert run_here("accounts", "disable", "anna").stdout == "anna is disabled\n"
    assert found(run_here, "whoami")["role"] == "administrator"
    type_in(f"{PASSWORD}\nbattery staple horse\n")
    assert run_here("accounts", "password").stdout == "zoe has a new password; its sessions are ended\n"
    assert run_here("logout").stdout == "nobody was signed in\n"
    assert not (settings.home / FILE).exists()


def test_what_waits_for_another_administrator_is_shown_and_agreed_to(
    run_here: Run, live: Store, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_people(live)
    type_in(f"{PASSWORD}\n")
    assert run_here("accounts", "recover", "zoe").stdout == "zoe has a new password; its sessions are ended\n"
    monkeypatch.setenv("URBAN_REID_TOKEN", become(live, "zoe"))
    read_settings.cache_clear()
    type_in(f"{PASSWORD}\n")
    assert run_here("accounts", "add", "eve", "--role", "administrator").returncode == 0
    said = run_here("accounts", "grant", "anna", "--role", "auditor").stdout
    assert said == "waits for another administrator: `urban-reid accounts agree 1`\n"
    (change,) = found(run_here, "accounts", "pending")["pending"]
    assert (change["id"], change["account"], change["role"], change["asked_by"]) == (1, "anna", "auditor", "zoe")
    assert "anna" in run_here("accounts", "pending").stdout
    assert "another administrator agrees" in error_of(run_here("accounts", "agree", "1"), 1)
    assert run_here("accounts", "decline", "1").stdout == "anna stays as it was: change 1 is declined\n"
    assert "nothing waits" in run_here("accounts", "pending").stderr


def test_a_sign_in_ends_the_session_whose_token_it_replaces(run_here: Run, store: Store, type_in: Type) -> None:
    add_people(store)
    for name in ("anna", "cleo"):
        type_in(f"{PASSWORD}\n")
        assert run_here("login", name).returncode == 0
    with store.signing_in() as connection:
        held = connection.execute(text("SELECT account_id FROM session WHERE ended_at IS NULL")).scalars().all()
    assert len(held) == 1 and found(run_here, "whoami")["account"] == "cleo"


def test_a_token_is_printed_once_and_works_from_the_environment(
    run_here: Run, store: Store, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_people(store)
    type_in(f"{PASSWORD}\n")
    token = run_here("tokens", "add", "nightly", "--account", "cleo").stdout.strip()
    assert found(run_here, "whoami") == {"account": None}
    monkeypatch.setenv("URBAN_REID_TOKEN", token)
    read_settings.cache_clear()
    assert found(run_here, "whoami")["token"] == "nightly"
    (one,) = found(run_here, "tokens", "list")["tokens"]
    assert token not in json.dumps(one) and one["token"] == "nightly"
    assert run_here("tokens", "revoke", "nightly").stdout == "nightly is revoked\n"
    assert found(run_here, "whoami") == {"account": None}


def test_the_first_digits_of_an_authorization_are_not_enough(run_here: Run) -> None:
    for command in (("login", "anna"), ("tokens", "add", "nightly")):
        said = error_of(run_here(*command, "--authorization", "0648b8fc"), 2)
        assert "write the whole id of the authorization, 36 characters" in said


def test_a_token_that_holds_no_session_is_named(
    run_here: Run, store: Store, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_people(store)
    monkeypatch.setenv("URBAN_REID_TOKEN", "nonsense")
    read_settings.cache_clear()
    assert "the token in URBAN_REID_TOKEN holds no session" in run_here("whoami").stdout
    type_in(f"{PASSWORD}\n")
    done = run_here("login", "anna")
    assert done.returncode == 0 and "commands work under the token in URBAN_REID_TOKEN" in done.stderr


def test_a_folder_in_the_place_of_the_session_is_one_line(
    run_here: Run, settings: Settings, store: Store, type_in: Type
) -> None:
    add_people(store)
    (settings.home / FILE).mkdir()
    said = f"{settings.home / FILE} is damaged; remove it, and sign in again with `urban-reid login`"
    assert error_of(run_here("whoami"), 1) == said
    type_in(f"{PASSWORD}\n")
    assert error_of(run_here("login", "anna"), 1) == said


@pytest.mark.parametrize("text", ["", "one\ntwo\n", "one\ntwo\nthree"])
def test_stdin_holds_one_password_and_nothing_else(run_here: Run, type_in: Type, text: str) -> None:
    type_in(text)
    assert error_of(run_here("login", "zoe"), 2) == "stdin: must hold a password on one line, and nothing else"


def test_at_a_terminal_a_new_password_is_typed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["one", "two"])
    monkeypatch.setattr(passwords, "getpass", lambda _: next(typed))
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
    with pytest.raises(InputError, match="the two passwords differ"):
        passwords.ask_new()


def test_an_end_of_the_input_at_a_terminal_is_one_line(run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(_: str) -> str:
        raise EOFError

    monkeypatch.setattr(passwords, "getpass", ended)
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
    done = run_here("login", "zoe")
    assert (done.returncode, done.stderr.split("error: ")[1]) == (
        2,
        "the input ended before all was answered; nothing was changed\n",
    )


# ---- who may call which command in a live home

#: Arguments with which a command that its door lets through fails, or changes nothing.
ARGUMENTS: dict[str, list[str]] = {
    "ingest undo": ["9", "--reason", "x"],
    "city load": ["none.yaml"],
    "cameras add": ["d1/s1/b1/c1", "rtsp://127.0.0.1/x"],
    "cameras set": ["d1/s1/b1/c1"],
    "cameras pause": ["d1/s1/b1/c1", "--reason", "x"],
    "cameras resume": ["d1/s1/b1/c1", "--reason", "x"],
    "cameras remove": ["d1/s1/b1/c1", "--reason", "x"],
    "cameras import": ["none.csv"],
    "cameras secret set": ["gate", "--host", "10.0.0.5"],
    "cameras secret remove": ["gate"],
    "models get": ["none"],
    "models register": ["none", "none.onnx"],
    "models rename": ["none", "other"],
    "models remove": ["none"],
    "models use": ["none"],
    "models calibrate": ["none"],
    "models transit": ["none", "--reason", "x"],
    "models normalize": ["none", "--on-city", "d1", "--name", "other"],
    "models compare": ["none", "--dataset", "rendered:1"],
    "models promote": ["none", "--reason", "x"],
    "models rollback": ["--reason", "x"],
    "keys renew": ["--reason", "x"],
    "webhook": [],
    "audit show": [],
    "audit report": [],
    "audit export": ["folder", "--reason", "x"],
    "retention set": ["--hours", "5", "--reason", "x"],
    "erase": ["--identity", "3f2a81c0", "--reason", "x"],
    "accounts add": ["eve", "--role", "operator"],
    "accounts list": [],
    "accounts grant": ["anna", "--role", "auditor"],
    "accounts revoke": ["anna", "--role", "operator"],
    "accounts disable": ["anna"],
    "accounts unlock": ["anna"],
    "accounts password": ["anna"],
    "accounts pending": [],
    "accounts agree": ["1"],
    "accounts decline": ["1"],
}
MAY = {Door.ENGINEER: (Role.ENGINEER,), Door.AUDITOR: (Role.AUDITOR,), Door.ADMINISTRATOR: (Role.ADMINISTRATOR,)}


def test_each_command_has_its_door() -> None:
    from tests.urban_reid.test_cli import commands

    assert {" ".join(command) for command in commands()} == set(DOORS)
    assert set(ARGUMENTS) == {command for command, door in DOORS.items() if door in MAY}


@pytest.fixture
def sign_in_as(live: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[Role | None], None]:
    """Makes the commands that follow those of the person with this role, or of nobody."""
    add_people(live)
    tokens = {role: become(live, name) for role, name in PEOPLE.items()}

    def become_one(role: Role | None) -> None:
        monkeypatch.setenv("URBAN_REID_TOKEN", tokens[role] if role else "")
        read_settings.cache_clear()

    return become_one


def test_each_command_is_closed_to_those_that_it_is_not_for(
    run_here: Run, sign_in_as: Callable[[Role | None], None], type_in: Type
) -> None:
    """Each command with one of them, in turn; the next one takes all of them."""
    for number, command in enumerate(ARGUMENTS):
        strangers = strangers_to(command)
        refuses(run_here, sign_in_as, type_in, command, strangers[number % len(strangers)])


@pytest.mark.slow
def test_each_command_is_closed_to_everybody_whom_it_is_not_for(
    run_here: Run, sign_in_as: Callable[[Role | None], None], type_in: Type
) -> None:
    for command in ARGUMENTS:
        for role in strangers_to(command):
            refuses(run_here, sign_in_as, type_in, command, role)


def strangers_to(command: str) -> list[Role]:
    return [role for role in Role if role not in MAY[DOORS[command]]]


def refuses(run_here: Run, sign_in_as: Callable[[Role | None], None], type_in: Type, command: str, role: Role) -> None:
    sign_in_as(role)
    type_in(f"{PASSWORD}\n")
    refused = error_object_of(run_here(*command.split(), *ARGUMENTS[command], "--json"), 1)
    assert refused["error"] == "NotAllowed", (command, role, refused)
    alone = "; with nobody signed in it works alone: `urban-reid logout` first"
    said = f"is signed in as {role}{alone if DOORS[command] is Door.ENGINEER else ''}"
    assert refused["message"].endswith(said), (command, role, refused)


@pytest.mark.parametrize("role", [None, Role.ENGINEER, Role.OPERATOR])
def test_a_cameras_picture_needs_an_authorization(
    run_here: Run, sign_in_as: Callable[[Role | None], None], role: Role | None, live: Store, tmp_path: Path
) -> None:
    with live.begin() as connection:
        camera = connection.execute(text("SELECT min(code) FROM urban_unit WHERE level = 'camera'")).scalar_one()
    assert run_here("cameras", "add", camera, "rtsp://127.0.0.1:9/x").returncode == 0
    sign_in_as(role)
    refused = error_of(run_here("cameras", "test", camera, "--picture", "c1.png"), 1)
    assert refused.startswith("a camera's picture needs ") and not (tmp_path / "c1.png").exists()


PICTURE = "me.jpg"
#: Arguments of commands that show persons, in a home with a model in use.
SHOWING: dict[str, list[str]] = {
    "search": ["--probe", "0" * 64, "--unit", "d1", "--reason", "x"],
    "report": ["--unit", "d1", "--out", "pages"],
    "pictures show": ["0" * 64, "--out", "face.jpg", "--reason", "x"],
    "subject": ["--probe", PICTURE, "--unit", "d1", "--reason", "x"],
    "identities confirm": ["3f2a81c0", "--reason", "x"],
    "leads list": [],
    "leads show": ["3f2a81c0", "--out", "lead"],
    "leads answer": ["3f2a81c0", "--same", "--reason", "x"],
    "evidence export": ["--match", "3f2a81c0", "--out", "evidence", "--reason", "x"],
    "review list": ["--unit", "d1"],
    "review answer": ["0" * 64, "1" * 64, "same", "--reason", "x"],
    "review merge": ["3f2a81c0", "4f2a81c0", "--reason", "x"],
    "review split": ["3f2a81c0", "0" * 64, "--reason", "x"],
    "review undo": ["3f2a81c0", "--reason", "x"],
    "review changed": ["3f2a81c0"],
    "review follow": ["3f2a81c0", "--reason", "x"],
    "review agreement": ["--unit", "d1"],
}
#: It works alone, and writes down who was where: with --export it asks.
EXPORT = ("resolve", ["--unit", "d1", "--export", "assignments.jsonl"])


@pytest.mark.slow
def test_whoever_is_not_to_look_is_shown_nobody_in_any_role(
    run_here: Run, town: Town, sign_in_as: Callable[[Role | None], None], tmp_path: Path
) -> None:
    (tmp_path / PICTURE).write_bytes(next(town.files.rglob("*.jpg")).read_bytes())
    for command, arguments in (*SHOWING.items(), EXPORT):
        for role in (None, *Role):
            sign_in_as(role)
            refused = error_object_of(run_here(*command.split(), *arguments, "--json"), 1)
            assert refused["error"] == "NotAllowed", (command, role, refused)
    assert [path.name for path in tmp_path.iterdir()] == [PICTURE]


def test_whoever_has_no_authorization_is_shown_nobody(
    run_here: Run, town: Town, sign_in_as: Callable[[Role | None], None], tmp_path: Path
) -> None:
    (tmp_path / PICTURE).write_bytes(next(town.files.rglob("*.jpg")).read_bytes())
    assert set(SHOWING) == {command for command, door in DOORS.items() if door is Door.PERSONS}
    others = (Role.ENGINEER, Role.AUDITOR, Role.ADMINISTRATOR, Role.SUPERVISOR)
    missed = []
    for number, (command, arguments) in enumerate((*SHOWING.items(), EXPORT)):
        for role in (None, Role.OPERATOR, others[number % len(others)]):
            sign_in_as(role)
            done = run_here(*command.split(), *arguments, "--json")
            if done.returncode != 1 or json.loads(done.stderr.splitlines()[-1])["error"] != "NotAllowed":
                missed.append((command, role, done.returncode, done.stderr))
    assert missed == []
    assert [path.name for path in tmp_path.iterdir()] == [PICTURE]


def test_what_somebody_does_alone_is_done_under_the_own_account(
    run_here: Run, live: Store, sign_in_as: Callable[[Role | None], None]
) -> None:
    with live.begin() as connection:
        camera = connection.execute(text("SELECT min(code) FROM urban_unit WHERE level = 'camera'")).scalar_one()
    add = ("cameras", "add", camera, "rtsp://127.0.0.1:9/x")
    remove = ("cameras", "remove", camera, "--reason", "x", "--operator")
    sign_in_as(Role.ENGINEER)
    assert run_here(*add).returncode == 0
    assert run_here(*remove, "ben").returncode == 0
    sign_in_as(None)
    assert run_here(*add).returncode == 0
    assert run_here(*remove, "ben").returncode == 0
    become(live, "cleo")
    with live.signed_in() as connection:
        actors = [(row.action, row.actor) for row in read_audit(connection) if row.action.startswith("camera.")]
    assert actors == [
        ("camera.add", "dan"),
        ("camera.remove", "dan"),
        ("camera.add", "tester"),
        ("camera.remove", "ben (not signed in)"),
    ]


def test_each_door_with_everybody(
    run_here: Run,
    live: Store,
    server: embedded.EmbeddedServer,
    sign_in_as: Callable[[Role | None], None],
) -> None:
    doors = {"models use": Door.ENGINEER, "audit show": Door.AUDITOR}
    for command, door in doors.items():
        for role in (*Role, None):
            sign_in_as(role)
            if role in MAY[door] or (role is None and door is Door.ENGINEER):
                check(command)
            else:
                with pytest.raises(NotAllowed, match=rf"^`urban-reid {command}` needs the role {door}"):
                    check(command)
    become(live, "cleo")
    with live.signed_in() as connection:
        refused = [(row.actor, row.details["what"]) for row in read_audit(connection, action="access.refuse")]
    names = [PEOPLE[role] if role else "tester (not signed in)" for role in (*Role, None)]
    assert refused == [
        *((name, "`urban-reid models use`") for name in names[:-1] if name != "dan"),
        *((name, "`urban-reid audit show`") for name in names if name != "cleo"),
    ]
    stay_open(superuser_of(server, live.settings))
    for role in (*Role, None):
        sign_in_as(role)
        for command in doors:
            check(command)
