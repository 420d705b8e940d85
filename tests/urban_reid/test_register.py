"""The commands `urban-reid models register`, `rename` and `remove`."""

import json
from pathlib import Path

import pytest
import torch

from reid_core.files import read_card, save_model
from reid_core.models import build_model
from schemas.cards import InputConvention, ModelConfig
from schemas.settings import Settings
from tests.helpers.command_line import Run, error_of
from tests.helpers.onnx_files import onnx_file

INPUT = InputConvention(height=64, width=32)
CONVENTION = ("--color", "bgr", "--range", "255", "--mean", "0,0,0", "--std", "1,1,1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(build_model(ModelConfig(architecture="resnet10s", input=INPUT)), tmp_path / "m", name="any")
    return tmp_path / "m"


def test_a_model_is_registered_renamed_and_removed(run_here: Run, settings: Settings, model: Path) -> None:
    registered = run_here("models", "register", "first", str(model), "--json")
    assert registered.returncode == 0 and json.loads(registered.stdout)["name"] == "first"
    renamed = run_here("models", "rename", "first", "second", "--json")
    assert renamed.returncode == 0 and json.loads(renamed.stdout) == {"before": "first", "name": "second"}
    assert read_card(settings.models_dir / "second").name == "second"
    assert "second is now third" in run_here("models", "rename", "second", "third").stdout
    used = run_here("models", "use", "third")
    assert used.returncode == 0 and "the next `urban-reid resolve` decides with it" in used.stdout
    assert "model third cannot be removed: it is in use, it was in use before" in error_of(
        run_here("models", "remove", "third"), 2
    )
    assert "there are: third" in error_of(run_here("models", "rename", "second", "first"), 2)
    torch.manual_seed(1)
    save_model(build_model(ModelConfig(architecture="resnet10s", input=INPUT)), model.parent / "n", name="any")
    run_here("models", "register", "other", str(model.parent / "n"))
    removed = run_here("models", "remove", "other", "--json")
    assert removed.returncode == 0 and json.loads(removed.stdout) == {"name": "other"}
    assert [path.name for path in settings.models_dir.iterdir()] == ["third"]


def test_a_foreign_file_needs_its_input_convention(run_here: Run, tmp_path: Path) -> None:
    onnx_file(tmp_path / "mean.onnx", ("n", 3, 64, 32))
    register = ("models", "register", "mean", "mean.onnx")
    asked = "mean.onnx: what pictures it takes is not known; give {} as it was trained"
    every = "--color rgb|bgr, --range 1|255, --mean X,Y,Z, --std X,Y,Z"
    assert asked.format(every) in error_of(run_here(*register), 2)
    assert asked.format(every.partition(", ")[2]) in error_of(run_here(*register, "--color", "bgr"), 2)
    evaluate = ("evaluate", "--model", "mean.onnx", "--dataset", "rendered:3:8")
    assert asked.format(every) in error_of(run_here(*evaluate), 2)
    assert run_here(*evaluate, *CONVENTION).returncode == 0
    done = run_here(*register, *CONVENTION)
    assert done.returncode == 0 and "registered as mean" in done.stdout


def test_a_file_that_leaves_its_size_open(run_here: Run, settings: Settings, tmp_path: Path) -> None:
    onnx_file(tmp_path / "any.onnx", ("n", 3, "h", "w"))
    register = ("models", "register", "any", "any.onnx", *CONVENTION)
    assert "give --size HEIGHTxWIDTH as it was trained" in error_of(run_here(*register), 2)
    for size in ("64", "64,32", "0x32", "64x99999"):
        assert f"--size {size}" in error_of(run_here(*register, "--size", size), 2).replace("'", "")
    assert run_here(*register, "--size", "64x32").returncode == 0
    card = read_card(settings.models_dir / "any")
    assert (card.input.height, card.input.width, card.input.color) == (64, 32, "bgr")


def test_what_is_not_an_embedder_is_one_line(run_here: Run, settings: Settings, tmp_path: Path) -> None:
    onnx_file(tmp_path / "wide.onnx", ("n", 3, 96, 64), "Identity")
    message = error_of(run_here("models", "register", "wide", "wide.onnx", *CONVENTION), 1)
    assert (
        message == "wide.onnx: not an embedder: its output has 18,432 values a picture; a feature has 1 to 16,000 dims"
    )
    assert not settings.models_dir.exists() or not list(settings.models_dir.iterdir())
