"""urban-reid search: one person, from one picture."""

import re
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.box import SIMPLE

from schemas.errors import InputError, PictureError
from schemas.parameters import SearchHit, SearchParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, FromTime, Operator, ToTime, checked, moment
from urban_reid.earlier_names import Command
from urban_reid.output import Table, out, print_json, shown
from urban_reid.progress import progress

app = typer.Typer()


@app.command(
    cls=Command, epilog="Example: urban-reid search --probe person.jpg --unit d1 --reason 'missing child, case 17'"
)
def search(
    probe: Annotated[str, typer.Option(metavar="FILE|CROP-KEY", help="A picture, or the key of a stored crop.")],
    unit: Annotated[str, typer.Option(metavar="CODE", help="The unit to search, such as d1 or d1/s1.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; written to the audit before the search runs.")],
    operator: Operator = None,
    from_time: FromTime = None,
    to_time: ToTime = None,
    top: Annotated[int, typer.Option(metavar="N", help="Hits at most, 1 to 200.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Search a unit for the person of one picture. Who asks and why is written down first."""
    said: dict[str, Any] = {
        "unit": unit,
        "reason": reason,
        "operator": operator or settings().operator,
        "from_time": moment(from_time),
        "to_time": moment(to_time),
        "top": top,
    }
    from urban_reid import running

    if re.fullmatch(r"[0-9a-f]{64}", probe):
        parameters = checked(SearchParameters, crop_key=probe, **said)
    else:
        # Checked before the picture is taken in: neither a blank reason nor an unknown unit leaves anything behind.
        checked(SearchParameters, crop_key="0" * 64, **said)
        data = _read(Path(probe))
        with running.ready(settings(), unit):
            parameters = checked(SearchParameters, probe_id=_upload(probe, data, said["operator"]), **said)
    with progress("searching"):
        hits = running.search(settings(), parameters)
    if as_json:
        print_json({"hits": [hit.model_dump(mode="json") for hit in hits]})
        return
    out().print(_table(hits) if hits else f"nobody was seen in {shown(unit)} then")


def _read(file: Path) -> bytes:
    from pipeline.ingest.picture_roots import Place

    try:
        return Place(file).read()
    except PictureError as error:
        raise InputError(f"--probe {file}: no crop key of 64 hex digits, nor a file: {error}") from None


def _upload(probe: str, data: bytes, operator: str) -> UUID:
    from pipeline.crops.crop_store import CropStore
    from pipeline.search.request import upload_probe
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid search") as store:
        try:
            return upload_probe(store, CropStore(settings()), data, operator)
        except PictureError as error:
            raise PictureError(f"--probe {probe}: {error}") from None


def _table(hits: tuple[SearchHit, ...]) -> Table:
    """Ids by their first letters, as in the report; --json has them whole."""
    table = Table(
        "#", "distance", "probability", "identity", "seen (UTC)", "cameras", "crop", box=SIMPLE, padding=(0, 0)
    )
    several = len({hit.model for hit in hits}) > 1
    for hit in hits:
        table.add_row(
            str(hit.rank),
            f"{hit.distance:.3f}" + (f"\nby {shown(hit.model)}" if several else ""),
            "" if hit.probability is None else f"{hit.probability:.2f}",
            str(hit.identity)[:8],
            _seen(hit),
            "\n".join(sorted({crop.camera for crop in hit.crops})),
            hit.crops[0].key[:8],
        )
    return table


def _seen(hit: SearchHit) -> str:
    if hit.first_seen is None or hit.last_seen is None:
        return ""
    return f"{hit.first_seen:%Y-%m-%d}\n{hit.first_seen:%H:%M:%S}-{hit.last_seen:%H:%M:%S}"
