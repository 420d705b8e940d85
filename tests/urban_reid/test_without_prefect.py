"""Prefect's death and absence: the work is done and counts, and one line says that Prefect does not show it."""

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from pipeline.city.status import status
from schemas.settings import Settings
from tests.helpers.command_line import environment_of, messages_of, program
from tests.helpers.prefect_api import process_of
from tests.helpers.town import Town


@pytest.fixture
def filled(town: Town, lines: list[str]) -> Town:
    town.take_in(lines[:150])
    return town


def started(settings: Settings, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        program(*arguments), env=environment_of(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: "subprocess.Popen[str]") -> tuple[dict[str, Any], list[str]]:
    """What a command printed that succeeds, and its messages."""
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(errors) < 3_000, errors
    found: dict[str, Any] = json.loads(out)
    return found, messages_of(errors)


def check(town: Town, found: dict[str, Any], messages: list[str]) -> None:
    (line,) = messages
    assert line.startswith("warning: Prefect does not show this run, or not all of it: "), line
    assert found["written"] > 0
    shown = status(town.store)
    assert shown["digest"] == found["digest"] and shown["pending"] == 0
    assert town.resolve() == 0  # nothing was left out


def signal_server(settings: Settings, number: signal.Signals) -> None:
    """As soon as a run has begun."""
    runs = settings.home / "prefect" / "runs"
    deadline = time.monotonic() + 120
    while not (runs.exists() and any(runs.glob("*-*"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process_of(settings.home), number)


@pytest.mark.system
def test_a_server_that_dies_in_the_middle_delays_nothing(filled: Town) -> None:
    settings = filled.store.settings
    running = started(settings, "resolve", "--unit", "d1", "--json")
    signal_server(settings, signal.SIGKILL)
    began = time.monotonic()
    check(filled, *ended(running))
    assert time.monotonic() - began < 60
    assert not list((settings.home / "prefect" / "runs").iterdir())


@pytest.mark.system
def test_a_server_that_hangs_in_the_middle_delays_by_seconds(filled: Town) -> None:
    settings = filled.store.settings
    running = started(settings, "resolve", "--unit", "d1", "--json")
    signal_server(settings, signal.SIGSTOP)
    began = time.monotonic()
    try:
        check(filled, *ended(running))
        assert time.monotonic() - began < 60
    finally:
        os.kill(process_of(settings.home), signal.SIGKILL)


def test_without_a_server_the_work_is_done(filled: Town) -> None:
    settings = filled.store.settings
    (settings.home / "prefect").write_text("no folder")
    found, messages = ended(started(settings, "resolve", "--unit", "d1", "--json"))
    assert "File exists" in messages[0]
    check(filled, found, messages)


def test_with_a_server_of_the_users_that_does_not_answer_the_work_is_done(filled: Town) -> None:
    variables = environment_of(filled.store.settings) | {"URBAN_REID_PREFECT_URL": "http://127.0.0.1:9/api"}
    done = subprocess.run(
        program("resolve", "--unit", "d1", "--json"), env=variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    check(filled, json.loads(done.stdout), messages_of(done.stderr))
