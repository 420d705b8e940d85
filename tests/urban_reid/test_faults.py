"""A resolve that is interrupted, that meets another one, or whose home cannot be written."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store.locks import unit_lock
from schemas.settings import Settings
from tests.helpers.command_line import Run, environment_of, error_of, messages_of, program
from tests.helpers.town import Town

RESOLVE = ("resolve", "--unit", "d1", "--json")


@pytest.fixture
def waiting(town: Town, lines: list[str], tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A resolve that waits for a camera whose lock the test holds, and has said so."""
    town.take_in(lines[:40])
    with unit_lock(town.store, "d1/s1/b1/c1"):
        process = subprocess.Popen(
            program(*RESOLVE),
            env=environment_of(town.store.settings),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Tests that a shell runs in the background ignore SIGINT, and their children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            assert process.stderr is not None
            said = next(line for line in process.stderr if "waiting for d1/s1/b1/c1" in line)
            assert "pytest" in said  # who holds it, by name
            yield process
        finally:
            process.kill()
            process.communicate()


def test_interrupted(waiting: "subprocess.Popen[str]") -> None:
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=300)  # though its thread still waits for the database
    assert waiting.returncode == 130
    assert out == ""
    message = "interrupted; what was finished is kept"
    assert json.loads(err.splitlines()[-1]) == {"error": "Interrupted", "message": message}


@pytest.mark.system
def test_two_at_once_do_the_work_once(town: Town, lines: list[str], run: Run, tmp_path: Path) -> None:
    town.take_in(lines[:120])
    environment = environment_of(town.store.settings)
    both = [
        subprocess.Popen(
            program(*RESOLVE), env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    digests = {out.split('"digest": "')[1][:64] for out, _ in ended}
    assert len(digests) == 1
    assert all(line.startswith("waiting for ") for _, err in ended for line in messages_of(err))
    third = run(*RESOLVE)
    assert '"written": 0' in third.stdout and digests.pop() in third.stdout


def test_a_home_that_cannot_be_written() -> None:
    environment = environment_of(Settings(home=Path("/proc/urban-reid")))
    for arguments in (("status",), ("up",), ("demo",)):
        done = subprocess.run(program(*arguments), env=environment, capture_output=True, text=True)
        said = error_of(done, 1)
        assert "/proc/urban-reid" in said and "URBAN_REID_HOME" in said
