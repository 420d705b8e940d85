import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from schemas.settings import Settings
from tests.helpers.command_line import Run, environment_of, error_of
from urban_reid.cli import app

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


def test_the_issues_commands_are_there() -> None:
    assert {" ".join(command) for command in commands()} == {
        "demo",
        *(f"db {name}" for name in ("upgrade", "status", "stop", "url")),
        *(f"city {name}" for name in ("load", "show")),
        *(f"ingest {name}" for name in ("manifest", "dataset", "video")),
        *(
            f"models {name}"
            for name in ("list", "register", "calibrate", "transit", "use", "compare", "promote", "rollback")
        ),
        *(f"models {name}" for name in ("convert", "export")),
        "identities confirm",
        "dataset check",
        "evaluate",
        "train",
        "reproduce",
        "resolve",
        "score",
        "simulate",
        "search",
        "status",
        "report",
        "up",
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
        (["resolve", "--district", "D 1"], 2, "is no unit code"),
        (["resolve", "--district", "d1/s1"], 2, "a district's code has no slash"),
        (["resolve", "--district", "d1"], 2, "no city is loaded"),
        (["resolve", "--district", "d1", "--from", "yesterday"], 2, "'yesterday' is no time"),
        (["resolve", "--district", "d1", "--from", "2026-01-01T08:00:00"], 2, "has no zone"),
        (
            ["resolve", "--district", "d1", "--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"],
            2,
            "the period ends before it starts",
        ),
        (["resolve", "--district", "d1", "--export", "no/such/folder.jsonl"], 2, "there is no folder"),
        (["resolve", "--district", "d1", "--no-wait", "--export", "a.jsonl"], 2, "leave --no-wait out"),
        (["search", "--probe", "a" * 64, "--within", "d1", "--reason", "  "], 2, "--reason: may not be blank"),
        (["search", "--probe", "a" * 64, "--within", "d1", "--reason", "x", "--top", "0"], 2, "--top: "),
        (["search", "--probe", "no.jpg", "--within", "d1", "--reason", "x"], 2, "--probe no.jpg: no crop key"),
        (["search", "--probe", "a" * 64, "--within", "../etc", "--reason", "x"], 2, "--within: "),
        (["city", "load", "nothing.yaml"], 2, "nothing.yaml"),
        (["ingest", "manifest", "nothing.jsonl"], 2, "no city is loaded"),
        (["ingest", "video", "nothing.avi", "--camera", "d1/s1/b1/c1", "--region", "1,2"], 2, "--region '1,2'"),
        (["models", "register", "m", "nothing.xml"], 2, "nothing.xml: no such file"),
        (["models", "register", "m", "x.xml", "--mean", "1,2"], 2, "--mean '1,2'"),
        (["models", "register", "m", "x.xml", "--range", "7"], 2, "--range: "),
        (["models", "use", "m"], 2, "no model 'm' is registered"),
        (["models", "calibrate", "m", "--dataset", "rendered:1"], 2, "no model 'm' is registered"),
        (["report", "--district", "d1", "--out", "r"], 2, "no city is loaded"),
        (["db", "stop"], 1, "does not stop"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_wrong_use_is_one_line(run_here: Run, arguments: list[str], code: int, said: str) -> None:
    assert said in error_of(run_here(*arguments), code)


def test_errors_of_the_command_line_itself(run: Run) -> None:
    for arguments in (["resolve"], ["nosuch"], ["demo", "--cameras", "1"], ["ingest", "dataset", "x", "--layout", "y"]):
        done = run(*arguments)
        assert done.returncode == 2 and done.stdout == "" and "Usage" in done.stderr


def test_a_setting_at_fault_is_named(run: Run) -> None:
    assert "URBAN_REID_BATCH_SIZE" in error_of(run("status", URBAN_REID_BATCH_SIZE="many"), 2)


def test_a_database_that_is_away(run: Run) -> None:
    away = "postgresql+psycopg2://nobody:secret@127.0.0.1:9/none"
    said = error_of(run("status", URBAN_REID_DATABASE_URL=away), 1)
    assert "127.0.0.1" in said and "secret" not in said


def test_control_characters_do_not_reach_the_terminal(run: Run) -> None:
    assert "\x1b" not in error_of(run("city", "load", "a\x1b[31mb\nc"), 2)
