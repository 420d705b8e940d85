"""urban-reid standing: standing searches, which look for somebody as windows close."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import typer

from schemas.parameters import StandingParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, FromTime, Operator, Reason, ToTime, checked, moment
from urban_reid.commands.cases import checked_reason
from urban_reid.output import Table, out, print_json, shown

if TYPE_CHECKING:
    from pipeline.store import Store

app = typer.Typer(help="Standing searches: somebody is looked for as windows close.", no_args_is_help=True)

Standing = Annotated[str, typer.Argument(metavar="ID", help="The standing search's id, or its first digits.")]


def _store() -> "Store":
    from pipeline.store import Store

    return Store.open(settings(), "urban-reid standing")


@app.command(epilog="Example: urban-reid standing start --probe person.jpg --unit d1 --reason 'missing child, case 17'")
def start(
    probe: Annotated[
        str,
        typer.Option(
            metavar="FILE|CROP-KEY|IDENTITY", help="A picture, the key of a stored crop, or the id of an identity."
        ),
    ],
    unit: Annotated[
        list[str], typer.Option(metavar="CODE", help="A building, street or district; give it more than once.")
    ],
    reason: Reason,
    bar: Annotated[
        float, typer.Option(metavar="P", min=0.01, max=1.0, help="Probability from which on a hit is raised.")
    ] = 0.9,
    operator: Operator = None,
    person: Annotated[
        int | None, typer.Option(metavar="N", help="Which of several people in the picture, from the left, from 1.")
    ] = None,
    from_time: FromTime = None,
    to_time: ToTime = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a standing search, under an authorization of kind standing. Another person approves it first.

    `urban-reid up` looks whenever windows of the units were decided. Without times it is about what cameras see from
    now on, until the authorization's period ends.
    """
    from pipeline.standing.searches import start as start_search
    from urban_reid.commands.search import _identity, _person, _read

    asked: dict[str, Any] = {
        "units": unit,
        "bar": bar,
        "reason": reason,
        "operator": operator or settings().operator,
        "from_time": moment(from_time),
        "to_time": moment(to_time),
    }
    crops = [probe] if re.fullmatch(r"[0-9a-f]{64}", probe) else []
    identity = _identity(probe)
    parameters = checked(StandingParameters, crops=crops or ["0" * 64], **asked)  # before a picture is stored
    data = b"" if crops or identity else _person("--probe", probe, _read("--probe", Path(probe)), person)
    pictures = {uuid4(): data} if data else {}
    if pictures:
        parameters = checked(StandingParameters, probes=list(pictures), **asked)
    with _store() as store:
        if identity is not None:
            from pipeline.search.people import crops_of_identity

            parameters = checked(StandingParameters, crops=crops_of_identity(store, identity), **asked)
        made = start_search(store, parameters, pictures)
    _say({"standing": str(made)}, f"standing search {made}", as_json)


@app.command("list", epilog="Example: urban-reid standing list")
def list_(as_json: AsJson = False) -> None:
    """List the standing searches where you work, the newest first.

    asked: waits for an approval; looks; past: its period is over; over: its authorization holds no longer; ended.
    """
    from pipeline.city.units import read_city
    from pipeline.standing.searches import standing_searches

    with _store() as store:
        rows, zone = standing_searches(store), ZoneInfo(read_city(store).timezone)
    if as_json:
        print_json({"standing": [_plain(row) for row in rows]})
        return
    table = Table("id", "case", "looks in", "asked for by", "state", "from", "hits", "left out", "median latency")
    for row in rows:
        table.add_row(
            str(row.id)[:8],
            shown(row.case_name or ""),
            "\n".join(row.units),
            shown(row.asked_by),
            row.state,
            f"{row.bar:.0%}",
            str(row.hits),
            str(row.left_out),
            "" if row.latency_s is None else f"{row.latency_s:.0f} s",
        )
    out().print(table)
    if any(row.left_out for row in rows):
        out().print(
            "left out: passages that reached the bar in an hour that had as many hits as it may have; search for them",
            soft_wrap=True,
        )
    if looked := [row.looked_at for row in rows if row.looked_at]:
        out().print(f"last look {max(looked).astimezone(zone):%Y-%m-%d %H:%M:%S}")


@app.command(epilog="Example: urban-reid standing show 3f2a81c0 --out ./sought")
def show(
    standing: Standing,
    out_dir: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the pictures of whom it looks for.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a standing search and its hits; with --out, write the pictures of whom it looks for into a folder.

    Whoever approves it has looked at its pictures. Under an authorization of its case.
    """
    from pipeline.crops.crop_store import CropStore
    from pipeline.standing.searches import hits, standing_search, write_pictures

    with _store() as store:
        row = standing_search(store, standing)
        found = hits(store, row.id)
        written = [] if out_dir is None else write_pictures(store, CropStore(settings()), row, out_dir)
    if as_json:
        named = [
            {
                "lead": hit.lead and str(hit.lead),
                "person": hit.person and str(hit.person),
                "unit": hit.unit,
                "raised_at": hit.raised_at.isoformat(),
                "last_frame_at": hit.last_frame_at.isoformat(),
                "verdict": hit.verdict,
            }
            for hit in found
        ]
        print_json({**_plain(row), "hits_raised": named, "pictures": [str(path) for path in written]})
        return
    out().print(f"{row.id}: {row.state}, {row.bar:.0%} and more, in {', '.join(row.units)}", soft_wrap=True)
    table = Table("lead or person", "unit", "raised", "after", "verdict")
    for hit in found:
        latency = (hit.raised_at - hit.last_frame_at).total_seconds()
        table.add_row(
            str(hit.lead or hit.person)[:8],
            hit.unit,
            f"{hit.raised_at:%Y-%m-%d %H:%M:%S}Z",
            f"{latency:.0f} s",
            hit.verdict or "",
        )
    out().print(table)
    for path in written:
        out().print(f"sought  {shown(path)}", soft_wrap=True)


@app.command(epilog='Example: urban-reid standing approve 3f2a81c0 --reason "the child of case 17"')
def approve(standing: Standing, reason: Reason, as_json: AsJson = False) -> None:
    """Have a standing search look from now on: a supervisor who looked at its pictures, and did not ask for it."""
    from pipeline.standing.searches import approve as approve_search

    with _store() as store:
        found = approve_search(store, standing, reason=checked_reason(reason))
    _say({"standing": str(found)}, f"approved: {found}", as_json)


@app.command(epilog='Example: urban-reid standing end 3f2a81c0 --reason "the child was found"')
def end(standing: Standing, reason: Reason, as_json: AsJson = False) -> None:
    """End a standing search for good. Whoever asked for it does, or a supervisor there."""
    from pipeline.standing.searches import end as end_search

    with _store() as store:
        found = end_search(store, standing, reason=checked_reason(reason))
    _say({"standing": str(found)}, f"ended: {found}", as_json)


def _plain(row: Any) -> dict[str, Any]:
    """A row as JSON has it."""
    plain = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row._mapping.items()}
    return plain | {name: plain[name] and str(plain[name]) for name in ("id", "case_id", "authorization_id")}


def _say(found: dict[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        out().print(line, soft_wrap=True)
