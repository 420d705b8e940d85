"""urban-reid models compare, promote, rollback: replace the model in use by another."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.parameters import ApprovalParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, Operator, Reason, checked
from urban_reid.earlier_names import Command
from urban_reid.output import Table, out, print_json, say, shown
from urban_reid.progress import progress, stages

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.crops.crop_store import CropStore
    from pipeline.store import Store
    from pipeline.training.comparison import Comparison
    from pipeline.training.promotion import OpenCore, Progress, Promotion

app = typer.Typer()

#: The metrics of a comparison, and their headings in a table.
METRIC_NAMES = {"mAP": "mAP", "rank1": "Rank-1", "mINP": "mINP"}


def figures(found: "Comparison") -> dict[str, Any]:
    """A comparison as a JSON object."""
    return {
        "against": found.against,
        "held_out": found.held_out,
        "metrics": dict(found.metrics),
        "against_metrics": dict(found.against_metrics),
        "difference": found.difference,
        "worse": found.worse,
    }


def comparison_table(found: "Comparison") -> Table:
    table = Table("model", *METRIC_NAMES.values())
    for row, metrics in ((found.model, found.metrics), (found.against, found.against_metrics)):
        table.add_row(shown(row), *(f"{metrics[metric]:.1f}" for metric in METRIC_NAMES))
    table.add_row("difference", *(f"{found.difference[metric]:+.1f}" for metric in METRIC_NAMES))
    return table


@app.command(epilog="Example: urban-reid models compare better --dataset market1501:Market-1501")
def compare(
    name: Annotated[str, typer.Argument(help="A registered model.")],
    dataset: Annotated[
        str,
        typer.Option(metavar="KIND:DIR|rendered:SEED", help="A data set of people that neither model was trained on."),
    ],
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Compare a model with the one in use on the same people. `models promote` needs this comparison."""
    from pipeline.registry import find_model, model_in_use
    from pipeline.store import Store
    from pipeline.training.comparison import compare as measure
    from pipeline.training.comparison import write_comparison
    from reid_core.datasets import open_dataset

    with Store.open(settings(), "urban-reid models compare") as store:
        with store.begin() as connection:
            model, used = find_model(connection, name), model_in_use(connection)
        with stages() as tell:
            opened = open_dataset(dataset, progress=partial(tell, "pictures read"))
            found = measure(settings(), model.directory(settings()), used, opened, tell)
        with store.begin() as connection:
            write_comparison(connection, model, used, found, operator or settings().operator)
    if as_json:
        print_json({"name": name, **figures(found)})
        return
    out().print(comparison_table(found))
    out().print(shown(found.held_out))


AcceptMissing = Annotated[
    bool, typer.Option("--accept-missing", help="Accept that missing pictures of crops are gone for good.")
]


@app.command(
    cls=Command,
    epilog='Example: urban-reid models promote better --operator anna --reason "better on the held-out people"',
)
def promote(
    name: Annotated[str, typer.Argument(help="A registered model.")],
    reason: Reason,
    operator: Operator = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it although it is worse, not compared or not calibrated.")
    ] = False,
    accept_missing: AcceptMissing = False,
    as_json: AsJson = False,
) -> None:
    """Replace the model in use by another.

    First all crops are embedded with it and all identities get prototypes of it; until then the earlier model stays in
    use. Decisions stay as they are. After an interruption the same command continues where it was. A
    training run of `up` that waits for it goes on.
    """
    from pipeline.training.promotion import promote as run

    approval = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    _switch(
        lambda store, crops, core, tell: run(
            store,
            crops,
            core,
            name,
            operator=approval.operator,
            reason=approval.reason,
            force=force,
            accept_missing=accept_missing,
            progress=tell,
            on_wait=lambda line: say(shown(line)),
        ),
        as_json,
    )


@app.command(
    cls=Command,
    epilog='Example: urban-reid models rollback --operator anna --reason "people in dark coats are joined wrongly"',
)
def rollback(
    reason: Reason,
    operator: Operator = None,
    accept_missing: AcceptMissing = False,
    as_json: AsJson = False,
) -> None:
    """Go back to the model that was in use before. First, crops that came in since are embedded with it."""
    from pipeline.training.promotion import rollback as run

    approval = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    _switch(
        lambda store, crops, core, tell: run(
            store,
            crops,
            core,
            operator=approval.operator,
            reason=approval.reason,
            accept_missing=accept_missing,
            progress=tell,
            on_wait=lambda line: say(shown(line)),
        ),
        as_json,
    )


def _switch(run: "Callable[[Store, CropStore, OpenCore, Progress], Promotion]", as_json: bool) -> None:
    """Runs a promotion or a rollback in this process and prints what it did."""
    from pipeline.crops.crop_store import CropStore
    from pipeline.store import Store
    from reid_core.serving.factory import open_core

    ours = settings()
    with Store.open(ours, "urban-reid models") as store, progress("crops and identities embedded") as tell:
        done = run(store, CropStore(ours), lambda model: open_core(ours, model.directory(ours)), tell)
    if as_json:
        print_json(
            {
                "model": done.model,
                "before": done.before,
                "crops": done.done.crops,
                "identities": done.done.identities,
                "unknown": {level.value: many for level, many in done.unknown.items()},
                "uncalibrated": [level.value for level in done.uncalibrated],
            }
        )
        return
    out().print(
        f"{shown(done.model)} is in use instead of {shown(done.before)}: {done.done.crops} crops and "
        f"{done.done.identities} identities embedded"
    )
    out().print(
        "what was decided stays; `urban-reid resolve --unit DISTRICT --again --reason TEXT` decides it anew with "
        f"{shown(done.model)}"
    )
    if done.unknown:
        counts = ", ".join(f"{count} at {level.value} level" for level, count in done.unknown.items())
        out().print(f"identities whose pictures are gone: {counts}; searches find them with an earlier model")
    if done.uncalibrated:
        levels = ", ".join(level.value for level in done.uncalibrated)
        say(
            f"warning: {shown(done.model)} has no calibration for {levels}, so nothing is joined there; "
            "see `urban-reid models calibrate`"
        )
