"""urban-reid models: which embedder sees the crops."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE

from schemas.parameters import ApprovalParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, ColorOrder, Mean, Operator, Reason, Std, ValueRange, checked, input_convention
from urban_reid.commands import convert, export, promotion
from urban_reid.commands.promotion import figures
from urban_reid.earlier_names import Command
from urban_reid.output import Table, out, print_json, shown
from urban_reid.progress import steps

if TYPE_CHECKING:
    from pipeline.calibration.fit import Fitted

app = typer.Typer(help="The models that turn a picture into a feature.", no_args_is_help=True)
app.add_typer(promotion.app)
app.add_typer(export.app)
app.add_typer(convert.app)


@app.command("list", epilog="Example: urban-reid models list")
def list_(as_json: AsJson = False) -> None:
    """List the registered models, and how each did against the one in use."""
    from pipeline.registry import models
    from pipeline.store import Store
    from pipeline.training.comparison import read_comparison

    with Store.open(settings(), "urban-reid models") as store:
        rows = models(store)
        used = next((row for row in rows if row.in_use), None)
        with store.begin() as connection:
            compared = {
                row.name: found
                for row in rows
                if used is not None and not row.in_use and (found := read_comparison(connection, row, used))
            }
    if as_json:
        print_json(
            {
                "models": [
                    {
                        "name": row.name,
                        "in_use": row.in_use,
                        "dims": row.dims,
                        "card": row.card.model_dump(mode="json"),
                        "comparison": figures(compared[row.name]) if row.name in compared else None,
                    }
                    for row in rows
                ]
            }
        )
        return
    # What it was trained on takes many words: --json has the whole card.
    table = Table("name", "in use", "architecture", "input", "diff attention", "mAP", box=SIMPLE, padding=(0, 1))
    for row in rows:
        card = row.card
        found = compared.get(row.name)
        table.add_row(
            shown(row.name),
            "yes" if row.in_use else "",
            shown(card.architecture if card.engine == "torch" else card.engine),
            f"{card.input.height}x{card.input.width} {card.input.color}",
            card.diff_attention.transform if card.diff_attention else "",
            f"{found.metrics['mAP']:.1f} ({found.difference['mAP']:+.1f})" if found else "",
        )
    out().print(table if rows else "no model is registered; `urban-reid models register NAME FILE` takes one")
    if compared and used is not None:
        out().print(f"mAP: in percent, and the difference to {shown(used.name)} on the same held-out people")


@app.command(epilog="Example: urban-reid models register 0277 person-reidentification-retail-0277.xml --color bgr")
def register(
    name: Annotated[str, typer.Argument(help="What it is called from now on.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A model directory, OpenVINO .xml or .onnx file.")],
    color: ColorOrder = None,
    value_range: ValueRange = None,
    mean: Mean = None,
    std: Std = None,
    as_json: AsJson = False,
) -> None:
    """Copy a model into this data directory. An .xml or .onnx file needs its input convention."""
    from pipeline.registry import register_model
    from pipeline.store import Store

    convention = input_convention(color, value_range, mean, std)
    with Store.open(settings(), "urban-reid models") as store:
        model_id = register_model(store, settings(), file, name, convention)
    if as_json:
        print_json({"id": model_id, "name": name})
    else:
        out().print(f"registered as {shown(name)}; `urban-reid models use {shown(name)}` puts it to work")


@app.command(epilog="Example: urban-reid models calibrate 0277 --dataset market1501:Market-1501")
def calibrate(
    name: Annotated[str, typer.Argument(help="A registered model.")],
    dataset: Annotated[
        str,
        typer.Option(
            metavar="rendered:SEEDS|simulated:SEEDS|market1501:DIR", help="Labeled data of people met nowhere else."
        ),
    ],
    false_merges: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", min=0, max=1, help="At most this share of the joins may be wrong; 0.05 by itself."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Learn from labeled data what a distance means at each level, and where to join. Takes minutes."""
    from pipeline.calibration.fit import MAX_FALSE_MERGE_RATE, write_calibrations
    from pipeline.calibration.fit import calibrate as fit
    from pipeline.registry import find_model
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid models calibrate") as store:
        with store.begin() as connection:
            model = find_model(connection, name)
        most = MAX_FALSE_MERGE_RATE if false_merges is None else false_merges
        directory = model.directory(settings())
        with steps() as begin:
            fitted = fit(settings(), directory, dataset, begin, max_false_merge_rate=most)
        write_calibrations(store, model.id, fitted)
    if as_json:
        print_json(
            {
                "false_merges": most,
                "levels": {fit.level.value: fit.model_dump(mode="json") for fit in fitted.levels},
                "pairwise_f1": {level.value: f1 for level, f1 in fitted.pairwise_f1.items()},
            }
        )
        return
    out().print(calibration_table(fitted))
    out().print(
        "same: pairs of one person. joins from: log-odds; a band below it is for review. F1: of pairs, on this data. "
        "ECE: expected calibration error on people kept out of the fit, of all pairs and below it of those with a "
        "probability of 0.05-0.95. "
        "false merges: of the joins made, with the 95% interval"
    )
    over = [level.level for level in fitted.levels if level.false_merges and level.false_merges.rate > most]
    if over:
        out().print(
            f"{', '.join(over)}: no operating point keeps the false merges at {most:.1%}, so the least was taken"
        )


def calibration_table(fitted: "Fitted") -> Table:
    """One row a level; fits into 80 columns."""
    table = Table("level", "pairs", "same", "joins from", "F1", "ECE", "false merges", box=SIMPLE, padding=(0, 1))
    for level in fitted.levels:
        f1, wrong = fitted.pairwise_f1.get(level.level), level.false_merges
        judged = (level.reliability.shortlist, level.reliability.middle) if level.reliability else ()
        table.add_row(
            level.level,
            str(level.pairs),
            str(level.positives),
            f"{level.join_log_odds:+.1f}",
            "" if f1 is None else f"{f1:.3f}",
            "\n".join(f"{part.ece:.3f}" for part in judged if part.pairs),
            f"{wrong.rate:.1%} ({wrong.low:.1%}-{wrong.high:.1%})\n{wrong.wrong} of {wrong.joins}"
            if wrong and wrong.joins
            else "",
        )
    return table


@app.command(cls=Command, epilog='Example: urban-reid models transit 0277 --reason "a first week of joins"')
def transit(
    name: Annotated[str, typer.Argument(help="A registered model with a calibration.")],
    reason: Reason,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Learn from the city's own joins how long people take from unit to unit, as a new calibration.

    Everything resolved with the model is then looked at again by the next resolve.
    """
    from pipeline.calibration.transit_times import learn_transit_times
    from pipeline.registry import find_model
    from pipeline.store import Store

    words = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    with Store.open(settings(), "urban-reid models transit") as store:
        with store.begin() as connection:
            model = find_model(connection, name)
        found = learn_transit_times(store, model, words.operator, words.reason)
    if as_json:
        print_json({level.value: times.model_dump(mode="json") for level, times in found.items()})
        return
    table = Table("level", "joins learned from", "share found wrong", "routes of their own")
    for level, times in found.items():
        table.add_row(level, f"{times.joins:.0f}", f"{times.wrong_share:.1%}", str(len(times.routes)))
    out().print(table)


@app.command(epilog="Example: urban-reid models use demo")
def use(name: Annotated[str, typer.Argument(help="A registered model.")], as_json: AsJson = False) -> None:
    """Take a first model into use. Where crops are resolved already, `models promote` is the way to another one."""
    from pipeline.registry import use_model
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid models") as store:
        row = use_model(store, name)
    if as_json:
        print_json({"name": row.name, "dims": row.dims})
    else:
        out().print(f"{shown(row.name)} is in use")
