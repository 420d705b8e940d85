"""urban-reid reproduce: trains and evaluates rows of the paper's tables."""

from contextlib import nullcontext
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from schemas.errors import InputError, UsageError
from schemas.settings import settings
from urban_reid.arguments import AsJson, ColorOrder, Mean, Size, Std, TripletDistance, ValueRange, input_convention
from urban_reid.earlier_names import Command
from urban_reid.output import Table, out, print_json, shown
from urban_reid.progress import stages

if TYPE_CHECKING:
    from reid_core.evaluation.ranking import Difference
    from reid_core.training.paper import Figures
    from reid_core.training.reproduce import Reproduced

app = typer.Typer()

_METRICS = {"Rank-1": "rank1", "mAP": "mAP", "mINP": "mINP"}


class PaperTable(StrEnum):
    TABLE1 = "table1"
    TABLE2 = "table2"
    TABLE3 = "table3"


class BudgetName(StrEnum):
    FULL = "full"
    CPU = "cpu"


@app.command(
    cls=Command,
    epilog="Example: urban-reid reproduce table1 --dataset cuhk03:CUHK03 --rows bagtricks,bagtricks+joint --seeds 3",
)
def reproduce(
    table: Annotated[
        PaperTable,
        typer.Argument(
            help="table1: two baselines, three strategies. table2: the transforms. table3: other methods (the paper's "
            "tables 3 to 5), with diff attention on top."
        ),
    ],
    dataset: Annotated[
        str, typer.Option(metavar="LAYOUT:DIR", help="The data set to train and evaluate on, such as cuhk03:DIR.")
    ],
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="ROW,ROW",
            help="Such as bagtricks,agw+joint, in table2 agw+separate:sub, in table3 pcb,mgn+joint; all unless given.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Each row is trained with seeds 0 to N - 1.")] = 1,
    budget: Annotated[
        BudgetName,
        typer.Option(help="full: the paper's recipe, for a GPU. cpu: a small backbone and input, few epochs."),
    ] = BudgetName.FULL,
    architecture: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The backbone instead of the budget's: built in, timm:NAME or your own."),
    ] = None,
    triplet_distance: Annotated[
        TripletDistance,
        typer.Option(
            help="Distance of the triplet loss. training: the paper's. test: the one the model is evaluated by."
        ),
    ] = TripletDistance.TRAINING,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Epochs of each training instead of the budget's.")
    ] = None,
    pretrained: Annotated[
        str, typer.Option(metavar="imagenet|FILE|none", help="First weights of the backbone; FILE is safetensors.")
    ] = "imagenet",
    hold_out: Annotated[
        int, typer.Option(min=0, metavar="N", help="People kept out of training, to evaluate on during it.")
    ] = 0,
    start_from: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Separate rows start from this model directory, .xml or .onnx file."),
    ] = None,
    color: ColorOrder = None,
    value_range: ValueRange = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    work: Annotated[
        Path, typer.Option(metavar="DIR", help="Keeps checkpoints and results; the same command continues there.")
    ] = Path("reproduction"),
    beside: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="--work of another data set, drawn beside this one; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train and evaluate rows of the paper's tables: paper, ours, difference, and the gain over the plain row.

    After an interruption the same command continues. Gains have a 95 % bootstrap interval over people. Rows of
    transforms are drawn as bars by data set into --work: figure4.png for BagTricks, figure5.png for AGW.
    """
    from reid_core.datasets import open_dataset
    from reid_core.evaluation.evaluate import model_directory
    from reid_core.models import refuse_config
    from reid_core.serving.devices import choose_device
    from reid_core.training.figures import draw_figures, remember, results_of
    from reid_core.training.reproduce import BUDGETS, chosen_rows
    from reid_core.training.reproduce import reproduce as run

    chosen = chosen_rows(table, None if rows is None else [key.strip() for key in rows.split(",")])
    budgeted = replace(BUDGETS[budget], triplet_distance=triplet_distance.value)
    if epochs is not None:
        budgeted = replace(budgeted, epochs=dict.fromkeys(("plain", "joint", "separate"), epochs))
    if architecture is not None:
        if start_from is not None:
            raise UsageError("--architecture: the model of --start-from has a backbone; give one of the two")
        budgeted = replace(budgeted, architecture=architecture, architectures={})
    for row in () if start_from is not None else chosen:
        refuse_config(budgeted.config(row))
    for other in beside or ():
        results_of(other)
    weights = _weights(pretrained)
    choose_device(settings())  # raises for a missing device before anything is read
    data = open_dataset(dataset)
    if not (data.train and data.query and data.gallery):
        raise InputError(f"{dataset}: training pictures, queries and a gallery are needed")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--work {work}: no folder can be made there: {error.strerror}") from None
    convention = input_convention(color, value_range, mean, std, size)
    if start_from is None and convention is not None:
        raise UsageError("--color, --range, --mean and --std describe the file of --start-from")
    opened = nullcontext(None) if start_from is None else model_directory(start_from, convention, settings())
    with opened as below, stages() as tell:
        found = run(
            chosen,
            data,
            budgeted,
            work,
            settings(),
            seeds=seeds,
            pretrained=weights,
            held_out=hold_out,
            start=below,
            progress=tell,
        )
    published = data.published.name if data.published else None
    remember(work, published or Path(data.source).name, published, found)
    drawn = draw_figures([work, *(beside or ())], work)
    if as_json:
        print_json(
            {
                "dataset": data.source,
                "budget": budget,
                "architecture": ", ".join(dict.fromkeys(budgeted.config(row).architecture for row in chosen)),
                "triplet_distance": triplet_distance,
                "seeds": seeds,
                "figures": [str(path) for path in drawn],
                "rows": {_key(one): _as_json(one, published) for one in found},
            }
        )
    else:
        _show(found, published, seeds)
        for path in drawn:
            out().print(f"drawn: {shown(str(path))}")


def _weights(pretrained: str) -> "Path | Literal['imagenet'] | None":
    if pretrained in ("imagenet", "none"):
        return "imagenet" if pretrained == "imagenet" else None
    if not Path(pretrained).is_file():
        raise InputError(f"--pretrained {pretrained[:200]}: no such file; write imagenet, none, or a safetensors file")
    from reid_core.tensors import refuse_pickles

    refuse_pickles(Path(pretrained))
    return Path(pretrained)


def _key(found: "Reproduced") -> str:
    from reid_core.training.reproduce import row_key

    return row_key(found.row)


def _paper(found: "Reproduced", published: str | None) -> "Figures | None":
    return found.paper(published) if published else None


def _gain(found: "Reproduced") -> "dict[str, Difference] | None":
    """The gain over the plain row; None for the plain row itself."""
    from reid_core.evaluation.ranking import paired_bootstrap

    return paired_bootstrap(found.plain, found.scores) if found.plain and found.row.strategy != "plain" else None


def _as_json(found: "Reproduced", published: str | None) -> dict[str, Any]:
    from reid_core.evaluation.ranking import over_seeds

    paper, gain = _paper(found, published), _gain(found)
    return {
        "start_from": found.start and found.start.name,
        "ours": {name: spread._asdict() for name, spread in over_seeds(found.scores).items()},
        "plain_distance_of_its_feature": {name: spread._asdict() for name, spread in over_seeds(found.feature).items()},
        "paper": None if paper is None else {"rank1": paper.rank1, "mAP": paper.mAP, "mINP": paper.mINP},
        "gain_over_plain": None if gain is None else {name: one._asdict() for name, one in gain.items()},
        "queries": found.scores[0].queries,
    }


def _show(found: "list[Reproduced]", published: str | None, seeds: int) -> None:
    from reid_core.evaluation.ranking import over_seeds

    table = Table("row", *(f"{name}: ours" for name in _METRICS), "paper", "difference", "gain over plain, mAP (95 %)")
    for one in found:
        ours, paper, gain = over_seeds(one.scores), _paper(one, published), _gain(one)
        stated = [] if paper is None else [getattr(paper, field) for field in _METRICS.values()]
        means = [ours[field].mean for field in _METRICS.values()]
        pairs = [(theirs, ours) for theirs, ours in zip(stated, means, strict=False) if theirs is not None]
        table.add_row(
            shown(one.name),
            *(str(ours[field]) for field in _METRICS.values()),
            " / ".join(f"{theirs:.1f}" for theirs, _ in pairs),
            " / ".join(f"{mean - theirs:+.1f}" for theirs, mean in pairs),
            str(gain["mAP"]) if gain else "",
        )
    out().print(table)
    first = found[0].scores[0]
    known = published or "no data set of the paper"
    out().print(f"{first.queries} queries, {len(first.skipped)} skipped; {seeds} seeds; {known}; figures in percent")
