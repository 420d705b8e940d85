"""urban-reid ingest: takes in crops from a manifest, a data set or a video."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from schemas.crops import IngestReport
from schemas.errors import UsageError
from schemas.settings import settings
from urban_reid.arguments import AsJson, moment
from urban_reid.output import out, print_json, say, shown
from urban_reid.progress import progress

app = typer.Typer(help="Take in pictures of people.", no_args_is_help=True)


class Layout(StrEnum):
    MARKET1501 = "market1501"


@app.command(epilog="Example: urban-reid ingest manifest crops/manifest.jsonl")
def manifest(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines or Parquet, one crop a line or row.")],
    as_json: AsJson = False,
) -> None:
    """Take in the crops that a manifest lists. Repeating it writes nothing."""
    from pipeline.crops.crop_store import CropStore
    from pipeline.ingest.manifest import ingest_manifest
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid ingest") as store, progress("crops") as tell:
        report = ingest_manifest(store, CropStore(settings()), file, tell)
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
    as_json: AsJson = False,
) -> None:
    """Take in a data set in a known layout, and its city if no city is loaded."""
    from pipeline.city.units import read_city_file
    from pipeline.crops.crop_store import CropStore
    from pipeline.ingest.dataset import ingest_dataset
    from pipeline.store import Store

    units = read_city_file(city)
    with Store.open(settings(), "urban-reid ingest") as store, progress("crops") as tell:
        report = ingest_dataset(store, CropStore(settings()), directory, layout.value, units, times, progress=tell)
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
        Path | None, typer.Option(metavar="FILE", help="OpenVINO .xml or torchvision .pth; HOG unless given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Detect and track the people in a video, and take in their crops. A stream runs until Ctrl-C."""
    from pipeline.crops.crop_store import CropStore
    from pipeline.ingest.detectors import open_detector
    from pipeline.ingest.video import ingest_video
    from pipeline.store import Store

    first, part = moment(start), _region(region)
    finder = open_detector(detector)
    with Store.open(settings(), "urban-reid ingest") as store, progress("frames") as tell:
        report = ingest_video(
            store,
            CropStore(settings()),
            source,
            camera,
            detector=finder,
            start=first,
            fps=fps,
            region=part,
            progress=tell,
        )
    _show(report, as_json)


def _region(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5}),(\d{1,5}),(\d{1,5}),(\d{1,5})", text)
    if match is None:
        raise UsageError(f"--region {text[:40]!r}: write x,y,width,height in pixels, such as 0,0,384,288")
    x, y, width, height = (int(number) for number in match.groups())
    return x, y, width, height


def _show(report: IngestReport, as_json: bool) -> None:
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    out().print(
        f"{report.read} read, {report.written} written, {report.already_there} already there, "
        f"{report.skipped_count} left out"
    )
    for line in (*report.skipped[:10], *report.notes):
        say(f"[yellow]note:[/yellow] {shown(line)}")
    if report.skipped_count > 10:
        say(f"[yellow]note:[/yellow] and {report.skipped_count - 10} more left out; --json lists the first hundred")
