"""urban-reid core: serves the Re-ID core to other hosts, on Ray Serve."""

import logging
import sys
from typing import Annotated

import typer

from schemas.logs import begin_logging
from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import out, print_json, shown

app = typer.Typer()


@app.command(
    epilog="Example: urban-reid core --listen 10.0.0.5:8440   "
    "(with URBAN_REID_RAY_GPUS=0.5 URBAN_REID_RAY_MAX_REPLICAS=4: up to four replicas of a model on two GPUs)"
)
def core(
    listen: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Loopback or private address to listen on; port 0: a free one."),
    ] = "127.0.0.1:8440",
    as_json: AsJson = False,
) -> None:
    """Serve this data directory's models and detectors to other hosts on Ray Serve, until Ctrl-C.

    Needs urban-reid\\[ray]. The others need no Ray: they set URBAN_REID_CORE_URL to the address that is printed, and
    have a copy of the file core-token. The URBAN_REID_RAY settings say how many replicas, and on what.
    """
    from reid_core.on_ray.service import serve_core
    from reid_core.serving.token import FILE
    from schemas.disk import make_home

    ours = settings()
    make_home(ours.home)

    def ready(url: str) -> None:
        token_file = None if ours.core_token is not None else str(ours.home / FILE)
        if as_json:
            print_json({"url": url, "home": str(ours.home), "token_file": token_file})
            sys.stdout.flush()
            return
        out().print(f"the core of {shown(ours.home)}")
        out().print(f"  elsewhere set     URBAN_REID_CORE_URL={shown(url)}", soft_wrap=True)
        if token_file is not None:
            out().print(f"  and copy there    {shown(token_file)}", soft_wrap=True)
        out().print("  Ctrl-C ends it")

    begin_logging(ours.log, "core")
    logging.getLogger("urban_reid").setLevel(logging.INFO)
    serve_core(ours, listen, ready)
