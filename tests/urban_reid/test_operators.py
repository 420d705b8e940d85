"""Operators at work on a live home under `urban-reid up`, for a moment: what they asked and answered is all there."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.system
def test_nothing_that_operators_ask_or_answer_is_lost() -> None:
    options = ["--operators", "3", "--minutes", "0.33", "--people", "12", "--cameras", "4"]
    command = [sys.executable, "-m", "benchmarks.operators", *options]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no error; all" in done.stdout
