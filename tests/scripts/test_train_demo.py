from pathlib import Path

import numpy as np
import pytest

from reid_core import DEMO_MODEL
from reid_core.datasets.person_pictures import PersonPictures
from reid_core.evaluation.evaluate import evaluate
from reid_core.files import read_card
from schemas.settings import Settings
from scripts import train_demo
from scripts.train_demo import INPUT
from synthetic.training import training_set

SETTINGS = Settings(device="cpu")


def rendered(seed: int, people: int) -> PersonPictures:
    found = training_set(seed, people, 8, (INPUT.height, INPUT.width))
    return PersonPictures(found.pictures, found.identities, found.cameras)


def test_the_shipped_model_tells_rendered_people_apart() -> None:
    card = read_card(DEMO_MODEL)
    assert card.sha256 and (DEMO_MODEL / "weights.safetensors").stat().st_size < 4 * 2**20
    people = rendered(77, 30)  # met neither in training nor in validation
    shuffled = PersonPictures(people.pictures, np.random.default_rng(0).permutation(people.identities), people.cameras)
    found = evaluate(SETTINGS, DEMO_MODEL, *people.split_queries())
    assert found["plain"].mAP > 65 and found["attended"].mAP > 65
    assert found["attended"].mAP > evaluate(SETTINGS, DEMO_MODEL, *shuffled.split_queries())["attended"].mAP + 50


def test_the_script_trains_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 16 people, one epoch of each plan, and four people to validate on."""
    monkeypatch.setattr(train_demo, "VALIDATION_PEOPLE", 4)
    monkeypatch.setattr(train_demo, "MODULE_EPOCHS", 1)
    sizes = ["--people", "16", "--epochs", "1"]
    monkeypatch.setattr("sys.argv", ["train_demo", *sizes, "--out", str(tmp_path / "out"), "--work", str(tmp_path)])
    train_demo.main()
    card = read_card(tmp_path / "out")
    assert (card.name, card.strategy, card.input) == ("demo", "separate", INPUT)
    assert card.trained_on.startswith("384 rendered pictures of 16 people") and card.metrics["attended_mAP"] > 0
