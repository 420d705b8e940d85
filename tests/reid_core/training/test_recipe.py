from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reid_core.datasets.person_pictures import PersonPictures
from reid_core.evaluation.evaluate import evaluate
from reid_core.files import load_model, read_card, write_card
from reid_core.serving.foreign import foreign_card
from reid_core.serving.local import LocalCore
from reid_core.training.plans import TrainSettings
from reid_core.training.recipe import Recipe, make_model, metrics_of
from schemas.cards import DiffAttentionSettings, InputConvention, ModelConfig
from schemas.errors import CoreError
from schemas.settings import Settings
from scripts.train_demo import demo_plans
from synthetic.training import training_set
from tests.helpers.onnx_files import onnx_file, stated

SETTINGS = Settings(device="cpu")
INPUT = InputConvention(height=32, width=16)
CONFIG = ModelConfig(architecture="resnet10s", input=INPUT, diff_attention=DiffAttentionSettings())


def rendered(seed: int, people: int) -> PersonPictures:
    found = training_set(seed, people, 8, (INPUT.height, INPUT.width))
    return PersonPictures(found.pictures, found.identities, found.cameras)


def short(plans: list[TrainSettings]) -> tuple[TrainSettings, ...]:
    return tuple(replace(plan, epochs=1, identities_per_batch=4) for plan in plans)


@pytest.fixture(scope="module")
def people() -> PersonPictures:
    return rendered(3, 4)


@pytest.fixture(scope="module")
def validation() -> tuple[PersonPictures, PersonPictures]:
    return rendered(4, 3).split_queries()


@pytest.mark.parametrize("strategy", ["joint", "separate"])
def test_a_recipe_writes_a_model_with_its_card(
    strategy: str, people: PersonPictures, validation: tuple[PersonPictures, PersonPictures], tmp_path: Path
) -> None:
    plans = short(demo_plans("joint" if strategy == "joint" else "separate", 1))
    card, records = make_model(
        Recipe(CONFIG, plans, half=True),
        people,
        validation,
        tmp_path / "work",
        tmp_path / "out",
        SETTINGS,
        name="m",
        trained_on="four rendered people",
    )
    assert card.model_dump_json() == read_card(tmp_path / "out").model_dump_json()
    assert (card.dims, card.strategy, card.trained_on) == (256, strategy, "four rendered people")
    assert card.diff_attention == CONFIG.diff_attention
    assert card.metrics == records[-1].metrics and "attended_mINP" in card.metrics
    assert [plan["strategy"] for plan in card.details["plans"]] == [plan.strategy for plan in plans]
    assert len(list((tmp_path / "work").glob("*/curves.png"))) == len(plans)


@pytest.mark.parametrize("foreign", [False, True])
def test_a_module_is_trained_on_an_existing_model(
    foreign: bool, people: PersonPictures, validation: tuple[PersonPictures, PersonPictures], tmp_path: Path
) -> None:
    plain, separate = short(demo_plans("separate", 1))
    start = tmp_path / "start"
    attention = DiffAttentionSettings(reduction=1)
    if foreign:
        start.mkdir()
        card = foreign_card(onnx_file(start / "m.onnx", (1, 3, 32, 16)), "m", stated(INPUT), SETTINGS)
        write_card(card, start)
    else:
        config = CONFIG.model_copy(update={"diff_attention": None})
        card, _ = make_model(Recipe(config, (plain,)), people, validation, tmp_path / "w", start, SETTINGS, name="m")
    recipe = Recipe(CONFIG.model_copy(update={"diff_attention": attention}), (separate,), start=start)
    found, records = make_model(
        recipe, people, validation, tmp_path / "work", tmp_path / "out", SETTINGS, name="on-top"
    )
    assert found.strategy == "separate" and found.diff_attention == attention and found.engine == card.engine
    before = evaluate(SETTINGS, start, *validation)["plain"].mAP
    assert records[-1].metrics["plain_mAP"] == found.metrics["plain_mAP"] == pytest.approx(before, abs=0.01)
    opened = LocalCore.open(SETTINGS, tmp_path / "out")
    features = opened.embed(people.pictures[:4])
    assert (features == LocalCore.open(SETTINGS, start).embed(people.pictures[:4])).all()
    assert len(opened.distances(features[:2].astype(float), features[2:].astype(float))) == 2


@pytest.mark.parametrize("foreign", [False, True])
def test_validation_of_separate_training_embeds_its_pictures_once(
    foreign: bool,
    people: PersonPictures,
    validation: tuple[PersonPictures, PersonPictures],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the model as it is then: a plain plan before has changed every feature."""
    plain, separate = short(demo_plans("separate", 1))
    plans, start = [replace(plain, epochs=2), replace(separate, epochs=3)], None
    if foreign:
        plans, start = plans[1:], tmp_path / "start"
        start.mkdir()
        write_card(foreign_card(onnx_file(start / "m.onnx", (1, 3, 32, 16)), "m", stated(INPUT), SETTINGS), start)
    attention = DiffAttentionSettings(reduction=1)
    embed, seen = LocalCore.embed, []

    def counted(core: LocalCore, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(len(pictures))
        return embed(core, pictures)

    monkeypatch.setattr(LocalCore, "embed", counted)
    each_epoch = tuple(replace(plan, validate_every=1) for plan in plans)
    recipe = Recipe(CONFIG.model_copy(update={"diff_attention": attention}), each_epoch, start=start)
    card, records = make_model(recipe, people, validation, tmp_path / "w", tmp_path / "out", SETTINGS, name="m")
    pictures = sum(len(side) for side in validation)
    assert sum(seen) == pictures * (1 if foreign else 2 + 1)
    assert [bool(record.metrics) for record in records] == [True] * (3 if foreign else 5)
    assert card.metrics == metrics_of(evaluate(SETTINGS, tmp_path / "out", *validation, normalize=True))
    assert any(name.startswith("normalized_") for name in card.metrics)


def test_every_step_is_reported(
    people: PersonPictures, validation: tuple[PersonPictures, PersonPictures], tmp_path: Path
) -> None:
    reports: list[tuple[str, int, int]] = []
    make_model(
        Recipe(CONFIG, short(demo_plans("separate", 1))),
        people,
        validation,
        tmp_path / "work",
        tmp_path / "out",
        SETTINGS,
        name="m",
        progress=lambda *report: reports.append(report),
    )
    assert all(0 < done <= total for _, done, total in reports)
    assert list(dict.fromkeys(step for step, _, _ in reports)) == [
        "plain training",
        "validation, embedding",
        "validation, ranking, plain",
        "validation, ranking, normalized",
        "separate training",
        "validation, ranking, attended",
    ]


def test_recipes_that_cannot_work(
    people: PersonPictures, validation: tuple[PersonPictures, PersonPictures], tmp_path: Path
) -> None:
    plain, separate = short(demo_plans("separate", 1))
    without = CONFIG.model_copy(update={"diff_attention": None})
    with pytest.raises(CoreError, match="has diff attention"):
        make_model(Recipe(without, (separate,)), people, validation, tmp_path, tmp_path / "o", SETTINGS, name="m")
    make_model(Recipe(without, (plain,)), people, validation, tmp_path / "w", tmp_path / "s", SETTINGS, name="m")
    (tmp_path / "f").mkdir()
    write_card(
        foreign_card(onnx_file(tmp_path / "f" / "m.onnx", (1, 3, 32, 16)), "m", stated(INPUT), SETTINGS), tmp_path / "f"
    )
    with pytest.raises(CoreError, match="can only be trained separately"):
        recipe = Recipe(CONFIG, (plain,), start=tmp_path / "f")
        make_model(recipe, people, validation, tmp_path, tmp_path / "o", SETTINGS, name="m")


def test_a_whole_existing_model_is_trained_further(
    people: PersonPictures, validation: tuple[PersonPictures, PersonPictures], tmp_path: Path
) -> None:
    """With a rate near zero it stays as it was, with a new classifier for the people of training."""
    plain = replace(short(demo_plans("plain", 1))[0], learning_rate=1e-12, weight_decay=0.0)
    joint = replace(plain, strategy="joint")
    fresh = Recipe(CONFIG.model_copy(update={"diff_attention": None}), (plain,))
    make_model(fresh, people, validation, tmp_path / "w", tmp_path / "start", SETTINGS, name="m")
    recipe = Recipe(CONFIG, (joint,), start=tmp_path / "start")
    card, _ = make_model(recipe, people, validation, tmp_path / "w2", tmp_path / "out", SETTINGS, name="m")
    assert card.strategy == "joint" and card.diff_attention == CONFIG.diff_attention
    before, after = (load_model(tmp_path / folder).state_dict() for folder in ("start", "out"))
    name = next(name for name in before if name.startswith("backbone.") and name.endswith("conv1.weight"))
    assert torch.allclose(before[name], after[name], atol=1e-6)
