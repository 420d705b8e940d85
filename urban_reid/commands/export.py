"""urban-reid models export: a model in another format, refused if it is not the same model."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.cards import InputConvention
from schemas.errors import InputError
from schemas.settings import settings
from urban_reid.arguments import AsJson, model_at
from urban_reid.earlier_names import Command
from urban_reid.output import Table, out, print_json, shown
from urban_reid.progress import stages

if TYPE_CHECKING:
    from reid_core.export.export import Labeled

app = typer.Typer()


class Format(StrEnum):
    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    OPENVINO = "openvino"


class Precision(StrEnum):
    F32 = "f32"
    BF16 = "bf16"
    INT8 = "int8"


@app.command(
    cls=Command,
    epilog="Example: urban-reid models export demo --format openvino --precision int8 --calibrate-on crops "
    "--check-on market1501:Market-1501 --out demo-int8",
)
def export(
    model: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A registered model, or a model directory.")],
    to: Annotated[Format, typer.Option("--format", help="The format to write.")],
    directory: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder: the exported model.")],
    precision: Annotated[Precision, typer.Option(help="What it computes in; bf16 and int8 only for openvino.")] = (
        Precision.F32
    ),
    calibrate_on: Annotated[
        str | None,
        typer.Option(metavar="DIR|LAYOUT:DIR", help="int8: pictures of your cameras, or a data set's training split."),
    ] = None,
    check_on: Annotated[
        str | None,
        typer.Option(
            metavar="LAYOUT:DIR", help="Labeled data to measure the loss on; unset: --calibrate-on, if a data set."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export a model to another format, into a new model directory. Its features, or its mAP, must stay the same."""
    source = model_at(model)
    if source.is_file():
        raise InputError(f"{source}: a file; register it with `urban-reid models register NAME FILE`, then export NAME")
    from reid_core.export.export import export_model, refuse_combination
    from reid_core.export.quantize import calibration_pictures
    from reid_core.files import read_card

    if check_on is None and calibrate_on is not None and not Path(calibrate_on).is_dir():
        check_on = calibrate_on
    card = read_card(source)
    # Checked before pictures are read, which may take minutes.
    refuse_combination(card, to.value, precision.value, bool(calibrate_on), bool(check_on))
    with stages() as tell:
        calibration = calibration_pictures(calibrate_on, card.input) if calibrate_on else None
        labeled = labeled_pictures(check_on, card.input) if check_on else None
        tell(f"exporting to {to}", 0, 0)
        exported = export_model(
            settings(), source, directory, to.value, precision=precision.value, calibration=calibration,
            labeled=labeled,
        )  # fmt: skip
    done = exported.card
    if as_json:
        print_json(
            {
                "name": done.name,
                "directory": str(directory),
                "cosines": exported.cosines,
                "execution_cosine": exported.execution_cosine,
                "mAP": exported.mAP and {"on": check_on, "before": exported.mAP[0], "after": exported.mAP[1]},
                "calibrated": bool(done.calibration),
            }
        )
        return
    table = Table("compared with the model in float32", "")
    for size, cosine in exported.cosines.items():
        table.add_row(f"lowest cosine, batch of {size}", f"{cosine:.6f}")
    table.add_row(f"lowest cosine as it runs, {precision}", f"{exported.execution_cosine:.6f}")
    if exported.mAP is not None:
        table.add_row(f"mAP on {shown(check_on)}", f"{exported.mAP[0]:.2f} -> {exported.mAP[1]:.2f}")
    out().print(table)
    out().print(f"written to {shown(directory)}; `urban-reid models register NAME {shown(directory)}` registers it")
    if card.calibration and not done.calibration:
        out().print("its distances have changed: run `urban-reid models calibrate NAME --dataset ...` before using it")


def labeled_pictures(source: str, convention: InputConvention) -> "Labeled":
    """The queries and the gallery of a data set, LAYOUT:DIR. Raises InputError where one of them is empty."""
    from reid_core.datasets import open_dataset
    from reid_core.export.export import Labeled

    people = open_dataset(source)
    if not people.query or not people.gallery:
        raise InputError(
            f"{source}: {len(people.query)} queries and {len(people.gallery)} gallery pictures; both are needed"
        )
    return Labeled(source, people.load("query", convention), people.load("gallery", convention))
