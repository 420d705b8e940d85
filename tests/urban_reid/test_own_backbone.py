"""A user's own backbone, installed as a package: train, evaluate, reproduce and export, each a process of its own."""

import json
from pathlib import Path

import pytest

from pipeline.registry import models
from pipeline.store import Store
from schemas.settings import Settings
from tests.helpers.command_line import Run, error_of
from tests.helpers.own_backbone import install_backbone

pytestmark = pytest.mark.system


def test_it_works_in_every_command(run: Run, store: Store, settings: Settings, tmp_path: Path) -> None:
    installed = {"PYTHONPATH": str(install_backbone(tmp_path / "site"))}
    sized = ("--height", "32", "--width", "16", "--people", "6", "--epochs", "1", "--strategy", "joint")
    train = ("train", "own", "--dataset", "rendered:5:12", "--architecture", "mynet", "--reason", "a test", *sized)

    unknown = error_of(run(*train), 2)
    assert "no architecture 'mynet'" in unknown and "entry point of the group urban_reid.backbones" in unknown

    trained = run(*train, "--json", **installed)
    assert trained.returncode == 0, trained.stderr
    (row,) = models(store)
    assert (row.card.architecture, row.dims) == ("mynet", 8)
    folder = str(row.directory(settings))

    evaluate = ("evaluate", "--model", folder, "--dataset", "rendered:7:10", "--json")
    evaluated = run(*evaluate, **installed)
    assert evaluated.returncode == 0, evaluated.stderr
    assert set(json.loads(evaluated.stdout)["rows"]) == {"plain", "attended"}
    absent = run(*evaluate)
    assert absent.returncode == 1 and "register_backbone('mynet')" in absent.stderr

    exported = run("models", "export", folder, "--to", "openvino", "--out", "exported", "--json", **installed)
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["execution_cosine"] > 0.9
    evaluated = run("evaluate", "--model", "exported", "--dataset", "rendered:7:10", "--json")  # needs no package
    assert evaluated.returncode == 0, evaluated.stderr


@pytest.mark.parametrize("budget", ["full", "cpu"])
def test_reproduce_refuses_an_unknown_backbone_before_it_reads_anything(run_here: Run, budget: str) -> None:
    asked = ("reproduce", "table1", "--dataset", "cuhk03:nowhere", "--budget", budget, "--architecture", "mynet")
    assert "no architecture 'mynet'" in error_of(run_here(*asked), 2)
    assert "--architecture: the model of --start" in error_of(run_here(*asked, "--start", "demo"), 2)


def test_reproduce_trains_it(run: Run, tmp_path: Path) -> None:
    installed = {"PYTHONPATH": str(install_backbone(tmp_path / "site"))}
    reproduced = run(
        *("reproduce", "table1", "--dataset", "rendered:3:34", "--rows", "bagtricks"),
        *("--budget", "cpu", "--architecture", "mynet", "--pretrained", "none", "--json"),
        **installed,
    )
    assert reproduced.returncode == 0, reproduced.stderr
    found = json.loads(reproduced.stdout)
    assert found["architecture"] == "mynet" and set(found["rows"]) == {"bagtricks"}
