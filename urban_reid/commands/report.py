"""urban-reid report: writes a district as HTML pages."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.disk import replace_link
from schemas.errors import HomeError
from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.earlier_names import Command
from urban_reid.output import out, print_json, shown
from urban_reid.progress import progress

if TYPE_CHECKING:
    from pipeline.store import Store

app = typer.Typer()


@app.command(cls=Command, epilog="Example: urban-reid report --unit d1 --out report")
def report(
    unit: Annotated[str, typer.Option(metavar="CODE", help="The district, such as d1.")],
    out_dir: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder for the pages: a new or an empty one, or an earlier report's."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Write pages that show a district's identities and the evidence of its decisions. Prints the first page."""
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid report") as store:
        index = report_on(store, unit, out_dir)
    if as_json:
        print_json({"report": str(index), "assignments": str(index.with_name("assignments.jsonl"))})
    else:
        out().print(shown(index), soft_wrap=True)


def report_on(store: "Store", district: str, folder: Path) -> Path:
    """Writes the report into `folder` and links to it from the home; returns its first page.

    The link leads later runs' summaries to the newest report. Raises InputError and HomeError.
    """
    from pipeline.crops.crop_store import CropStore
    from pipeline.report import write_report

    link = settings().report_link(district)
    if link.is_dir() and not link.is_symlink() and os.path.realpath(folder) != os.path.realpath(link):
        raise HomeError(f"{link} is a folder, where a link to the newest report belongs; move it away")
    with progress("pictures of the report") as tell:
        index = write_report(store, CropStore(settings()), district, folder.absolute(), tell)
    target = index.parent.resolve()
    if target != link.parent.resolve() / link.name:  # else the report itself is at the link's place
        try:
            link.parent.mkdir(mode=0o700, exist_ok=True)
            replace_link(link, target)
        except OSError as error:
            raise HomeError(f"{link}: cannot be written: {error.strerror}") from None
    return index
