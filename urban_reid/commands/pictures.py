"""urban-reid pictures: one picture with its face; encrypting those of earlier versions."""

from pathlib import Path
from typing import Annotated

import typer

from schemas.parameters import ApprovalParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, Reason, checked
from urban_reid.output import out, print_json, shown
from urban_reid.progress import progress

app = typer.Typer(help="One picture with its face, and encryption of earlier ones.", no_args_is_help=True)


@app.command(epilog='Example: urban-reid pictures show 9f3c... --out face.jpg --reason "case 12: to tell two apart"')
def show(
    key: Annotated[str, typer.Argument(metavar="CROP-KEY", help="The crop's key, as in assignments.jsonl.")],
    file: Annotated[Path, typer.Option("--out", metavar="FILE", help="A new file for the picture.")],
    reason: Reason,
    frame: Annotated[bool, typer.Option("--frame", help="The context frame of its track instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write one picture as it was taken. Reports and search results show none with its face. Audited."""
    from pipeline.report.one_picture import show_picture
    from pipeline.store import Store

    approval = checked(ApprovalParameters, operator=settings().operator, reason=reason)
    with Store.open(settings(), "urban-reid pictures") as store:
        done = show_picture(store, key, file, reason=approval.reason, of="frame" if frame else "crop")
    if as_json:
        print_json({"camera": done.camera, "file": str(done.file)})
    else:
        out().print(f"{shown(done.file)}: a picture of {shown(done.camera)}", soft_wrap=True)


@app.command(epilog="Example: urban-reid pictures encrypt")
def encrypt(as_json: AsJson = False) -> None:
    """Encrypt the pictures that version 0.2 or earlier stored; they can be read meanwhile. Goes on where it ended."""
    from pipeline.ingest.earlier_pictures import encrypt_earlier
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid pictures") as store, progress("pictures") as tell:
        done = encrypt_earlier(store, tell)
    if as_json:
        print_json({"encrypted": done.encrypted, "damaged": done.damaged})
    else:
        out().print(f"{done.encrypted} pictures encrypted, {done.damaged} damaged ones left as they are")
