"""urban-reid simulate, on a small city."""

import json

import pytest

from pipeline.accuracy.baselines import BASELINES
from tests.helpers.command_line import Run, error_of

SMALL = ("simulate", "--cameras", "8", "--people", "40", "--days", "0.2", "--seed", "3")
LEVELS = ("building", "street", "district")


@pytest.mark.system
def test_resolved_scored_and_compared(run: Run) -> None:
    done = run(*SMALL, "--resolve", "--baselines", "--processes", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tracklets"] > 100 and found["violations"] == 0
    for row in (found, *found["baselines"].values()):
        for measure in ("idf1", "pairwise_f1"):
            assert tuple(row[measure]) == LEVELS and all(0 < value <= 1 for value in row[measure].values())
    assert set(found["baselines"]) == set(BASELINES)
    assert found["idf1"]["building"] > 0.8  # an easy task: minutes and meters apart
    assert found["resolve_s"] > 0 and found["peak_mb"] > 50 and found["database_mb"] > 1
    # Again, in two processes: nothing is left to resolve, and the digest is the same.
    again = run(*SMALL, "--resolve")
    assert again.returncode == 0 and found["digest"] in again.stdout and "urban-reid" in again.stdout


def test_another_city_is_not_mixed_in(run: Run) -> None:
    first = run(*SMALL, "--json")
    assert json.loads(first.stdout)["tracklets"] > 100
    assert json.loads(run(*SMALL, "--json").stdout)["tracklets"] == json.loads(first.stdout)["tracklets"]
    done = run("simulate", "--cameras", "9")
    assert "holds another city" in error_of(done, 1)


def test_baselines_need_a_resolve(run_here: Run) -> None:
    done = run_here("simulate", "--cameras", "8", "--baselines")
    assert "give --resolve too" in error_of(done, 2)
