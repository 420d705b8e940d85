"""urban-reid evidence: what a confirmed match rests on, exported and verified."""

from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import InputError
from schemas.settings import settings
from urban_reid.arguments import AsJson, Reason
from urban_reid.commands.cases import checked_reason
from urban_reid.output import out, print_json, shown

app = typer.Typer(help="Evidence of a confirmed match, signed.", no_args_is_help=True)


@app.command(
    epilog='Example: urban-reid evidence export --match 3f2a81c0 --out ./evidence --reason "order 12 of the court"'
)
def export(
    match: Annotated[str, typer.Option(metavar="ID", help="The confirmed lead's id, or its first digits.")],
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new or empty folder.")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Write pictures, decisions with their figures, model card, error rates and chain of custody, and sign them."""
    from pipeline.crops.crop_store import CropStore
    from pipeline.governance.evidence import export_evidence
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid evidence") as store:
        done = export_evidence(store, CropStore(settings()), match, out_dir, reason=checked_reason(reason))
    if as_json:
        print_json(
            {
                "match": str(done.lead),
                "folder": str(out_dir),
                "files": done.files,
                "missing": list(done.missing),
                "key": done.key,
            }
        )
        return
    out().print(f"{done.files} files in {shown(out_dir)}, signed with {done.key}", soft_wrap=True)
    if done.missing:
        out().print(f"pictures that are gone: {', '.join(done.missing)}", soft_wrap=True)
    out().print(f"`python verify_audit.py . --key {done.key}` there verifies them", soft_wrap=True)


@app.command(epilog="Example: urban-reid evidence verify ./evidence --key 5f0c...")
def verify(
    folder: Annotated[Path, typer.Argument(help="A folder that `urban-reid evidence export` wrote.")],
    key: Annotated[
        str | None, typer.Option(metavar="FINGERPRINT", help="The key that must have signed; else the one it names.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find changed, removed and added files of exported evidence; exit code 1 if there are any.

    Needs no data directory.
    """
    from pipeline.governance.verify_audit import verify_evidence

    try:
        verdict = verify_evidence(folder, key)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: is no evidence that can be read: {error}") from None
    if as_json:
        print_json({"ok": not verdict.faults, "faults": verdict.faults, "files": verdict.files, "rows": verdict.rows})
    else:
        for fault in verdict.faults:
            out().print(shown(fault), soft_wrap=True)
        out().print(str(verdict), soft_wrap=True)
    if verdict.faults:
        raise typer.Exit(1)
