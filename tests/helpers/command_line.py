"""The command line as a test runs it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from schemas.settings import Settings

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment_of(settings: Settings) -> dict[str, str]:
    # Tests that call flows in this process leave variables of Prefect.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    variables = {**inherited, "URBAN_REID_HOME": str(settings.home), "URBAN_REID_OPERATOR": "tester"}
    if settings.database_url:
        variables["URBAN_REID_DATABASE_URL"] = settings.database_url
    return variables


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "urban_reid.cli", *arguments]


def check_names(found: object) -> None:
    """Fails where a JSON object has a name that is not written as all others are: mAP, mINP, rank1, snake_case."""
    if isinstance(found, dict):
        for name, value in found.items():
            assert not re.search(r"[A-Z ]|rank[-_]\d", name.replace("mAP", "").replace("mINP", "")), name
            check_names(value)
    elif isinstance(found, list):
        for value in found:
            check_names(value)


def messages_of(stderr: str) -> list[str]:
    """The lines of stderr, without those that tell of progress: how many there are depends on the machine."""
    return [line for line in stderr.splitlines() if not re.search(r": .*(about .* left|so far)$", line)]


def error_of(done: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The one line that a command failed with."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert done.stdout == ""
    (line,) = messages_of(done.stderr)
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def error_object_of(done: "subprocess.CompletedProcess[str]", code: int) -> dict[str, Any]:
    """The one JSON object that a command with --json failed with."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert done.stdout == ""
    (line,) = messages_of(done.stderr)
    found: dict[str, Any] = json.loads(line)
    assert set(found) == {"error", "message"}
    return found
