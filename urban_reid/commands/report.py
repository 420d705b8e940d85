"""urban-reid report: a district as pages to look at."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the pages go.")],
    as_json: AsJson = False,
) -> None:
    """Write pages that show who was found where, and why: open the first one in a browser."""
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid report") as store:
        index = report_on(store, unit, out_dir)
    if as_json:
        print_json({"report": str(index), "assignments": str(index.with_name("assignments.jsonl"))})
    else:
        out().print(shown(index), soft_wrap=True)


def report_on(store: "Store", district: str, folder: Path) -> Path:
    """Writes the report; its first page, which the summaries of later runs link to."""
    from pipeline.crops.crop_store import CropStore
    from pipeline.report import write_report

    with progress("pictures of the report") as tell:
        index = write_report(store, CropStore(settings()), district, folder.absolute(), tell)
    link = settings().report_link(district)
    new = link.with_name(f"{link.name}.new")
    try:
        link.parent.mkdir(exist_ok=True)
        new.unlink(missing_ok=True)
        new.symlink_to(index.parent, target_is_directory=True)
        new.replace(link)
    except OSError as error:
        raise HomeError(f"{link}: cannot be written: {error.strerror}") from None
    return index
