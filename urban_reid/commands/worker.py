"""urban-reid worker: makes this machine a host of the city, beside others."""

import logging
from enum import StrEnum
from typing import Annotated

import typer

from schemas.levels import check_code
from schemas.logs import begin_logging
from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import out, print_json, say, shown, warn_if_open

app = typer.Typer()


class Role(StrEnum):
    """What a host does."""

    RESOLVE = "resolve"
    SEARCH = "search"
    TRAINING = "training"
    CAMERAS = "cameras"


@app.command(epilog="Example: urban-reid worker --role resolve --role cameras --units d1")
def worker(
    role: Annotated[list[Role], typer.Option("--role", help="What this host does. May be repeated.")],
    units: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Take runs of this unit and below first. May be repeated."),
    ] = None,
    runs: Annotated[
        int, typer.Option(metavar="N", min=1, max=64, help="Flow runs of each role at a time, each a process.")
    ] = 2,
    as_json: AsJson = False,
) -> None:
    """Run flows, or cameras, of a city that has several hosts, until Ctrl-C.

    Hosts share URBAN_REID_DATABASE_URL, URBAN_REID_PREFECT_URL and the pictures. A host that is lost is replaced by the
    others; what it was doing is done by them.
    """
    from urban_reid.worker import ROLES, run

    roles = tuple(one for one in ROLES if one in role)
    codes = tuple(check_code(code) for code in units or ())
    ours = settings()

    def tell(line: str) -> None:
        if ours.log == "json":
            logging.getLogger("urban_reid.worker").warning("%s", line)
        else:
            say(shown(line))

    def ready() -> None:
        if as_json:
            print_json({"host": ours.host_name, "roles": roles, "home": str(ours.home)})
            return
        out().print(f"host {shown(ours.host_name)} works: {', '.join(roles)}; Ctrl-C ends it")

    if ours.log == "json":
        begin_logging("json", "worker")
    warn_if_open(ours, tell)
    run(ours, roles, codes, runs, tell, ready)
