"""The paper's tables trained and evaluated here, row by row and seed by seed (paper, tables 1 and 2).

Everything is kept in one folder, so that an interrupted call goes on and a finished one only reads:

    WORK/bagtricks+joint/seed-0/model            the model directory
                               /scores.json      what it scored on the data set's queries, query by query
                               /1-joint          checkpoint, log and curves of its training
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np

from reid_core.datasets import Dataset, hold_out
from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.evaluation.evaluate import evaluate
from reid_core.evaluation.ranking import METRICS, QueryScores, RankingScores
from reid_core.files import read_card
from reid_core.training.paper import TABLE_1, TABLE_2, Figures, Row, figures_on
from reid_core.training.plans import Strategy, TrainSettings, TripletDistance, paper_settings
from reid_core.training.recipe import Recipe, make_model
from schemas.cards import InputConvention, ModelCard, ModelConfig
from schemas.disk import write_whole
from schemas.errors import CoreError, InputError
from schemas.settings import Settings

SCORES = "scores.json"
TABLES: Mapping[str, tuple[Row, ...]] = {"table1": TABLE_1, "table2": TABLE_2}

#: Hears what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Budget:
    """What a table is trained with. What it does not name is the paper's.

    rates: learning rate of each strategy; epochs: of each, with warm-up and decay at the paper's shares.
    milestones: shares of the epochs at which the rate falls in plain and joint training, where not the paper's.
    module_start: of joint training (docs/experiments.md, 13); cached_views: of separate training.
    triplet_distance: of all strategies.
    """

    architecture: str
    input: InputConvention
    rates: Mapping[Strategy, float]
    epochs: Mapping[Strategy, int]
    milestones: tuple[float, ...] | None = None
    module_start: float = 0.0
    cached_views: int = 0
    triplet_distance: TripletDistance = "training"

    def plan(self, strategy: Strategy, baseline: Literal["bagtricks", "agw"], seed: int) -> TrainSettings:
        plan = paper_settings(strategy, baseline)
        return replace(
            plan,
            epochs=self.epochs[strategy],
            learning_rate=self.rates[strategy],
            milestones=plan.milestones if strategy == "separate" or self.milestones is None else self.milestones,
            module_start=self.module_start if strategy == "joint" else 0.0,
            triplet_distance=self.triplet_distance,
            cached_views=self.cached_views if strategy == "separate" else 0,
            validate_every=max(1, self.epochs[strategy] // 5),
            seed=seed,
        )


#: The paper's recipe, for a GPU.
FULL = Budget(
    "resnet50",
    InputConvention(),
    rates={"plain": 3.5e-4, "joint": 3.5e-4, "separate": 0.05},
    epochs={"plain": 120, "joint": 120, "separate": 60},
)
#: What two CPU cores do in an afternoon. Rates and epochs were chosen on people held out of training
#: (docs/experiments.md).
CPU = Budget(
    "mobilenet_v2",
    InputConvention(height=128, width=64),
    rates={"plain": 1e-3, "joint": 1e-3, "separate": 5e-4},
    epochs={"plain": 12, "joint": 12, "separate": 10},
    milestones=(0.6, 0.85),
    module_start=0.6,
    cached_views=4,
)
BUDGETS: Mapping[str, Budget] = {"full": FULL, "cpu": CPU}


def row_key(row: Row) -> str:
    """A row's name on the command line and in the folder: `agw`, `agw+joint`, `agw+separate`, `agw+separate:sub`."""
    if row.diff_attention is None:
        return row.baseline
    transform = row.diff_attention.transform
    return f"{row.baseline}+{row.strategy}" + ("" if transform == "sub_abs" else f":{transform}")


def chosen_rows(table: str, keys: Sequence[str] | None) -> list[Row]:
    """The rows of `table1` or `table2` with these keys, all if None. Raises InputError naming the keys there are."""
    rows = {row_key(row): row for row in TABLES[table]}
    if unknown := [key for key in keys or () if key not in rows]:
        raise InputError(f"{table} has no row {unknown[0][:40]!r}; there are {', '.join(rows)}")
    return [rows[key] for key in keys or rows]


@dataclass(frozen=True)
class Reproduced:
    """What a row scored, one evaluation a seed.

    scores: by attended distances where the row has diff attention, else by plain ones.
    feature: by plain distances of the same feature.
    plain: of the plain row of its baseline with the same seeds, or of the model that it goes on from; empty where
        that was not trained.
    start: the card of the model that it goes on from instead of a plain row.
    """

    row: Row
    scores: tuple[RankingScores, ...]
    feature: tuple[RankingScores, ...]
    plain: tuple[RankingScores, ...]
    start: ModelCard | None = None

    @property
    def name(self) -> str:
        """The row's, and the model that it goes on from."""
        return self.row.name + ("" if self.start is None else f", on {self.start.name}")

    def paper(self, dataset: str) -> Figures | None:
        """The paper's figures on a published data set; of a foreign embedder it has none."""
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
    """Trains and evaluates each row with seeds 0 to `seeds` - 1; see the module for what `work` holds.

    Separate training goes on from the plain row of its baseline and seed, which is trained too where it is missing.
    `held_out`: people kept out of training, on whom its course is watched; 0: it is watched on the data set's own
    queries, and nothing may be chosen by that. `start`: the directory of a model, a foreign one too, that separate
    rows go on from instead of a plain row; its input is the model's. A torch model is of the rows' baseline. Raises
    what training and evaluation raise, InputError for a row that cannot go on from `start`, and CoreError where `work`
    holds runs of another budget.
    """
    started = None if start is None else read_card(start)
    if started is not None:
        if others := [row.name for row in rows if row.strategy != "separate"]:
            raise InputError(f"{others[0]} trains a backbone; only separate rows go on from a model that is there")
        if others := [row.name for row in rows if started.baseline not in (row.baseline, "foreign")]:
            raise InputError(
                f"{others[0]} does not go on from {started.name}, whose baseline is {started.baseline}; choose "
                f"rows of {started.baseline}"
            )
        budget = replace(budget, input=started.input)
    held = hold_out(data, held_out) if held_out else None
    tell = progress or (lambda *_: None)

    def load(source: Dataset, split: Literal["train", "query", "gallery"]) -> PersonPictures:
        return source.load(split, budget.input, lambda done, total: tell(f"reading {split}", done, total))

    people = load(held or data, "train")
    query, gallery = load(data, "query"), load(data, "gallery")
    validation = (load(held, "query"), load(held, "gallery")) if held else (query, gallery)

    if not _has_match(query, gallery):
        raise InputError(f"{data.source}: no query has a match before another camera, so nothing could be scored")
    described = f"{len(people)} pictures of {len(set(people.identities.tolist()))} people of {data.source}"[:2000]

    def recipe_of(row: Row, seed: int) -> Recipe:
        below = start
        if row.strategy == "separate" and start is None:
            below = _folder(work, _plain_of(row), seed) / "model"
        config = ModelConfig(
            architecture=budget.architecture,
            baseline=row.baseline,
            input=budget.input,
            diff_attention=row.diff_attention,
        )
        return Recipe(config, (budget.plan(row.strategy, row.baseline, seed),), below, pretrained)

    def scores_of(row: Row, seed: int) -> dict[str, RankingScores]:
        """Those that are kept; raises CoreError where they are of another recipe."""
        folder = _folder(work, row, seed)
        card = read_card(folder / "model")
        if (card.details, card.trained_on) != (recipe_of(row, seed).details(), described):
            raise CoreError(
                f"{folder}: made from other settings, weights or pictures; choose another folder or remove it"
            )
        return _read(folder / SCORES)

    def trained(row: Row, seed: int) -> dict[str, RankingScores]:
        folder, label = _folder(work, row, seed), f"{row.name}, seed {seed}"
        if row.strategy == "separate" and start is None:
            trained(_plain_of(row), seed)
        if not (folder / SCORES).exists():
            make_model(
                recipe_of(row, seed),
                people,
                validation,
                folder,
                folder / "model",
                settings,
                name=row_key(row).replace("+", "-").replace(":", "-"),
                trained_on=described,
                progress=lambda done, total: tell(label, done, total),
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


def _has_match(query: PersonPictures, gallery: PersonPictures) -> bool:
    seen: dict[int, set[int]] = {}
    for identity, camera in zip(gallery.identities.tolist(), gallery.cameras.tolist(), strict=True):
        seen.setdefault(identity, set()).add(camera)
    asked = zip(query.identities.tolist(), query.cameras.tolist(), strict=True)
    return any(identity != JUNK and seen.get(identity, set()) - {camera} for identity, camera in asked)


def _plain_of(row: Row) -> Row:
    return next(other for other in TABLE_1 if other.baseline == row.baseline and other.strategy == "plain")


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
    for name, kept in json.loads(path.read_text(encoding="utf-8")).items():
        by_query = QueryScores(**{column: np.array(kept.pop(column)) for column in columns})
        found[name] = RankingScores(**{**kept, "skipped": tuple(kept["skipped"])}, by_query=by_query)
    return found
