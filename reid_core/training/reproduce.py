"""Reproduces the paper's tables: trains and evaluates each row with each seed (paper, tables 1 to 5).

Everything is kept in one folder, so that an interrupted call resumes and a finished one only reads:

    WORK/bagtricks+joint/seed-0/model            the model directory
                               /scores.json      its scores on the data set, query by query
                               /1-joint          checkpoint, log and curves of its training
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reid_core.datasets import Dataset, hold_out
from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.evaluation.evaluate import evaluate
from reid_core.evaluation.ranking import METRICS, QueryScores, RankingScores
from reid_core.files import read_card
from reid_core.progress import Progress
from reid_core.training.methods import METHODS, MethodName
from reid_core.training.paper import TABLE_1, TABLE_2, TABLE_3, Figures, Row, figures_on
from reid_core.training.plans import Strategy, TrainSettings, TripletDistance, paper_settings
from reid_core.training.recipe import Recipe, make_model
from schemas.cards import InputConvention, ModelCard, ModelConfig, current_names
from schemas.disk import write_whole
from schemas.errors import CoreError, InputError
from schemas.settings import Settings

SCORES = "scores.json"
TABLES: Mapping[str, tuple[Row, ...]] = {"table1": TABLE_1, "table2": TABLE_2, "table3": TABLE_3}


@dataclass(frozen=True)
class Budget:
    """How a table is trained, where it differs from the methods' papers.

    architecture, size: backbone and (height, width) of all methods; None: each method's. architectures: in place of
        `architecture`, for methods that need another family.
    input: of all methods, in place of all that; None: each method's at `size`.
    rates, epochs: learning rate and number of epochs by strategy; warm-up and decay at the paper's shares of them.
    milestones: shares of the epochs at which the rate falls in plain and joint training; None: the paper's.
    module_start: of joint training (docs/experiments.md, 13); cached_views: of separate training.
    triplet_distance: of all strategies.
    adam: BagTricks' optimizer, warm-up and batches for all methods, for which `rates` are.
    """

    architecture: str | None = None
    input: InputConvention | None = None
    rates: Mapping[Strategy, float] = field(default_factory=dict)
    epochs: Mapping[Strategy, int] = field(default_factory=dict)
    milestones: tuple[float, ...] | None = None
    module_start: float = 0.0
    cached_views: int = 0
    triplet_distance: TripletDistance = "training"
    size: tuple[int, int] | None = None
    architectures: Mapping[MethodName, str] = field(default_factory=dict)
    adam: bool = False

    def config(self, row: Row) -> ModelConfig:
        method = METHODS[row.method]
        architecture = self.architectures.get(row.method) or self.architecture or method.architecture
        found = self.input or method.input
        if self.size is not None and self.input is None:
            found = found.model_copy(update={"height": self.size[0], "width": self.size[1]})
        return ModelConfig(
            architecture=architecture, baseline=method.baseline, input=found, diff_attention=row.diff_attention
        )

    def plan(self, strategy: Strategy, method: MethodName, seed: int) -> TrainSettings:
        plan = paper_settings(strategy, method)
        epochs = self.epochs.get(strategy, plan.epochs)
        if self.adam and strategy != "separate":
            usual = TrainSettings()
            shared = ("optimizer", "decay", "backbone_share", "warmup", "identities_per_batch", "milestones")
            plan = replace(plan, **{name: getattr(usual, name) for name in shared})
        return replace(
            plan,
            epochs=epochs,
            learning_rate=self.rates.get(strategy, plan.learning_rate),
            milestones=plan.milestones if strategy == "separate" or self.milestones is None else self.milestones,
            module_start=self.module_start if strategy == "joint" else 0.0,
            triplet_distance=self.triplet_distance,
            cached_views=self.cached_views if strategy == "separate" else 0,
            validate_every=max(1, epochs // 5),
            seed=seed,
        )


#: The papers' recipes, for a GPU.
FULL = Budget()
#: An afternoon on two CPU cores. Rates and epochs were chosen with BagTricks, on people held out of training
#: (docs/experiments.md).
CPU = Budget(
    "mobilenet_v2",
    rates={"plain": 1e-3, "joint": 1e-3, "separate": 5e-4},
    epochs={"plain": 12, "joint": 12, "separate": 10},
    milestones=(0.6, 0.85),
    module_start=0.6,
    cached_views=4,
    size=(128, 64),
    architectures={"mgn": "resnet18", "osnet": "osnet_x0_25", "transreid": "timm:vit_tiny_patch16_224"},
    adam=True,
)
BUDGETS: Mapping[str, Budget] = {"full": FULL, "cpu": CPU}


def row_key(row: Row) -> str:
    """A row's name on the command line and of its folder: `agw`, `agw+joint`, `agw+separate`, `agw+separate:sub`."""
    if row.diff_attention is None:
        return row.method
    transform = row.diff_attention.transform
    return f"{row.method}+{row.strategy}" + ("" if transform == "sub_abs" else f":{transform}")


def chosen_rows(table: str, keys: Sequence[str] | None) -> list[Row]:
    """The rows of a table with these keys, all if None. Raises InputError, which lists the keys."""
    rows = {row_key(row): row for row in TABLES[table]}
    if unknown := [key for key in keys or () if key not in rows]:
        raise InputError(f"{table} has no row {unknown[0][:40]!r}; there are {', '.join(rows)}")
    return [rows[key] for key in keys or rows]


@dataclass(frozen=True)
class Reproduced:
    """The scores of a row, one evaluation per seed.

    scores: by attended distances if the row has diff attention, else by plain ones.
    feature: by plain distances of the same model.
    plain: of the plain row of the same baseline and seeds, or of the model that was trained further; empty if there
        are none.
    start: the card of the model that was trained further instead of a plain row.
    """

    row: Row
    scores: tuple[RankingScores, ...]
    feature: tuple[RankingScores, ...]
    plain: tuple[RankingScores, ...]
    start: ModelCard | None = None

    @property
    def name(self) -> str:
        """The row's name, and the model that was trained further."""
        return self.row.name + ("" if self.start is None else f", on {self.start.name}")

    def paper(self, dataset: str) -> Figures | None:
        """The paper's figures on a published data set; None for a foreign embedder."""
        return figures_on(self.row, dataset) if self.start is None or self.start.baseline != "foreign" else None


def reproduce(
    rows: Sequence[Row],
    data: Dataset,
    budget: Budget,
    work: Path,
    settings: Settings,
    *,
    seeds: int = 1,
    pretrained: Path | Literal["imagenet"] | None = None,
    held_out: int = 0,
    start: Path | None = None,
    progress: Progress | None = None,
) -> list[Reproduced]:
    """Trains and evaluates each row with seeds 0 to `seeds` - 1; the module says what `work` holds.

    Separate training starts from the plain row of the same baseline and seed, which is trained if it is missing.
    `held_out`: number of people kept out of training for validation; with 0 validation uses the data set's queries,
    and nothing may be chosen by it. `start`: the directory of a model, which may be foreign, from which separate rows
    start instead; the input is then the model's, and the baseline of a torch model must be the row's.

    Raises what training and evaluation raise, InputError for a row that cannot start from `start`, and CoreError where
    `work` holds runs with other settings, weights or pictures.
    """
    started = None if start is None else read_card(start)
    if started is not None:
        if others := [row.name for row in rows if row.strategy != "separate"]:
            raise InputError(f"{others[0]} trains a backbone; only separate rows can start from an existing model")
        if others := [row.name for row in rows if started.baseline not in (row.baseline, "foreign")]:
            raise InputError(
                f"{others[0]} cannot start from {started.name}, whose baseline is {started.baseline}; choose rows of "
                f"{started.baseline}"
            )
        budget = replace(budget, input=started.input)
    held = hold_out(data, held_out) if held_out else None
    tell = progress or (lambda *_: None)

    @lru_cache(maxsize=1)
    def pictures(convention: InputConvention) -> tuple[PersonPictures, ...]:
        """Training pictures, queries, gallery, and the two sides of validation; of one size at a time."""

        def load(source: Dataset, split: Literal["train", "query", "gallery"]) -> PersonPictures:
            return source.load(split, convention, lambda done, total: tell(f"reading {split}", done, total))

        people, query, gallery = load(held or data, "train"), load(data, "query"), load(data, "gallery")
        validation = (load(held, "query"), load(held, "gallery")) if held else (query, gallery)
        return people, query, gallery, *validation

    if not _has_match(data):
        raise InputError(f"{data.source}: no query has a match from another camera, so nothing could be scored")
    trained_on = (held or data).counts("train")
    described = f"{trained_on.pictures} pictures of {trained_on.people} people of {data.source}"[:2000]

    def recipe_of(row: Row, seed: int) -> Recipe:
        below = start
        if row.strategy == "separate" and start is None:
            below = _folder(work, _plain_of(row), seed) / "model"
        return Recipe(budget.config(row), (budget.plan(row.strategy, row.method, seed),), below, pretrained)

    def scores_of(row: Row, seed: int) -> dict[str, RankingScores]:
        """Reads the scores from `work`. Raises CoreError where they belong to another recipe."""
        folder = _folder(work, row, seed)
        card = read_card(folder / "model")
        if (card.details, card.trained_on) != (recipe_of(row, seed).details(), described):
            raise CoreError(
                f"{folder}: made with other settings, weights or pictures; choose another folder or remove it"
            )
        return _read(folder / SCORES)

    def trained(row: Row, seed: int) -> dict[str, RankingScores]:
        folder, label = _folder(work, row, seed), f"{row.name}, seed {seed}"
        if row.strategy == "separate" and start is None:
            trained(_plain_of(row), seed)
        if not (folder / SCORES).exists():
            people, query, gallery, *validation = pictures(budget.config(row).input)
            make_model(
                recipe_of(row, seed),
                people,
                (validation[0], validation[1]),
                folder,
                folder / "model",
                settings,
                name=row_key(row).replace("+", "-").replace(":", "-"),
                trained_on=described,
                progress=lambda what, done, total: tell(f"{label}: {what}", done, total),
            )
            found = evaluate(
                settings,
                folder / "model",
                query,
                gallery,
                progress=lambda what, done, total: tell(f"{label}: {what}", done, total),
            )
            _write(folder / SCORES, found)
        return scores_of(row, seed)

    made = [[trained(row, seed) for seed in range(seeds)] for row in rows]
    found = []
    for row, scores in zip(rows, made, strict=True):
        distances = "attended" if row.diff_attention else "plain"
        own, feature = (tuple(one[name] for one in scores) for name in (distances, "plain"))
        below = _plain_of(row)
        if start is not None:
            plain = feature
        elif all((_folder(work, below, seed) / SCORES).exists() for seed in range(seeds)):
            plain = tuple(scores_of(below, seed)["plain"] for seed in range(seeds))
        else:
            plain = ()
        found.append(Reproduced(row, own, feature, plain, started))
    return found


def _has_match(data: Dataset) -> bool:
    seen: dict[int, set[int]] = {}
    for sample in data.gallery:
        seen.setdefault(sample.identity, set()).add(sample.camera)
    return any(one.identity != JUNK and seen.get(one.identity, set()) - {one.camera} for one in data.query)


def _plain_of(row: Row) -> Row:
    plain = (other for other in (*TABLE_1, *TABLE_3) if other.strategy == "plain")
    return next(other for other in plain if other.method == row.method)


def _folder(work: Path, row: Row, seed: int) -> Path:
    return work / row_key(row) / f"seed-{seed}"


def _write(path: Path, scores: Mapping[str, RankingScores]) -> None:
    kept = {}
    for name, found in scores.items():
        assert found.by_query is not None
        columns = {column: values.tolist() for column, values in vars(found.by_query).items()}
        kept[name] = {metric: getattr(found, metric) for metric in (*METRICS, "queries", "skipped")} | columns
    write_whole(path, json.dumps(kept) + "\n")


def _read(path: Path) -> dict[str, RankingScores]:
    columns = [field.name for field in fields(QueryScores)]
    found = {}
    saved: Any = current_names(json.loads(path.read_text(encoding="utf-8")))
    for name, kept in saved.items():
        by_query = QueryScores(**{column: np.array(kept.pop(column)) for column in columns})
        found[name] = RankingScores(**{**kept, "skipped": tuple(kept["skipped"])}, by_query=by_query)
    return found
