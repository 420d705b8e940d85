"""urban-reid evaluate: measures how well a model ranks the pictures of a labeled data set."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from schemas.cards import ModelCard, OperatingPoint
from schemas.errors import InputError, UsageError
from schemas.settings import settings
from urban_reid.arguments import AsJson, ColorOrder, Mean, Size, Std, ValueRange, input_convention, model_at
from urban_reid.output import Table, out, print_json
from urban_reid.progress import stages

if TYPE_CHECKING:
    from reid_core.datasets import Dataset
    from reid_core.evaluation.ranking import RankingScores
    from reid_core.feature_space import Basis
    from reid_core.training.paper import Figures

app = typer.Typer()

#: Skipped identities that are listed; the others are counted.
_NAMED = 10


@app.command(epilog="Example: urban-reid evaluate --model demo --dataset market1501:Market-1501 --pairs top100")
def evaluate(
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="A registered model, a model directory, an .xml or .onnx file.")
    ],
    dataset: Annotated[
        str, typer.Option(metavar="LAYOUT:DIR", help="The data set with query and gallery, such as market1501:DIR.")
    ],
    pairs: Annotated[
        str, typer.Option(metavar="all|topK", help="Diff attention on all pairs, or on each query's K nearest.")
    ] = "all",
    rerank: Annotated[bool, typer.Option("--rerank", help="Also evaluate with k-reciprocal re-ranking.")] = False,
    flip: Annotated[
        bool, typer.Option("--flip", help="Use the mean feature of each picture and its mirror image.")
    ] = False,
    normalize: Annotated[
        Literal["cameras"] | None, typer.Option(help="Also rank with each camera's mean taken off; needs no label.")
    ] = None,
    basis: Annotated[
        str | None,
        typer.Option(
            metavar="train|NAME|DIR",
            help="Also rank in a basis: of the data set's training people, or of the feature space in a folder.",
        ),
    ] = None,
    fpr: Annotated[float, typer.Option(min=0, max=1, help="False positive rate of the operating point.")] = 1e-3,
    store: Annotated[bool, typer.Option("--store", help="Write the operating point into the model's card.")] = False,
    color: ColorOrder = None,
    value_range: ValueRange = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    as_json: AsJson = False,
) -> None:
    """Rank a data set's gallery for each query: Rank-k, mAP, mINP, TPR at FPR, and an operating point.

    Figures are in percent. An .xml or .onnx file needs its input convention. --basis counts on top of --normalize.
    """
    top = _top(pairs)
    convention = input_convention(color, value_range, mean, std, size)
    if store and flip:
        raise UsageError("--store: omit --flip, whose features the city does not use")
    if not 0 < fpr < 1:
        raise UsageError("--fpr: a rate between 0 and 1, such as 0.001")
    place = model_at(model)
    if store and place.is_file():
        raise UsageError("--store: a file has no card; register it with `urban-reid models register NAME FILE` first")
    given = None if basis in (None, "train") else _basis_of(model_at(basis))
    from reid_core.datasets import open_dataset
    from reid_core.datasets.person_pictures import JUNK, PersonPictures
    from reid_core.evaluation import evaluate as core
    from reid_core.evaluation.verification import operating_point
    from reid_core.files import read_card, write_card

    with core.model_directory(place, convention, settings()) as directory, stages() as tell:
        card = read_card(directory)
        people = open_dataset(dataset, progress=lambda done, total: tell("drawing pictures", done, total))
        if not people.query or not people.gallery:
            raise InputError(
                f"{dataset}: {len(people.query)} queries and {len(people.gallery)} gallery pictures; both are needed"
            )
        query = people.load("query", card.input, lambda done, total: tell("reading queries", done, total))
        gallery = people.load("gallery", card.input, lambda done, total: tell("reading gallery", done, total))
        taught: PersonPictures | Basis | None = given
        if basis == "train":
            taught = people.load("train", card.input, lambda done, total: tell("reading training people", done, total))
        scores = core.evaluate(
            settings(),
            directory,
            query,
            gallery,
            normalize=normalize is not None,
            basis=taught,
            top=top,
            rerank=rerank,
            flip=flip,
            progress=tell,
        )
        if not scores["plain"].queries:
            raise InputError(f"{dataset}: no query has a match at another camera, so there is nothing to rank")
        points = {
            name: operating_point(found.pairs, name, people.source, fpr)
            for name, found in scores.items()
            if name in ("plain", "attended") and found.pairs is not None
        }
        # The city compares by diff attention where a model has it.
        point = points.get("attended" if card.diff_attention else "plain")
        if store:
            if point is None:
                raise InputError(_no_point(fpr))
            write_card(card.model_copy(update={"operating_point": point}), directory)
    evaluated = Evaluated(card, people, int((gallery.identities != JUNK).sum()), scores, points, point, store)
    if as_json:
        print_json(_as_json(evaluated))
    else:
        _show(evaluated, fpr)


@dataclass(frozen=True)
class Evaluated:
    """What the command found. Scores are in the order of `rank_features`; the last are the headline figures."""

    card: ModelCard
    people: "Dataset"
    gallery: int  # pictures without junk
    scores: "Mapping[str, RankingScores]"
    points: Mapping[str, OperatingPoint | None]
    point: OperatingPoint | None  # of the distances that the city compares by
    stored: bool

    @property
    def headline(self) -> "RankingScores":
        return list(self.scores.values())[-1]

    def paper(self, distances: str) -> "tuple[str, Figures] | None":
        """Name and figures of the paper's row for these distances, if the data set is one of the paper's."""
        from reid_core.training.paper import figures_on, row_of

        row = row_of(self.card, distances)
        figures = figures_on(row, self.people.published.name) if row and self.people.published else None
        return (row.name, figures) if row and figures else None


def _basis_of(folder: Path) -> "Basis":
    from reid_core.feature_space import FeatureSpace

    found = FeatureSpace.open(folder).basis
    if found is None:
        raise InputError(f"{folder}: this feature space has no basis")
    return found


def _top(pairs: str) -> int | None:
    found = re.fullmatch(r"all|top([1-9]\d{0,6})", pairs)
    if found is None:
        raise UsageError(f"--pairs {pairs[:40]!r}: write all, or topK with a number, such as top100")
    return int(found[1]) if found[1] else None


def _no_point(fpr: float) -> str:
    return (
        f"no threshold for a false positive rate of {fpr:g}: that needs the distances of all pairs, and at least five "
        "false positives in each half of the people; use --pairs all, a larger data set or a larger --fpr"
    )


def _figures(scores: "RankingScores") -> dict[str, float]:
    return {
        "rank1": scores.rank1,
        "rank5": scores.rank5,
        "rank10": scores.rank10,
        "mAP": scores.mAP,
        "mINP": scores.mINP,
    }


def _as_json(found: Evaluated) -> dict[str, Any]:
    from reid_core.evaluation.verification import calibration_curve, tpr_at_fpr

    rows: dict[str, dict[str, Any]] = {}
    for name, scores in found.scores.items():
        rows[name] = dict(_figures(scores))
        if paper := found.paper(name):
            label, figures = paper
            rows[name]["paper"] = {"row": label, "rank1": figures.rank1, "mAP": figures.mAP, "mINP": figures.mINP}
        if scores.pairs is not None:
            rates = tpr_at_fpr(scores.pairs.counts.sum(0))
            rows[name]["tpr_at_fpr"] = {f"{fpr:g}": rate._asdict() for fpr, rate in rates.items()}
            point, curve = found.points.get(name), calibration_curve(scores.pairs)
            rows[name]["operating_point"] = point and point.model_dump(mode="json")
            rows[name]["calibration"] = curve and {
                "slope": curve.slope,
                "intercept": curve.intercept,
                "ece": curve.ece,
                "predicted": curve.predicted.tolist(),
                "observed": curve.observed.tolist(),
            }
    return {
        **_figures(found.headline),
        "queries": found.headline.queries,
        "gallery": found.gallery,
        "skipped": len(found.headline.skipped),
        "skipped_identities": sorted(set(found.headline.skipped)),
        "distances": list(found.scores)[-1],
        "model": found.card.name,
        "dataset": found.people.source,
        "rows": rows,
        "operating_point": found.point and found.point.model_dump(mode="json"),
        "stored": found.stored,
    }


def _show(found: Evaluated, fpr: float) -> None:
    from reid_core.evaluation.verification import calibration_curve, tpr_at_fpr

    table = Table("distances", "Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")
    for name, scores in found.scores.items():
        table.add_row(name, *(f"{value:.1f}" for value in _figures(scores).values()))
        if paper := found.paper(name):
            label, figures = paper
            least = "" if figures.mINP is None else f"{figures.mINP:.1f}"
            table.add_row(f"paper: {label}", f"{figures.rank1:.1f}", "", "", f"{figures.mAP:.1f}", least)
    out().print(table)
    out().print(
        f"{found.headline.queries} queries, {found.gallery} pictures in the gallery; {_skipped(found.headline)}"
    )
    rates = {
        name: tpr_at_fpr(scores.pairs.counts.sum(0))
        for name, scores in found.scores.items()
        if scores.pairs is not None
    }
    stated = sorted({rate for one in rates.values() for rate in one}, reverse=True)
    if stated:
        table = Table("distances", *(f"TPR at FPR {rate:g}" for rate in stated), "calibration error")
        for name, one in rates.items():
            pairs = found.scores[name].pairs
            curve = calibration_curve(pairs) if pairs is not None else None
            shares = [f"{100 * one[rate].tpr:.1f}" if rate in one else "" for rate in stated]
            table.add_row(name, *shares, f"{100 * curve.ece:.1f}" if curve else "")
        out().print(table)
    point = found.point
    if point is None:
        out().print(_no_point(fpr))
        return
    kept = "written to the model's card" if found.stored else "--store writes it to the model's card"
    out().print(
        f"operating point for FPR {point.asked_fpr:g}: {point.distances} distance {point.threshold:.3f}; set on one "
        f"half of the people, on the other FPR {point.fpr:.2g} and TPR {100 * point.tpr:.1f}; {kept}"
    )


def _skipped(scores: "RankingScores") -> str:
    if not scores.skipped:
        return "no query skipped"
    people = Counter(scores.skipped)
    named = ", ".join(str(identity) for identity in sorted(people)[:_NAMED])
    more = f" and {len(people) - _NAMED} more" if len(people) > _NAMED else ""
    return f"{len(scores.skipped)} queries skipped because the gallery has no match: identities {named}{more}"
