"""The command line as a test runs it."""

import os
import subprocess
import sys
from collections.abc import Callable

from schemas.settings import Settings

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment_of(settings: Settings) -> dict[str, str]:
    variables = {**os.environ, "URBAN_REID_HOME": str(settings.home), "URBAN_REID_OPERATOR": "tester"}
    if settings.database_url:
        variables["URBAN_REID_DATABASE_URL"] = settings.database_url
    return variables


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "urban_reid.cli", *arguments]


def error_of(done: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The one line that a command failed with."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), done.stderr
    return done.stderr.removeprefix("error: ").strip()
