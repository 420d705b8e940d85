"""urban-reid ingest: takes in crops from a manifest, a data set or a video."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from schemas.crops import IngestReport
from schemas.errors import UsageError
from schemas.parameters import ApprovalParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, Operator, Reason, checked, moment
from urban_reid.earlier_names import Command
from urban_reid.output import Table, out, print_json, say, shown, warn_if_open
from urban_reid.progress import progress

app = typer.Typer(help="Take in pictures of people, and undo that.", no_args_is_help=True)

Add = Annotated[
    bool, typer.Option("--add", help="Add to what an ingest of the same source with other options brought.")
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Undo earlier ingests of the same source with other options first.")
]


def _again(add: bool, replace: bool) -> "Again":
    if add and replace:
        raise UsageError("--add and --replace exclude each other")
    return "add" if add else "replace" if replace else "refuse"


if TYPE_CHECKING:
    from pipeline.ingest.batches import Again, Batch
    from pipeline.store import Store


@contextmanager
def _telling_of_live(store: "Store") -> Iterator[None]:
    """Says so when what is taken in makes the home one with people of real cameras, however the taking in ends."""
    from pipeline.governance.doors import is_live

    before = is_live(store)
    try:
        yield
    finally:
        if not before and is_live(store):
            say(
                "[yellow]note:[/yellow] this home has people of real cameras now, for good: whoever searches, looks or "
                "exports signs in and needs an authorization; see docs/guides/accounts.md"
            )


class Layout(StrEnum):
    MARKET1501 = "market1501"


@app.command(epilog="Example: urban-reid ingest manifest crops/manifest.jsonl")
def manifest(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines or Parquet, one crop a line or row.")],
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Take in the crops that a manifest lists. Repeating it writes nothing."""
    from pipeline.crops.crop_store import CropStore
    from pipeline.ingest.manifest import ingest_manifest
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid ingest") as store, _telling_of_live(store), progress("crops") as tell:
        report = ingest_manifest(store, CropStore(settings()), file, tell, operator=operator)
    _show(report, as_json)


@app.command(epilog="Example: urban-reid ingest dataset Market-1501 --layout market1501 --city city.yaml --times none")
def dataset(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The data set's top folder.")],
    layout: Annotated[Layout, typer.Option(help="How its folders and files are named.")],
    city: Annotated[
        Path, typer.Option(metavar="FILE", help="City file; a camera's `source` is its name in the data set.")
    ],
    times: Annotated[
        str, typer.Option(metavar="frames:FPS|none", help="frames:FPS reads times from frame numbers; none: no times.")
    ] = "none",
    add: Add = False,
    replace: Replace = False,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Take in a data set in a known layout, and its city if no city is loaded."""
    from pipeline.city.units import read_city_file
    from pipeline.crops.crop_store import CropStore
    from pipeline.ingest.dataset import ingest_dataset
    from pipeline.store import Store

    units, again = read_city_file(city), _again(add, replace)
    with Store.open(settings(), "urban-reid ingest") as store, _telling_of_live(store), progress("crops") as tell:
        report = ingest_dataset(
            store,
            CropStore(settings()),
            directory,
            layout.value,
            units,
            times,
            again=again,
            operator=operator,
            progress=tell,
        )
    _show(report, as_json)


@app.command(epilog="Example: urban-reid ingest video plaza.avi --camera d1/s1/b1/c1 --start 2026-01-01T08:00:00Z")
def video(
    source: Annotated[str, typer.Argument(metavar="FILE|rtsp://...", help="A video file, or a camera's stream.")],
    camera: Annotated[str, typer.Option(metavar="CODE", help="The camera that recorded it, such as d1/s1/b1/c1.")],
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time of its first frame, with a time zone.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(metavar="N", help="Frames per second of a file that states no times.")
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="x,y,w,h", help="Look at this part of the frame only, in pixels.")
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A detector of this home, or an OpenVINO .xml or torchvision .pth file; else the home's default.",
        ),
    ] = None,
    add: Add = False,
    replace: Replace = False,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Detect and track the people in a video, and take in their crops.

    A stream runs until Ctrl-C. When it is lost it is opened again; one that is gone for a minute is an error.
    """
    from pipeline.crops.crop_store import CropStore
    from pipeline.ingest.video import ingest_video
    from pipeline.store import Store
    from reid_core.detection import open_detector

    first, part, again = moment(start), _region(region), _again(add, replace)
    finder = open_detector(settings(), detector)
    with Store.open(settings(), "urban-reid ingest") as store, _telling_of_live(store), progress("frames") as tell:
        report = ingest_video(
            store,
            CropStore(settings()),
            source,
            camera,
            detector=finder,
            start=first,
            fps=fps,
            region=part,
            again=again,
            operator=operator,
            progress=tell,
        )
    _show(report, as_json)


@app.command("list", epilog="Example: urban-reid ingest list")
def list_batches(as_json: AsJson = False) -> None:
    """List what was taken in, the newest first. The same source with the same options is one batch."""
    from pipeline.city.units import find_city
    from pipeline.ingest.batches import batches
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid ingest") as store:
        city = find_city(store)
        with store.begin() as connection:
            found = batches(connection)
    if as_json:
        print_json({"batches": [_as_json(batch) for batch in found]})
        return
    zone = city.timezone if city is not None else "UTC"
    table = Table("id", "source", "options", "operator", f"begun ({zone})", "crops", "state")
    for batch in found:
        begun = f"{batch.begun_at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}"
        cells = shown(batch.name), shown(batch.with_options()), shown(batch.operator), begun, str(batch.crops)
        table.add_row(str(batch.id), *cells, _state(batch))
    out().print(table)
    for batch in found:
        for line in batch.notes:
            say(f"[yellow]note of batch {batch.id}:[/yellow] {shown(line)}")


@app.command(
    cls=Command, epilog='Example: urban-reid ingest undo 3 --operator anna --reason "recorded by another camera"'
)
def undo(
    batch: Annotated[int, typer.Argument(metavar="ID", help="As `urban-reid ingest list` shows it.")],
    reason: Reason,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Take back an ingest, as if it had never been. The same source may be taken in again.

    Its crops are withdrawn: their rows stay for the audit, their features go, and their pictures unless something else
    holds them. Crops that another ingest brought too stay. The next resolve decides the windows concerned anew.
    """
    from pipeline.crops.crop_store import CropStore
    from pipeline.ingest.undo import undo as run
    from pipeline.store import Store

    approval = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    with Store.open(settings(), "urban-reid ingest") as store:
        done = run(store, CropStore(settings()), batch, operator=approval.operator, reason=approval.reason)
    if as_json:
        print_json(vars(done))
        return
    if not done.districts:
        out().print(f"batch {batch} holds no crops: it was undone before, or brought none")
        return
    out().print(
        f"{done.crops} crops withdrawn, {done.pictures} pictures removed; {done.kept} crops stay, because another "
        "ingest brought them too"
    )
    for district in done.districts:
        out().print(f"`urban-reid resolve --unit {district}` decides the windows concerned anew")
    for path in done.again:
        out().print(
            f"{shown(path)}, which it followed, is taken in again when its camera starts: with the next "
            "`urban-reid up`, or after `urban-reid cameras pause` and `resume`",
            soft_wrap=True,
        )


def _state(batch: "Batch") -> str:
    if batch.undone_at is not None:
        return f"undone by {shown(batch.undone_by or '')}: {shown(batch.undo_reason or '')}"
    return "taken in" if batch.ended_at else "in work or interrupted"


def _as_json(batch: "Batch") -> dict[str, object]:
    times = {
        name: None if (moment := getattr(batch, name)) is None else moment.isoformat()
        for name in ("begun_at", "ended_at", "undone_at")
    }
    return {**vars(batch), **times}


def _region(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5}),(\d{1,5}),(\d{1,5}),(\d{1,5})", text)
    if match is None:
        raise UsageError(f"--region {text[:40]!r}: write x,y,width,height in pixels, such as 0,0,384,288")
    x, y, width, height = (int(number) for number in match.groups())
    return x, y, width, height


def _show(report: IngestReport, as_json: bool) -> None:
    warn_if_open(settings())
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    out().print(
        f"{report.read} read, {report.written} written, {report.already_there} already there, "
        f"{report.skipped_count} left out" + (f"; batch {report.batch}" if report.batch else "")
    )
    for line in (*report.skipped[:10], *report.notes):
        say(f"[yellow]note:[/yellow] {shown(line)}")
    if report.skipped_count > 10:
        say(f"[yellow]note:[/yellow] and {report.skipped_count - 10} more left out; --json lists the first hundred")
