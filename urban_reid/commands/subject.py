"""urban-reid subject: answers a person who asks what is stored about them."""

from pathlib import Path
from typing import Annotated
from uuid import uuid4
from zoneinfo import ZoneInfo

import typer

from schemas.errors import InputError, PictureError, UsageError
from schemas.parameters import ApprovalParameters, SearchParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, Operator, Reason, checked
from urban_reid.output import out, print_json, shown
from urban_reid.progress import progress

app = typer.Typer()


@app.command(epilog="Example: urban-reid subject --probe me.jpg --unit d1 --reason 'request 12'")
def subject(
    reason: Reason,
    probe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture of the person, as it came with the request.")
    ] = None,
    unit: Annotated[str | None, typer.Option(metavar="CODE", help="Where to look, such as d1.")] = None,
    identity: Annotated[
        list[str] | None, typer.Option("--is", metavar="ID", help="An identity that a person decided is them.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="A new or empty folder for the answer; with --is.")
    ] = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Find whom a picture may show (--probe), then write what is stored about who is that person (--is, --out).

    A search gives candidates, never an answer: look at them, and name those who are the person. In a home with people
    of real cameras it needs an authorization of kind `subject`.
    """
    approval = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    if identity:
        if out_dir is None or probe is not None:
            raise UsageError("--is goes with --out DIR, and without --probe")
        _write(identity, out_dir, approval, as_json)
    elif probe is None or unit is None:
        raise UsageError(
            "give --probe FILE and --unit CODE to find candidates, or --is ID and --out DIR for the answer"
        )
    else:
        _candidates(probe, unit, approval, as_json)


def _write(identities: list[str], folder: Path, approval: ApprovalParameters, as_json: bool) -> None:
    from pipeline.crops.crop_store import CropStore
    from pipeline.erasure.subject import write_subject
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid subject") as store:
        try:
            done = write_subject(store, CropStore(settings()), identities, folder, reason=approval.reason)
        except OSError as error:
            raise InputError(f"--out {folder}: cannot be written: {error.strerror or error}") from None
    if as_json:
        print_json({**vars(done), "folder": str(done.folder)})
    else:
        what = f"{done.crops} sightings, {done.pictures} pictures, {done.searches} searches"
        out().print(f"{what} in {shown(folder / 'subject.md')}", soft_wrap=True)


def _candidates(probe: Path, unit: str, approval: ApprovalParameters, as_json: bool) -> None:
    from pipeline.erasure.subject import check_access
    from pipeline.ingest.picture_roots import Place
    from pipeline.store import Store
    from urban_reid import running
    from urban_reid.commands.search import hits_table

    try:
        data = Place(probe).read()
    except PictureError as error:
        raise InputError(f"--probe {probe}: {error}") from None
    with running.ready(settings(), unit) as opened:
        with Store.open(settings(), "urban-reid subject") as store:
            check_access(store, unit)
        uploaded = uuid4()
        parameters = checked(
            SearchParameters, unit=unit, reason=approval.reason, operator=approval.operator, probe_id=uploaded, top=10
        )
        with progress("searching"):
            request, result = running.search(settings(), parameters, {uploaded: data})
    if as_json:
        print_json({"request": str(request), "probe": str(uploaded), **result.model_dump(mode="json")})
        return
    if result.hits:
        out().print(hits_table(result.hits, ZoneInfo(opened.city.timezone)))
    out().print(
        f"{len(result.hits)} candidates, none of them an answer: look at their crops; then --is ID --out DIR for those "
        f"who are the person, and `urban-reid erase --probe {uploaded}` for the picture",
        soft_wrap=True,
    )
