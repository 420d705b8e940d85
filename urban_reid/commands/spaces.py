"""urban-reid models normalize, show: feature spaces, and what a registered model is."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE

from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import Table, out, print_json, shown
from urban_reid.progress import steps

if TYPE_CHECKING:
    from pipeline.crops.crop_store import CropStore
    from pipeline.spaces.learning import Unlabeled
    from pipeline.store import Store
    from reid_core.datasets import Dataset

app = typer.Typer()


@app.command(epilog="Example: urban-reid models normalize 0277 --on-city d1 --name 0277-d1 --basis market1501:DIR")
def normalize(
    base: Annotated[str, typer.Argument(help="A registered model.")],
    on_city: Annotated[
        str, typer.Option("--on-city", metavar="UNIT", help="Learn from the crops of this unit of the city.")
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the new model.")],
    basis: Annotated[
        str,
        typer.Option(
            metavar="none|LAYOUT:DIR|confirmed|tracklets",
            help="Also a basis: of a labeled data set's training people, of confirmed identities, or of tracklets.",
        ),
    ] = "none",
    as_json: AsJson = False,
) -> None:
    """Make a model that takes each camera's mean off the features of another, without labels; --basis adds a basis.

    It is learned from the unit's crops up to now; later crops do not change it. Features stay stored as they are, under
    the base. Calibrate, compare and promote the new model like any other.
    """
    from pipeline.crops.crop_store import CropStore
    from pipeline.spaces.derived import normalize as learn
    from pipeline.store import Store
    from reid_core.serving.factory import open_core

    ours = settings()
    with Store.open(ours, "urban-reid models normalize") as store, steps() as begin:
        crops = CropStore(ours)
        found = learn(
            store,
            crops,
            lambda model: open_core(ours, model.directory(ours)),
            base,
            on_city,
            name,
            _basis(store, crops, basis),
            begin,
        )
    learned = found.learned
    if as_json:
        print_json({"name": name, "base": base, "crops": learned.crops, "tracklets": learned.tracklets})
        return
    out().print(
        f"registered as {shown(name)}: means of {len(learned.tracklets)} cameras from {learned.crops} crops of "
        f"{sum(learned.tracklets.values())} tracklets"
    )
    out().print(f"nothing changes yet: calibrate, compare and promote {shown(name)} like any other model")


def _basis(store: "Store", crops: "CropStore", asked: str) -> "Unlabeled | Dataset":
    """What the option names. Raises InputError for an unknown data set, and for too few confirmed people."""
    from pipeline.training.data import CONFIRMED, confirmed_people
    from reid_core.datasets import open_dataset

    if asked == "none":
        return "none"
    if asked == "tracklets":
        return "tracklets"
    return confirmed_people(store, crops) if asked == CONFIRMED else open_dataset(asked)


@app.command(epilog="Example: urban-reid models show 0277-d1")
def show(name: Annotated[str, typer.Argument(help="A registered model.")], as_json: AsJson = False) -> None:
    """Show what a registered model is: its base, the answers that taught it, and whose mean a camera takes."""
    from pipeline.registry import find_model, model_by_id
    from pipeline.spaces.overview import camera_means
    from pipeline.store import Store
    from pipeline.training.data import taught

    with Store.open(settings(), "urban-reid models show") as store:
        with store.begin() as connection:
            model = find_model(connection, name)
            base = None if model.base_id is None else model_by_id(connection, model.base_id).name
            reviewed = taught(connection, model.card)
        cameras = camera_means(store, model)
    if as_json:
        print_json(
            {
                "name": name,
                "digest": model.digest.hex(),
                "in_use": model.in_use,
                "base": base,
                "cameras": {one.camera: {"mean_of": one.unit, "tracklets": one.tracklets} for one in cameras},
                "reviewed": vars(reviewed) if reviewed else None,
                "card": model.card.model_dump(mode="json"),
            }
        )
        return
    card = model.card
    table = Table("", "", show_header=False, box=None, padding=(0, 1))
    table.add_row("name", shown(name) + (" (in use)" if model.in_use else ""))
    table.add_row("digest", model.digest.hex())
    table.add_row("network", shown(card.architecture if card.engine == "torch" else card.engine))
    table.add_row("input", f"{card.input.height}x{card.input.width} {card.input.color}")
    table.add_row("feature", f"{card.dims} dims")
    table.add_row("diff attention", card.diff_attention.transform if card.diff_attention else "none")
    if card.feature_space is not None and base is not None:
        table.add_row("feature space on", shown(base))
        table.add_row("learned from", shown(card.feature_space.learned_from))
        table.add_row("basis", card.feature_space.basis)
    if reviewed is not None:
        gone = f", of which {reviewed.gone} are gone with the people whom they were about" if reviewed.gone else ""
        table.add_row("learned from", f"{reviewed.answers} answers of reviewers{gone}")
    out().print(table)
    if not cameras:
        return
    means = Table("camera", "mean of", "tracklets", box=SIMPLE, padding=(0, 1))
    for one in cameras:
        means.add_row(one.camera, "itself" if one.unit == one.camera else one.unit or "all", str(one.tracklets or ""))
    out().print(means)
