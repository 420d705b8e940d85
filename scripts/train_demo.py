"""Trains the packaged demo model on rendered pedestrians: `python -m scripts.train_demo`, or `make demo-model`.

The model is resnet10s at 128x64 with diff attention. The people of training, of validation and of any demo city come
from different generators, so no person is in two of them. Takes minutes on two cores; docs/experiments.md says what was
tried.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from reid_core import DEMO_MODEL
from reid_core.datasets.person_pictures import PersonPictures
from reid_core.training.plans import Strategy, TrainSettings, paper_settings
from reid_core.training.recipe import Recipe, make_model
from schemas.cards import DiffAttentionSettings, InputConvention, ModelConfig
from schemas.settings import settings as read_settings
from synthetic.training import training_set

INPUT = InputConvention(height=128, width=64)
ATTENTION = DiffAttentionSettings()
TRAINING_SEED, VALIDATION_SEED = 1001, 2001
PEOPLE, PICTURES = 400, 24
VALIDATION_PEOPLE, VALIDATION_PICTURES = 80, 16
EPOCHS, MODULE_EPOCHS = 10, 6


def training_people(people: int = PEOPLE) -> PersonPictures:
    """People in twelve passages each, before many cameras: rendered cameras cost nothing."""
    size = (INPUT.height, INPUT.width)
    found = training_set(TRAINING_SEED, people, PICTURES, size, pictures_per_passage=2, cameras=64)
    return PersonPictures(found.pictures, found.identities, found.cameras)


def validation_people() -> PersonPictures:
    """Other people before other cameras, in four passages each."""
    found = training_set(VALIDATION_SEED, VALIDATION_PEOPLE, VALIDATION_PICTURES, (INPUT.height, INPUT.width))
    return PersonPictures(found.pictures, found.identities, found.cameras)


def demo_plans(strategy: Strategy, epochs: int) -> list[TrainSettings]:
    """The paper's settings with fewer epochs: one plan for plain and joint; a plain and a separate one for separate.

    Training from random weights needs a higher rate that falls later. With the paper's rate for the module, 0.05, the
    model is worse than without it (docs/experiments.md).
    """
    backbone = paper_settings("joint" if strategy == "joint" else "plain", "bagtricks")
    plans = [replace(backbone, epochs=epochs, learning_rate=2e-3, milestones=(0.6, 0.85))]
    if strategy == "separate":
        plans.append(replace(paper_settings("separate", "bagtricks"), epochs=MODULE_EPOCHS, learning_rate=2e-3))
    return plans


def demo_recipe(plans: list[TrainSettings]) -> Recipe:
    config = ModelConfig(architecture="resnet10s", input=INPUT, diff_attention=ATTENTION)
    return Recipe(config, tuple(plans), half=True)


def trained_on(people: PersonPictures, validation: PersonPictures) -> str:
    query, gallery = validation.split_queries()
    return (
        f"{len(people)} rendered pictures of {len(set(people.identities.tolist()))} people (synthetic.training, "
        f"seed {TRAINING_SEED}); metrics: {len(query)} queries, {len(gallery)} gallery pictures of "
        f"{len(set(validation.identities.tolist()))} other people (seed {VALIDATION_SEED})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEMO_MODEL, help="model directory to write")
    parser.add_argument("--work", type=Path, help="checkpoints and logs; a temporary folder if not given")
    parser.add_argument("--strategy", choices=["plain", "joint", "separate"], default="separate")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of the backbone")
    parser.add_argument("--people", type=int, default=PEOPLE, help="people to train on, at least 16")
    asked = parser.parse_args()

    started = time.perf_counter()
    people, validation = training_people(asked.people), validation_people()
    sys.stdout.write(f"{len(people)} + {len(validation)} pictures in {time.perf_counter() - started:.0f} s\n")
    plans = demo_plans(asked.strategy, asked.epochs)
    with tempfile.TemporaryDirectory() as folder:
        work = asked.work or Path(folder)
        card, records = make_model(
            demo_recipe(plans),
            people,
            validation.split_queries(),
            work,
            asked.out,
            read_settings(),
            name="demo",
            trained_on=trained_on(people, validation),
        )
    for record in records:
        sys.stdout.write(f"{asdict(record)}\n")
    sys.stdout.write(f"{asked.out}: {card.metrics} after {time.perf_counter() - started:.0f} s\n")


if __name__ == "__main__":
    main()
