"""Each example runs as a user runs it, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
#: A whole case, of minutes.
LONG = {"case"}


@pytest.mark.system
@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, id=example.stem, marks=pytest.mark.slow if example.stem in LONG else ())
        for example in EXAMPLES
    ],
)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    before = sorted(example.parent.iterdir())
    # The embedded server's own user has to reach the example's temporary folder, which pytest's would not let it.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("URBAN_REID_")}
    done = subprocess.run(
        [sys.executable, str(example)], env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") >= 3
    assert list(tmp_path.iterdir()) == [] and sorted(example.parent.iterdir()) == before


def test_an_example_says_what_it_shows_and_how_to_run_it() -> None:
    assert len(EXAMPLES) >= 6
    for example in EXAMPLES:
        first, *rest = example.read_text(encoding="utf-8").removeprefix('"""').split("\n\n")
        assert first.endswith(".") and "\n" not in first, example
        assert rest[0] == f"    python examples/{example.name}", example
