"""urban-reid models convert: a backbone's published .pth weights as a safetensors file."""

from pathlib import Path
from typing import Annotated

import typer

from urban_reid.arguments import AsJson
from urban_reid.output import out, print_json, shown

app = typer.Typer()


@app.command(
    epilog="Example: urban-reid models convert resnet50-0676ba61.pth --architecture resnet50 --out resnet50.safetensors"
)
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Published weights, .pth or .pt.")],
    architecture: Annotated[str, typer.Option(metavar="NAME", help="The backbone: resnet50, timm:NAME, your own, ...")],
    target: Annotated[Path, typer.Option("--out", metavar="FILE", help="A new .safetensors file.")],
    as_json: AsJson = False,
) -> None:
    """Convert a backbone's published weights to a safetensors file to train from. Only tensors are unpickled."""
    from reid_core.backbones.weights import convert_weights

    written = convert_weights(file, architecture, target)
    if as_json:
        print_json(
            {
                "file": str(target),
                "architecture": architecture,
                "tensors": len(written.tensors),
                "dropped": list(written.dropped),
                "by_order": written.by_order,
                "source_sha256": written.sha256,
            }
        )
        return
    out().print(f"{len(written.tensors)} tensors of {shown(architecture)} written to {shown(str(target))}")
    if written.dropped:
        out().print(f"left out: {shown(', '.join(written.dropped))}")
    if written.by_order:
        out().print("its tensors have other names and were matched by order and shape; check what it computes")
    out().print(f"the source's SHA-256 is {written.sha256}; compare it with the publisher's")
