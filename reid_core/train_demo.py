"""Trains the demo's small model again, on rendered pedestrians: `python -m reid_core.train_demo`, or `make demo-model`.

resnet10s at 128x64 with diff attention. The people it learns from, those it is validated on, and those of any demo
city come from different generators, so nobody is met twice. Takes minutes on two cores; docs/experiments.md says what
was tried.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from reid_core.data import PersonPictures
from reid_core.diff_attention import DiffAttention
from reid_core.evaluate import evaluate
from reid_core.files import save_model
from reid_core.models import ReIDModel, build_model
from reid_core.ranking import RankingScores
from reid_core.train import EpochRecord, Strategy, TrainSettings, paper_settings, train
from schemas.cards import DiffAttentionSettings, InputConvention, ModelCard, ModelConfig
from schemas.settings import Settings
from schemas.settings import settings as read_settings
from synthetic.training import training_set

DEMO = Path(__file__).parent / "weights" / "demo"
INPUT = InputConvention(height=128, width=64)
ATTENTION = DiffAttentionSettings()
TRAINING_SEED, VALIDATION_SEED = 1001, 2001
PEOPLE, PICTURES = 400, 24
VALIDATION_PEOPLE, VALIDATION_PICTURES = 80, 16
EPOCHS, MODULE_EPOCHS = 10, 6


def training_people(people: int = PEOPLE) -> PersonPictures:
    """Each of `people` in twelve passages, seen by many cameras: variety of cameras costs nothing when rendered."""
    size = (INPUT.height, INPUT.width)
    found = training_set(TRAINING_SEED, people, PICTURES, size, pictures_per_passage=2, cameras=64)
    return PersonPictures(found.pictures, found.identities, found.cameras)


def validation_people() -> PersonPictures:
    """Other people before other cameras, four passages each."""
    found = training_set(VALIDATION_SEED, VALIDATION_PEOPLE, VALIDATION_PICTURES, (INPUT.height, INPUT.width))
    return PersonPictures(found.pictures, found.identities, found.cameras)


def demo_plans(strategy: Strategy, epochs: int) -> list[TrainSettings]:
    """The paper's settings on fewer epochs: one plan for plain and joint, plain and then the module's for separate.

    From scratch the rate is higher and falls later; the paper's rate for the module, 0.05, makes it worse
    than none here (docs/experiments.md).
    """
    backbone = paper_settings("joint" if strategy == "joint" else "plain", "bagtricks")
    plans = [replace(backbone, epochs=epochs, learning_rate=2e-3, milestones=(0.6, 0.85))]
    if strategy == "separate":
        plans.append(replace(paper_settings("separate", "bagtricks"), epochs=MODULE_EPOCHS, learning_rate=2e-3))
    return plans


def train_demo(
    settings: Settings,
    out: Path,
    work: Path,
    people: PersonPictures,
    validation: PersonPictures,
    plans: list[TrainSettings],
) -> tuple[ModelCard, list[EpochRecord]]:
    """Trains one model by the `plans` in turn (joint alone, or plain and then separate) and writes it to `out`.

    `work` holds checkpoints and logs, one folder a plan; an interrupted call goes on from there.
    """
    torch.manual_seed(plans[0].seed)
    classes = len(set(people.identities.tolist()))
    attention = ATTENTION if plans[0].strategy == "joint" else None
    model = build_model(
        ModelConfig(architecture="resnet10s", input=INPUT, diff_attention=attention), num_classes=classes
    )
    query, gallery = validation.split_queries()

    def validate(trained: ReIDModel) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            save_model(trained, Path(folder), name="validated", half=True)
            return metrics(evaluate(settings, Path(folder), query, gallery))

    records: list[EpochRecord] = []
    for plan in plans:
        if plan.strategy != "plain" and model.diff_attention is None:
            model.diff_attention = DiffAttention(model.dims, ATTENTION)
        records += train(model, people, plan, work / plan.strategy, settings, validate=validate)
    card = save_model(
        model,
        out,
        name="demo",
        strategy=plans[-1].strategy,
        trained_on=(
            f"{len(people)} rendered pictures of {classes} people (synthetic.training, seed {TRAINING_SEED}); "
            f"metrics: {len(query)} queries, {len(gallery)} gallery pictures of "
            f"{len(set(validation.identities.tolist()))} other people (seed {VALIDATION_SEED})"
        ),
        metrics=records[-1].metrics,
        details={"plans": [asdict(plan) for plan in plans]},
        half=True,
    )
    return card, records


def metrics(scores: Mapping[str, RankingScores]) -> dict[str, float]:
    """Rank-1, mAP and mINP of each kind of distance, in percent, by names such as `attended_mAP`."""
    return {
        f"{kind}_{name}": round(getattr(found, name), 2)
        for kind, found in scores.items()
        for name in ("rank_1", "mAP", "mINP")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEMO, help="model directory to write")
    parser.add_argument("--work", type=Path, help="checkpoints and logs; a temporary folder if not given")
    parser.add_argument("--strategy", choices=["plain", "joint", "separate"], default="separate")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the backbone")
    parser.add_argument("--people", type=int, default=PEOPLE)
    asked = parser.parse_args()

    started = time.perf_counter()
    people, validation = training_people(asked.people), validation_people()
    sys.stdout.write(f"{len(people)} + {len(validation)} pictures in {time.perf_counter() - started:.0f} s\n")
    plans = demo_plans(asked.strategy, asked.epochs)
    with tempfile.TemporaryDirectory() as folder:
        work = asked.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        card, records = train_demo(read_settings(), asked.out, work, people, validation, plans)
    for record in records:
        sys.stdout.write(f"{asdict(record)}\n")
    sys.stdout.write(f"{asked.out}: {card.metrics} after {time.perf_counter() - started:.0f} s\n")


if __name__ == "__main__":
    main()
