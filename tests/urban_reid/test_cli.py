import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from rich.console import Console
from typer.core import TyperGroup
from typer.testing import CliRunner

from schemas.settings import Settings
from tests.helpers.command_line import Run, environment_of, error_object_of, error_of, program
from urban_reid.cli import PANELS, app
from urban_reid.commands import demo
from urban_reid.output import Table

RunJson = Callable[..., dict[str, Any]]


def commands() -> list[tuple[str, ...]]:
    def below(command: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        children = getattr(command, "commands", {})
        return [path] if not children else [p for name, child in children.items() for p in below(child, (*path, name))]

    return below(typer.main.get_command(app), ())


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    example = shown.output.split("Example: ")[1]
    assert example.startswith("urban-reid " + " ".join(command))
    assert "--json" in shown.output


def test_all_commands_are_there() -> None:
    assert {" ".join(command) for command in commands()} == {
        "demo",
        "doctor",
        *(f"db {name}" for name in ("upgrade", "status", "stop", "reset-passwords", "url")),
        *(f"db {name}" for name in ("backup", "verify", "restore")),
        *(f"cameras {name}" for name in ("add", "set", "list", "test", "pause", "resume", "remove", "import")),
        *(f"cameras secret {name}" for name in ("set", "list", "remove")),
        *(f"city {name}" for name in ("load", "show")),
        *(f"ingest {name}" for name in ("manifest", "dataset", "video", "list", "undo")),
        *(
            f"models {name}"
            for name in ("list", "register", "calibrate", "transit", "use", "compare", "promote", "rollback")
        ),
        *(f"models {name}" for name in ("catalog", "get", "convert", "export", "rename", "remove")),
        *(f"models {name}" for name in ("show", "normalize")),
        *(f"audit {name}" for name in ("verify", "show", "report", "checkpoint", "export")),
        *(f"accounts {name}" for name in ("add", "list", "grant", "revoke", "disable", "unlock", "password")),
        *(f"accounts {name}" for name in ("pending", "agree", "decline", "recover")),
        *(f"tokens {name}" for name in ("add", "list", "revoke")),
        *("login", "logout", "whoami"),
        *(f"cases {name}" for name in ("open", "ask", "pending", "approve", "refuse", "revoke", "lock")),
        *(f"cases {name}" for name in ("list", "show", "close", "hold")),
        *(f"leads {name}" for name in ("list", "show", "answer")),
        *(f"evidence {name}" for name in ("export", "verify")),
        *(f"purposes {name}" for name in ("list", "add", "retire", "assessment", "limits")),
        *(f"review {name}" for name in ("list", "answer", "merge", "split", "undo", "changed", "follow")),
        "review agreement",
        *(f"standing {name}" for name in ("start", "list", "show", "approve", "end")),
        *(f"retention {name}" for name in ("show", "set", "run")),
        *("erase", "subject"),
        "identities confirm",
        *(f"pictures {name}" for name in ("show", "encrypt")),
        *(f"keys {name}" for name in ("show", "renew")),
        "dataset check",
        "evaluate",
        "train",
        "reproduce",
        "resolve",
        "score",
        "simulate",
        "search",
        "search-several",
        "status",
        "report",
        "up",
        "console",
        "core",
        "worker",
        "webhook",
    }


@pytest.mark.parametrize(
    "arguments", [["--help"], ["resolve", "--help"], ["status"], ["city", "show"], ["db", "status"]]
)
def test_help_and_status_load_neither_torch_nor_prefect(settings: Settings, arguments: list[str]) -> None:
    script = (
        "import sys\nfrom urban_reid.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'torchvision', 'prefect', 'openvino') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *arguments], env=environment_of(settings), capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_city_goes_in_and_comes_out_with_its_names_harmless(run: Run, run_json: RunJson, tmp_path: Path) -> None:
    name = "[red]Platz[/red] <script> ../.. \x1b[31m\n\U0001f468\u200d\U0001f469 \u202eevil"
    units = [{"code": "d1", "name": name}, {"code": "d1/s1"}, {"code": "d1/s1/b1", "kind": "site"}]
    (tmp_path / "city.yaml").write_text(json.dumps({"timezone": "Europe/Berlin", "units": units}, ensure_ascii=False))
    loaded = run_json("city", "load", "city.yaml")
    assert loaded == {"changed": True, "units": {"camera": 0, "building": 1, "street": 1, "district": 1}}
    assert run_json("city", "load", "city.yaml")["changed"] is False
    shown = run_json("city", "show")
    assert [district["code"] for district in shown["districts"]] == ["d1"]
    assert shown["districts"][0]["name"] == name
    assert shown["districts"][0]["units"][0]["units"][0]["kind"] == "site"
    looked = run("city", "show")
    assert looked.returncode == 0
    first = looked.stdout.splitlines()[0]
    assert first.startswith("d1 [red]Platz[/red] <script> ../.. [31m \U0001f468\u200d\U0001f469 evil")


def test_status_of_an_empty_city(run_json: RunJson) -> None:
    found = run_json("status")
    assert found["levels"] == {"camera": 0, "building": 0, "street": 0, "district": 0}
    assert (found["crops"], found["decisions"], found["runs"], found["model"]) == (0, 0, 0, None)
    assert len(found["digest"]) == 64


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["resolve", "--unit", "D 1"], 2, "is not a unit code"),
        (["resolve", "--unit", "d1/s1"], 2, "a district's code has no slash"),
        (["resolve", "--unit", "d1"], 2, "no city is loaded"),
        (["resolve", "--unit", "d1", "--from", "yesterday"], 2, "'yesterday' is not a time"),
        (["resolve", "--unit", "d1", "--from", "2026-01-01T08:00:00"], 2, "has no zone"),
        (
            ["resolve", "--unit", "d1", "--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"],
            2,
            "the period ends before it starts",
        ),
        (["resolve", "--unit", "d1", "--export", "no/such/folder.jsonl"], 2, "there is no folder"),
        (["train", "n", "--dataset", "d", "--reason", "x", "--start-from", "\udcff"], 2, "--start-from: "),
        (["train", "n", "--dataset", "d", "--reason", "x", "--architecture", "\udcff"], 2, "--architecture: "),
        (
            ["train", "n", "--dataset", "d", "--reason", "x", "--strategy", "x" * 9000],
            2,
            "Invalid value for '--strategy'",
        ),
        (["resolve", "--unit", "d1", "--no-wait", "--export", "a.jsonl"], 2, "omit --no-wait"),
        (["resolve", "--unit", "d1", "--again"], 2, "--reason: may not be blank"),
        (["resolve", "--unit", "d1", "--reason", "x"], 2, "--reason belongs to --again"),
        (["ingest", "video", "a.avi", "--camera", "d1/s1/b1/c1", "--add", "--replace"], 2, "exclude each other"),
        (["search", "--probe", "a" * 64, "--unit", "d1", "--reason", "  "], 2, "--reason: may not be blank"),
        (["search", "--probe", "a" * 64, "--unit", "d1", "--reason", "x", "--top", "0"], 2, "--top: "),
        (["search", "--probe", "no.jpg", "--unit", "d1", "--reason", "x"], 2, "--probe no.jpg: neither a crop key"),
        (["search", "--probe", "a" * 64, "--unit", "../etc", "--reason", "x"], 2, "--unit: "),
        (["city", "load", "nothing.yaml"], 2, "nothing.yaml"),
        (["ingest", "manifest", "nothing.jsonl"], 2, "no city is loaded"),
        (["ingest", "video", "nothing.avi", "--camera", "d1/s1/b1/c1", "--region", "1,2"], 2, "--region '1,2'"),
        (["models", "register", "m", "nothing.xml"], 2, "nothing.xml: no such file"),
        (["models", "register", "m", "x.xml", "--mean", "1,2"], 2, "--mean '1,2'"),
        (["models", "register", "m", "x.xml", "--range", "7"], 2, "--range: "),
        (["models", "use", "m"], 2, "no model 'm' is registered"),
        (["models", "calibrate", "m", "--dataset", "rendered:1"], 2, "no model 'm' is registered"),
        (["models", "calibrate", "m", "--on-city", "d1"], 2, "no model 'm' is registered"),
        (["models", "calibrate", "m"], 2, "say either --dataset"),
        (["report", "--unit", "d1", "--out", "r"], 2, "no city is loaded"),
        (["db", "stop"], 1, "does not stop"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_wrong_use_is_one_line(run_here: Run, arguments: list[str], code: int, said: str) -> None:
    assert said in error_of(run_here(*arguments), code)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resolve"], "Missing option '--unit'; see `urban-reid resolve --help`"),
        (["nosuch"], "No such command 'nosuch'; see `urban-reid --help`"),
        (["models", "nosuch"], "No such command 'nosuch'; see `urban-reid models --help`"),
        (["status", "--nosuch"], "No such option: --nosuch; see `urban-reid status --help`"),
        (["status", "more"], "Got unexpected extra argument(s) (more); see `urban-reid status --help`"),
        (["demo", "--cameras", "1"], "Invalid value for '--cameras': "),
        (
            ["ingest", "dataset", "x", "--layout", "y"],
            "Invalid value for '--layout': 'y' is not one of 'market1501'; see `urban-reid ingest dataset --help`",
        ),
    ],
)
def test_errors_of_the_command_line_itself(run_here: Run, arguments: list[str], said: str) -> None:
    assert error_of(run_here(*arguments), 2).startswith(said)
    found = error_object_of(run_here(*arguments, "--json"), 2)
    assert found["error"] == "UsageError" and found["message"].startswith(said)


def test_a_setting_at_fault_is_named(run: Run) -> None:
    assert "URBAN_REID_BATCH_SIZE" in error_of(run("status", URBAN_REID_BATCH_SIZE="many"), 2)


def test_a_database_that_is_away(run: Run) -> None:
    away = "postgresql+psycopg2://nobody:secret@127.0.0.1:9/none"
    said = error_of(run("status", URBAN_REID_DATABASE_URL=away), 1)
    assert "127.0.0.1" in said and "secret" not in said


def test_control_characters_do_not_reach_the_terminal(run: Run) -> None:
    assert "\x1b" not in error_of(run("city", "load", "a\x1b[31mb\nc"), 2)


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "said"),
    [
        (["city", "load", "nothing.yaml"], 2, "CityError", "nothing.yaml: cannot be read"),
        (["ingest", "manifest", "nothing.jsonl"], 2, "CityError", "no city is loaded"),
        (["resolve", "--unit", "D 1"], 2, "CityError", "is not a unit code"),
        (["db", "stop"], 1, "StoreError", "does not stop"),
    ],
)
def test_with_json_an_error_is_one_object(run_here: Run, arguments: list[str], code: int, kind: str, said: str) -> None:
    found = error_object_of(run_here(*arguments, "--json"), code)
    assert found["error"] == kind and said in found["message"]


def test_the_version_is_that_of_the_package(run_here: Run) -> None:
    assert run_here("--version").stdout == f"urban-reid {version('urban-reid')}\n"


def test_help_has_every_command_under_a_heading() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    headings = [line.strip("╭─╮ ") for line in shown.splitlines() if line.startswith("╭")]
    assert headings == ["Options", *PANELS]


EARLIER_USES = [
    ("search", "--unit", "--within"),
    ("resolve", "--unit", "--district"),
    ("report", "--unit", "--district"),
    *((f"models {name}", "--operator", "--by") for name in ("transit", "promote", "rollback")),
    ("identities confirm", "--operator", "--by"),
    ("models export", "--format", "--to"),
    ("reproduce", "--start-from", "--start"),
    ("train", "--operator", "--by"),
    ("train", "--identities-per-batch", "--people"),
    ("train", "--pictures-per-identity", "--pictures"),
]


@pytest.mark.parametrize(("command", "name", "earlier"), EARLIER_USES)
def test_an_option_works_under_its_earlier_name_which_help_does_not_show(command: str, name: str, earlier: str) -> None:
    words = command.split()
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).output
    assert re.search(rf"{name}\s", shown) and not re.search(rf"{earlier}\s", shown)
    found = typer.main.get_command(app)
    for word in words:
        found = cast(TyperGroup, found).commands[word]
    parameter = next(parameter for parameter in found.params if name in parameter.opts)
    value = "openvino" if name == "--format" else "7"
    for option in (name, earlier):
        context = found.make_context(command, [option, value], resilient_parsing=True)
        assert str(context.params[str(parameter.name)]) == value


def test_an_earlier_name_works_from_the_command_line(run_here: Run) -> None:
    assert run_here("resolve", "--district", "d1").stderr == run_here("resolve", "--unit", "d1").stderr
    said = error_of(run_here("search", "--probe", "a" * 64, "--within", "d1", "--reason", "x", "--top", "0"), 2)
    assert said.startswith("--top: ")


def test_tables_are_whole_without_a_terminal(run: Run, run_json: RunJson, model_folder: Path) -> None:
    name = "a-model-with-a-name-that-is-rather-long-but-still-one-" + "x" * 10
    run_json("models", "register", name, str(model_folder))
    listed = run("models", "list", COLUMNS="40").stdout
    assert any(name in line and "diff attention" not in line for line in listed.splitlines())
    assert max(len(line) for line in listed.splitlines()) > 100


def test_a_narrow_terminal_folds_long_words() -> None:
    table = Table("name", "a-long-heading-of-a-column")
    table.add_row("n" * 50, "1")
    shown = StringIO()
    Console(file=shown, width=24).print(table)
    assert shown.getvalue().count("n") == 50 + "name a-long-heading-of-a-column".count("n")
    assert "…" not in shown.getvalue() and max(map(len, shown.getvalue().splitlines())) <= 24


@pytest.mark.parametrize("closed", ["1", "2", "0"])
def test_closed_standard_streams(settings: Settings, tmp_path: Path, closed: str) -> None:
    command = shlex.join(program("db", "status", "--json"))
    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} {closed}>&-"],
        env=environment_of(settings),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert closed == "1" or json.loads(done.stdout)["running"]


def test_a_reader_who_has_seen_enough_and_a_full_disk(settings: Settings, tmp_path: Path) -> None:
    def run_into(target: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/bin/bash", "-c", f"{shlex.join(program('db', 'status'))} {target}; exit ${{PIPESTATUS[0]}}"],
            env=environment_of(settings),
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    ended = run_into("| true")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")
    assert error_of(run_into("> /dev/full"), 1) == "standard output: cannot be written: No space left on device"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_names_that_the_terminal_cannot_show(tmp_path: Path, encoding: str) -> None:
    name = "h\xf6me \udcff \u8857"
    script = f"""
from urban_reid import cli, output

@cli.app.command()
def show():
    output.print_json({{"name": {name!a}}})
    output.out().print(output.shown({name!a}))
    output.say(output.shown({name!a}))

cli.main(["show"])
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={**os.environ, "PYTHONIOENCODING": encoding, "URBAN_REID_HOME": str(tmp_path)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    as_json, as_text = done.stdout.decode(encoding).splitlines()
    assert json.loads(as_json) == {"name": name}
    assert as_text.startswith("h") and as_text == done.stderr.decode(encoding).strip()


def test_a_working_directory_that_is_gone(settings: Settings, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["/bin/sh", "-c", f"rmdir {gone} && {shlex.join(program('report', '--unit', 'd1', '--out', 'r'))}"],
        env=environment_of(settings),
        cwd=gone,
        capture_output=True,
        text=True,
    )
    assert error_of(done, 2) == "the working directory does not exist any more: change to another one"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"cameras": 9, "people": 45, "seed": 1}'])
def test_a_home_with_another_or_a_damaged_demo(run_here: Run, settings: Settings, content: bytes) -> None:
    marker = settings.home / "demo-input" / "plan.json"
    marker.parent.mkdir()
    marker.write_bytes(content)
    assert "holds another demo" in error_of(run_here("demo"), 1)


def test_the_demo_names_a_command_that_the_shell_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make demo` calls the program in an environment that is not active."""
    program = tmp_path / "bin" / "urban-reid"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "demo"])
    monkeypatch.setenv("PATH", os.defpath)
    assert demo._as_called() == str(program)
    monkeypatch.setenv("PATH", str(program.parent))
    assert demo._as_called() == "urban-reid"
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setenv("PATH", os.defpath)
    assert demo._as_called() == "urban-reid"
