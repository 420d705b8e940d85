"""urban-reid models: which embedder sees the crops."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from schemas.cards import InputConvention
from schemas.errors import InputError, UsageError
from schemas.settings import settings
from urban_reid.arguments import AsJson, checked
from urban_reid.output import out, print_json, say, shown

app = typer.Typer(help="The models that turn a picture into a feature.", no_args_is_help=True)


class Color(StrEnum):
    RGB = "rgb"
    BGR = "bgr"


@app.command("list", epilog="Example: urban-reid models list")
def list_(as_json: AsJson = False) -> None:
    """List the registered models."""
    from pipeline.models import models
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid models") as store:
        rows = models(store)
    if as_json:
        print_json(
            {
                "models": [
                    {"name": row.name, "in_use": row.in_use, "dims": row.dims, "card": row.card.model_dump(mode="json")}
                    for row in rows
                ]
            }
        )
        return
    table = Table("name", "in use", "engine", "architecture", "dims", "input", "diff attention", "trained on")
    for row in rows:
        card = row.card
        table.add_row(
            shown(row.name),
            "yes" if row.in_use else "",
            card.engine,
            shown(card.architecture),
            str(row.dims),
            f"{card.input.height}x{card.input.width} {card.input.color}",
            card.diff_attention.transform if card.diff_attention else "",
            shown(card.trained_on),
        )
    out().print(table if rows else "no model is registered; `urban-reid models register NAME FILE` takes one")


@app.command(epilog="Example: urban-reid models register 0277 person-reidentification-retail-0277.xml --color bgr")
def register(
    name: Annotated[str, typer.Argument(help="What it is called from now on.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A model directory, OpenVINO .xml or .onnx file.")],
    color: Annotated[Color | None, typer.Option(help="Order of its channels.")] = None,
    value_range: Annotated[
        int | None, typer.Option("--range", metavar="255|1", help="Its pixels lie in 0..255 or 0..1.")
    ] = None,
    mean: Annotated[str | None, typer.Option(metavar="a,b,c", help="Taken off each channel.")] = None,
    std: Annotated[str | None, typer.Option(metavar="a,b,c", help="Each channel is divided by it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a model into this data directory. An .xml or .onnx file needs its input convention."""
    from pipeline.models import register_model
    from pipeline.store import Store

    given = {"color": color, "range": value_range, "mean": _three("mean", mean), "std": _three("std", std)}
    given = {field: value for field, value in given.items() if value is not None}
    convention = checked(InputConvention, {}, **given) if given else None
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
        str, typer.Option(metavar="market1501:DIR|rendered:SEEDS", help="Labelled data of people met nowhere else.")
    ],
    as_json: AsJson = False,
) -> None:
    """Learn from labelled data what a distance means at each level, and where to join. Takes minutes."""
    from pipeline.calibrate import calibrate as fit
    from pipeline.calibrate import write_calibrations
    from pipeline.models import models
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid models calibrate") as store:
        model = next((row for row in models(store) if row.name == name), None)
        if model is None:
            raise InputError(f"no model {name[:80]!r} is registered; `urban-reid models list` shows them")
        fitted = fit(settings(), model.directory(settings()), dataset, lambda line: say(shown(line)))
        write_calibrations(store, model.id, fitted)
    if as_json:
        print_json(
            {
                "levels": {fit.level.value: fit.model_dump(mode="json") for fit in fitted.levels},
                "pairwise_f1": {level.value: f1 for level, f1 in fitted.pairwise_f1.items()},
            }
        )
        return
    table = Table("level", "pairs", "of one person", "joins from", "reviews from", "pairwise F1 on this data")
    for level in fitted.levels:
        f1 = fitted.pairwise_f1.get(level.level)
        table.add_row(
            level.level,
            str(level.pairs),
            str(level.positives),
            f"log-odds {level.join_log_odds:+.2f}",
            f"log-odds {level.review_log_odds:+.2f}",
            "" if f1 is None else f"{f1:.3f}",
        )
    out().print(table)


@app.command(epilog="Example: urban-reid models use demo")
def use(name: Annotated[str, typer.Argument(help="A registered model.")], as_json: AsJson = False) -> None:
    """Make one model the one in use; the next resolve looks at everything again with it."""
    from pipeline.models import use_model
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid models") as store:
        row = use_model(store, name)
    if as_json:
        print_json({"name": row.name, "dims": row.dims})
    else:
        out().print(f"{shown(row.name)} is in use")


def _three(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise UsageError(f"--{option} {text[:40]!r}: write three numbers, such as 0.485,0.456,0.406")
    return numbers
