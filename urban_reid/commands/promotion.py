"""urban-reid models compare, promote, rollback: another model in the place of the one in use."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.parameters import ApprovalParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, Operator, Reason, checked
from urban_reid.earlier_names import Command
from urban_reid.output import Table, out, print_json, say, shown
from urban_reid.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.crops.crop_store import CropStore
    from pipeline.store import Store
    from pipeline.training.comparison import Comparison
    from pipeline.training.promotion import OpenCore, Progress, Promotion

app = typer.Typer()

#: As pipeline.training.comparison keeps them, and as a table heads them.
METRIC_NAMES = {"mAP": "mAP", "rank1": "Rank-1", "mINP": "mINP"}


def figures(found: "Comparison") -> dict[str, Any]:
    """A comparison for --json."""
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
        str, typer.Option(metavar="KIND:DIR|rendered:SEED", help="People whom neither model was trained on.")
    ],
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model and the one in use on the same people. `models promote` asks for it."""
    from pipeline.registry import find_model, model_in_use
    from pipeline.store import Store
    from pipeline.training.comparison import compare as measure
    from pipeline.training.comparison import write_comparison
    from reid_core.datasets import open_dataset

    with Store.open(settings(), "urban-reid models compare") as store:
        with store.begin() as connection:
            model, used = find_model(connection, name), model_in_use(connection)
        with progress("pictures and queries") as tell:
            found = measure(
                settings(),
                model.directory(settings()),
                used,
                open_dataset(dataset, progress=tell),
                lambda _, done, total: tell(done, total),
            )
        with store.begin() as connection:
            write_comparison(connection, model, used, found, operator or settings().operator)
    if as_json:
        print_json({"name": name, **figures(found)})
        return
    out().print(comparison_table(found))
    out().print(shown(found.held_out))


AcceptMissing = Annotated[
    bool, typer.Option("--accept-missing", help="Crops whose pictures are not there are gone for good.")
]


@app.command(
    cls=Command,
    epilog='Example: urban-reid models promote better --operator anna --reason "better on the held-out people"',
)
def promote(
    name: Annotated[str, typer.Argument(help="A registered model.")],
    reason: Reason,
    operator: Operator = None,
    force: Annotated[bool, typer.Option("--force", help="Although it is worse, or not compared.")] = False,
    accept_missing: AcceptMissing = False,
    as_json: AsJson = False,
) -> None:
    """Put a better model in the place of the one in use.

    Every crop is embedded with it first, and everybody who was seen gets prototypes of it; until then the model in use
    stays in use. What was decided stays decided. Interrupted, the same command goes on where it was.
    """
    from pipeline.training.promotion import promote as run

    words = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    _switch(
        lambda store, crops, core, tell: run(
            store,
            crops,
            core,
            name,
            operator=words.operator,
            reason=words.reason,
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
    """Go back to the model that was in use before. What came in since is embedded with it first."""
    from pipeline.training.promotion import rollback as run

    words = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    _switch(
        lambda store, crops, core, tell: run(
            store,
            crops,
            core,
            operator=words.operator,
            reason=words.reason,
            accept_missing=accept_missing,
            progress=tell,
            on_wait=lambda line: say(shown(line)),
        ),
        as_json,
    )


def _switch(run: "Callable[[Store, CropStore, OpenCore, Progress], Promotion]", as_json: bool) -> None:
    """Runs a promotion or a rollback here, and says what it did."""
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
        f"{shown(done.model)} is in use, in the place of {shown(done.before)}: {done.done.crops} crops and "
        f"{done.done.identities} identities embedded"
    )
    if done.unknown:
        counts = ", ".join(f"{many} of a {level.value}" for level, many in done.unknown.items())
        out().print(f"pictures of {counts} are gone: searches find these identities through an earlier model")
    if done.uncalibrated:
        levels = ", ".join(level.value for level in done.uncalibrated)
        say(f"warning: no calibration for {levels}: nothing is joined there; see `urban-reid models calibrate`")
