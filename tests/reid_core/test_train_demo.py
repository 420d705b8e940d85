from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reid_core.data import PersonPictures
from reid_core.evaluate import evaluate
from reid_core.files import read_card
from reid_core.train_demo import DEMO, INPUT, demo_plans, train_demo
from schemas.settings import Settings
from synthetic.training import training_set

SETTINGS = Settings(device="cpu")


def rendered(seed: int, people: int) -> PersonPictures:
    found = training_set(seed, people, 8, (INPUT.height, INPUT.width))
    return PersonPictures(found.pictures, found.identities, found.cameras)


@pytest.mark.parametrize("strategy", ["joint", "separate"])
def test_a_short_run_writes_a_model_with_its_card(strategy: str, tmp_path: Path) -> None:
    plans = demo_plans("joint" if strategy == "joint" else "separate", 1)
    plans = [replace(plan, epochs=1, identities_per_batch=4) for plan in plans]
    (tmp_path / "work").mkdir()
    card, records = train_demo(SETTINGS, tmp_path / "out", tmp_path / "work", rendered(3, 4), rendered(4, 3), plans)
    assert card.model_dump_json() == read_card(tmp_path / "out").model_dump_json()
    assert (card.dims, card.strategy) == (256, strategy) and card.diff_attention is not None
    assert card.metrics == records[-1].metrics and "attended_mINP" in card.metrics
    assert [plan["strategy"] for plan in card.details["plans"]] == [plan.strategy for plan in plans]


def test_the_shipped_model_tells_rendered_people_apart() -> None:
    card = read_card(DEMO)
    assert card.sha256 and (DEMO / "weights.safetensors").stat().st_size < 4 * 2**20
    people = rendered(77, 30)  # met neither in training nor in validation
    shuffled = PersonPictures(people.pictures, np.random.default_rng(0).permutation(people.identities), people.cameras)
    found = evaluate(SETTINGS, DEMO, *people.split_queries())
    assert found["plain"].mAP > 65 and found["attended"].mAP > 65
    assert found["attended"].mAP > evaluate(SETTINGS, DEMO, *shuffled.split_queries())["attended"].mAP + 50
