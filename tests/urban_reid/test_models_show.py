"""Feature spaces at the command line: learned, shown, listed, and said by status."""

import json

import pytest

from pipeline.registry import use_model
from pipeline.store import Store
from tests.helpers.command_line import Run, error_of
from tests.helpers.thin_town import ThinTown, crowd


@pytest.fixture
def thin(store: Store) -> ThinTown:
    town = ThinTown(store, crowd(cameras=8, people=20, days=0.05))
    town.take_in()
    return town


def test_a_space_is_learned_shown_and_used(thin: ThinTown, run_here: Run) -> None:
    normalize = ("models", "normalize", "thin", "--on-city", "d1", "--name", "space")
    made = json.loads(run_here(*normalize, "--json").stdout)
    assert (made["name"], made["base"]) == ("space", "thin") and made["crops"] >= sum(made["tracklets"].values()) > 10
    again = run_here(*normalize)
    assert again.returncode == 0 and "registered as space" in again.stdout
    other = run_here(*normalize, "--basis", "tracklets")
    assert other.returncode == 2 and "choose another name" in other.stderr
    assert "is a feature space itself" in error_of(run_here("models", "normalize", "space", *normalize[3:]), 2)

    shown = json.loads(run_here("models", "show", "space", "--json").stdout)
    assert shown["base"] == "thin" and set(shown["cameras"]) == set(thin.crowd.cameras)
    own = {code for code, mean in shown["cameras"].items() if mean["mean_of"] == code}
    assert own == set(made["tracklets"])
    listed = {row["name"]: row for row in json.loads(run_here("models", "list", "--json").stdout)["models"]}
    assert listed["space"]["base"] == "thin" and listed["thin"]["base"] is None
    assert "space on thin" in run_here("models", "list").stdout
    assert "feature space on" in run_here("models", "show", "space").stdout
    assert "itself" not in run_here("models", "show", "thin").stdout

    use_model(thin.store, "space")
    borrowed = json.loads(run_here("status", "--json").stdout)["borrowed_means"]
    assert set(borrowed) == set(thin.crowd.cameras) - own
    assert ("take the mean of a unit above" in run_here("status").stdout) == bool(borrowed)
