"""urban-reid models: the registered models, and which of them embeds the crops."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE

from schemas.errors import UsageError
from schemas.parameters import ApprovalParameters
from schemas.settings import settings
from urban_reid.arguments import (
    AsJson,
    ColorOrder,
    Mean,
    Operator,
    Reason,
    Size,
    Std,
    ValueRange,
    checked,
    input_convention,
)
from urban_reid.commands import catalog, convert, export, promotion, spaces
from urban_reid.commands.on_city import calibrate_on_city
from urban_reid.commands.promotion import figures
from urban_reid.earlier_names import Command
from urban_reid.output import Table, out, print_json, shown
from urban_reid.progress import steps

if TYPE_CHECKING:
    from pipeline.calibration.fit import Fitted

app = typer.Typer(help="The models that turn pictures into features.", no_args_is_help=True)
app.add_typer(catalog.app)
app.add_typer(spaces.app)
app.add_typer(promotion.app)
app.add_typer(export.app)
app.add_typer(convert.app)


@app.command("list", epilog="Example: urban-reid models list")
def list_(as_json: AsJson = False) -> None:
    """List the registered models, how each compares with the one in use, and this data directory's other models."""
    from pipeline.registry import models
    from pipeline.store import Store
    from pipeline.training.comparison import read_comparison
    from reid_core.attributes import attribute_models
    from reid_core.detection.files import HOG, default_detector, detector_names

    attributes = attribute_models(settings())
    detectors = [HOG, *detector_names(settings())]
    detector = default_detector(settings()) or HOG
    with Store.open(settings(), "urban-reid models") as store:
        rows = models(store)
        used = next((row for row in rows if row.in_use), None)
        with store.begin() as connection:
            compared = {
                row.name: found
                for row in rows
                if used is not None and not row.in_use and (found := read_comparison(connection, row, used))
            }
    names = {row.id: row.name for row in rows}
    bases = {row.name: names[row.base_id] for row in rows if row.base_id is not None}
    if as_json:
        print_json(
            {
                "models": [
                    {
                        "name": row.name,
                        "in_use": row.in_use,
                        "base": bases.get(row.name),
                        "dims": row.dims,
                        "card": row.card.model_dump(mode="json"),
                        "comparison": figures(compared[row.name]) if row.name in compared else None,
                    }
                    for row in rows
                ],
                "detectors": detectors,
                "default_detector": detector,
                "attributes": attributes,
            }
        )
        return
    # The description of the training data is too long for a table; --json prints the whole card.
    table = Table("name", "in use", "architecture", "input", "diff attention", "mAP", box=SIMPLE, padding=(0, 1))
    for row in rows:
        card = row.card
        found = compared.get(row.name)
        table.add_row(
            shown(row.name),
            "yes" if row.in_use else "",
            shown(f"space on {bases[row.name]}" if row.name in bases else card.architecture)
            if card.engine == "torch" or row.name in bases
            else shown(card.engine),
            f"{card.input.height}x{card.input.width} {card.input.color}",
            card.diff_attention.transform if card.diff_attention else "",
            f"{found.metrics['mAP']:.1f} ({found.difference['mAP']:+.1f})" if found else "",
        )
    out().print(
        table if rows else "no model is registered; `urban-reid models get NAME` or `models register NAME FILE`"
    )
    if compared and used is not None:
        out().print(f"mAP: in percent, with the difference to {shown(used.name)} on the same held-out people")
    marked = (f"{name} (default)" if name == detector else name for name in detectors)
    out().print(f"detectors: {shown(', '.join(marked))}")
    if attributes:
        out().print(f"for attributes: {shown(', '.join(attributes))}")


@app.command(
    epilog="Example: urban-reid models register 0277 person-reidentification-retail-0277.xml --color bgr --range 255 "
    "--mean 0,0,0 --std 1,1,1"
)
def register(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A model directory, OpenVINO .xml or .onnx file.")],
    color: ColorOrder = None,
    value_range: ValueRange = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    check_on: Annotated[
        str | None,
        typer.Option(
            metavar="LAYOUT:DIR", help="Labeled data on which bfloat16 is judged; unset: the model computes in float32."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a model into this data directory, after a trial of it.

    An .xml or .onnx file needs its input convention, which --color, --range, --mean, --std and --size describe, unless
    the file states it or is a published one that is known here. What computes it from now on is measured and chosen
    now: the fastest engine and precision in which it is as good.
    """
    from pipeline.registry import find_model, register_model
    from pipeline.store import Store

    convention = input_convention(color, value_range, mean, std, size)
    labeled = None if check_on is None else partial(export.labeled_pictures, check_on)
    with Store.open(settings(), "urban-reid models") as store:
        model_id = register_model(store, settings(), file, name, convention, labeled=labeled)
        with store.begin() as connection:
            arithmetic = find_model(connection, name).card.arithmetic
    if as_json:
        chosen = None if arithmetic is None else arithmetic.model_dump(mode="json")
        print_json({"id": model_id, "name": name, "arithmetic": chosen})
    else:
        if arithmetic is not None:
            out().print(shown(f"computed with {arithmetic}: {arithmetic.why}"))
        out().print(f"registered as {shown(name)}; `urban-reid models use {shown(name)}` puts it in use")


@app.command(epilog="Example: urban-reid models rename candidate-3 winter")
def rename(
    old: Annotated[str, typer.Argument(help="A registered model.")],
    new: Annotated[str, typer.Argument(help="Its new name.")],
    as_json: AsJson = False,
) -> None:
    """Give a model another name. Nothing that was computed with it changes."""
    from pipeline.registry import rename_model
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid models") as store:
        rename_model(store, old, new)
    if as_json:
        print_json({"before": old, "name": new})
    else:
        out().print(f"{shown(old)} is now {shown(new)}")


@app.command(epilog="Example: urban-reid models remove candidate-2")
def remove(name: Annotated[str, typer.Argument(help="A registered model.")], as_json: AsJson = False) -> None:
    """Remove a model and its files, with those of its training. Refused if anything in the city refers to it."""
    from pipeline.registry import remove_model
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid models") as store:
        remove_model(store, name)
    if as_json:
        print_json({"name": name})
    else:
        out().print(f"{shown(name)} is removed")


@app.command(
    epilog="Example: urban-reid models calibrate 0286 --on-city d1, or "
    "urban-reid models calibrate 0277 --dataset market1501:Market-1501"
)
def calibrate(
    name: Annotated[str, typer.Argument(help="A registered model.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="rendered:SEEDS|simulated:SEEDS|market1501:DIR|manifest:FILE",
            help="Labeled data of people whom the model was not trained on.",
        ),
    ] = None,
    on_city: Annotated[
        str | None,
        typer.Option(metavar="UNIT", help="Without labels: from the crops of this unit of the city, for this unit."),
    ] = None,
    false_merges: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", min=0, max=1, help="At most this share of the joins may be wrong; 0.05 unless given."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit the probability of a distance at each level, and choose the operating points.

    With --dataset to labeled data; then fits what a search says, too: one tracklet of each person is withheld and
    searched for. With --on-city to the unit's own crops, without labels: who cannot be one person shows how far apart
    strangers are. Takes minutes.
    """
    if (dataset is None) == (on_city is None):
        raise UsageError("say either --dataset, for labeled data, or --on-city, for crops of the city without labels")
    if dataset is None:
        calibrate_on_city(name, on_city or "", false_merges, as_json)
        return
    from pipeline.calibration.fit import MAX_FALSE_MERGE_RATE, write_calibrations
    from pipeline.calibration.fit import calibrate as fit
    from pipeline.calibration.labeled_searches import calibrate_search, write_search_calibrations
    from pipeline.registry import find_model
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid models calibrate") as store:
        with store.begin() as connection:
            model = find_model(connection, name)
        most = MAX_FALSE_MERGE_RATE if false_merges is None else false_merges
        directory = model.directory(settings())
        with steps() as begin:
            fitted = fit(settings(), directory, dataset, begin, max_false_merge_rate=most)
            searches = calibrate_search(settings(), directory, dataset, begin, pairs=fitted.levels)
        write_calibrations(store, model.id, fitted)
        write_search_calibrations(store, model.id, searches)
    if as_json:
        print_json(
            {
                "false_merges": most,
                "levels": {fit.level.value: fit.model_dump(mode="json") for fit in fitted.levels},
                "searches": {found.level.value: found.model_dump(mode="json") for found in searches},
                "pairwise_f1": {level.value: f1 for level, f1 in fitted.pairwise_f1.items()},
            }
        )
        return
    out().print(calibration_table(fitted))
    out().print(
        "same: pairs of one person. joins from: log-odds; in a band below it a person decides. F1: of pairs, on this "
        "data. ECE: expected calibration error on people kept out of the fit, of all pairs and, in the second line, of "
        "those with a probability of 0.05-0.95. false merges: wrong joins among all joins, with the 95% interval"
    )
    if model.in_use:
        out().print("the next `urban-reid resolve` of a district decides anew what this model decided in it")
    else:
        out().print(f"nothing that was decided changes: {shown(name)} is not in use; see `urban-reid models promote`")
    if searches:
        errors = ", ".join(
            f"{found.level} {found.reliability.hits.shortlist.ece:.3f}" if found.reliability else f"{found.level}"
            for found in searches
        )
        out().print(f"searches, with the calibration error of their hits on people kept out of the fit: {errors}")
    else:
        out().print("too few people are seen twice to calibrate searches, so a search will state no probability")
    over = [level.level for level in fitted.levels if level.false_merges and level.false_merges.rate > most]
    if over:
        out().print(
            f"{', '.join(over)}: no operating point keeps the false merges at {most:.1%}, so the one with the fewest "
            "was chosen"
        )


def calibration_table(fitted: "Fitted") -> Table:
    """One row per level; fits into 80 columns."""
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
    """Learn from the city's joins how long people take between units, as a new calibration.

    The next resolve then resolves all windows of this model again.
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
    table = Table("level", "joins learned from", "share found wrong", "routes")
    for level, times in found.items():
        table.add_row(level, f"{times.joins:.0f}", f"{times.wrong_share:.1%}", str(len(times.routes)))
    out().print(table)


@app.command(epilog="Example: urban-reid models use demo")
def use(name: Annotated[str, typer.Argument(help="A registered model.")], as_json: AsJson = False) -> None:
    """Put the first model in use. To replace it after crops were resolved, use `models promote`."""
    from pipeline.registry import use_model
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid models") as store:
        row = use_model(store, name)
    if as_json:
        print_json({"name": row.name, "dims": row.dims})
    else:
        out().print(
            f"{shown(row.name)} is in use; nothing was decided with another model, and the next `urban-reid resolve` "
            "decides with it"
        )
