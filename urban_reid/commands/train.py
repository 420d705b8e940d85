"""urban-reid train: trains a candidate model and compares it with the model in use."""

from enum import StrEnum
from typing import Annotated

import typer

from schemas.parameters import TrainParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, Operator, Reason, TripletDistance, checked
from urban_reid.commands.promotion import comparison_table, figures
from urban_reid.earlier_names import Command
from urban_reid.output import out, print_json, say, show_handed_over, shown
from urban_reid.progress import stages

app = typer.Typer()


class Strategy(StrEnum):
    PLAIN = "plain"
    JOINT = "joint"
    SEPARATE = "separate"


class Transform(StrEnum):
    SUB = "sub"
    SUB_SQU = "sub_squ"
    SUB_ABS = "sub_abs"


class Baseline(StrEnum):
    BAGTRICKS = "bagtricks"
    AGW = "agw"
    TRINET = "trinet"
    PCB = "pcb"
    MGN = "mgn"
    CBN = "cbn"
    TRANSREID = "transreid"


@app.command(
    cls=Command,
    epilog='Example: urban-reid train better --dataset "market + confirmed" --start-from demo --reason "order 12"',
)
def train(
    name: Annotated[str, typer.Argument(help="Name of the new model.")],
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Names of URBAN_REID_DATASETS, rendered:SEED[:PEOPLE] or confirmed; several joined by ' + '.",
        ),
    ],
    reason: Reason,
    operator: Operator = None,
    start_from: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Registered model to start from; fresh weights unless given.")
    ] = None,
    strategy: Annotated[Strategy, typer.Option(help="The paper's strategy.")] = Strategy.JOINT,
    transform: Annotated[Transform, typer.Option(help="Of the diff attention module.")] = Transform.SUB_ABS,
    architecture: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a model with fresh weights; the baseline's unless given.")
    ] = None,
    baseline: Annotated[Baseline, typer.Option(help="Method of a model with fresh weights.")] = Baseline.BAGTRICKS,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Fresh weights start from ImageNet's.")] = False,
    height: Annotated[
        int | None, typer.Option(metavar="PX", help="Input of a model with fresh weights; the baseline's unless given.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(metavar="PX", help="Input of a model with fresh weights; the baseline's unless given.")
    ] = None,
    reduction: Annotated[int, typer.Option(metavar="R", help="Of the diff attention module.")] = 4,
    triplet_distance: Annotated[
        TripletDistance,
        typer.Option(
            help="Distance of the triplet loss. test: the one the model is evaluated by. training: the paper's."
        ),
    ] = TripletDistance.TEST,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Epochs; the paper's unless given.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Learning rate; the paper's unless given.")
    ] = None,
    p: Annotated[int, typer.Option("--identities-per-batch", metavar="P", help="Identities in a batch.")] = 16,
    k: Annotated[
        int, typer.Option("--pictures-per-identity", metavar="K", help="Pictures of each identity in a batch.")
    ] = 4,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Seed of the run's random choices.")] = 0,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end, or hand the run over to `up`.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Train a model, compare it with the one in use on people neither was trained on, and register it as a candidate.

    After an interruption the same command continues. `models promote` puts the candidate in use.
    """
    from reid_core.training.methods import METHODS
    from urban_reid import running

    method = METHODS[baseline.value]
    parameters = checked(
        TrainParameters,
        name=name,
        dataset=dataset,
        reason=reason,
        operator=operator or settings().operator,
        start_from=start_from,
        strategy=strategy.value,
        transform=transform.value,
        architecture=method.architecture if architecture is None else architecture,
        baseline=baseline.value,
        pretrained=pretrained,
        height=method.input.height if height is None else height,
        width=method.input.width if width is None else width,
        reduction=reduction,
        triplet_distance=triplet_distance.value,
        epochs=epochs,
        learning_rate=learning_rate,
        identities_per_batch=p,
        pictures_per_identity=k,
        seed=seed,
    )
    if start_from is None:  # a misspelled name is found before a database and a server start
        from pipeline.training.candidate import config_of
        from reid_core.models import refuse_config

        refuse_config(config_of(parameters))
    if not wait:
        show_handed_over(running.hand_over_training(settings(), parameters), as_json)
        return
    with stages() as tell:
        done = running.train(settings(), parameters, tell)
    found = done.comparison
    if as_json:
        print_json({"name": name, "comparison": None if found is None else figures(found)})
        return
    if found is None:
        out().print(f"{shown(name)} is registered; `urban-reid models use {shown(name)}` puts it in use")
        return
    out().print(comparison_table(found))
    out().print(shown(found.held_out))
    if found.worse:
        say(f"{shown(name)} is worse than {shown(found.against)}: only --force promotes it")
    else:
        out().print(f"`urban-reid models promote {shown(name)} --operator USER --reason TEXT` puts it in use")
