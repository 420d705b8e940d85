"""urban-reid console: serves the pages for operators."""

import sys
from typing import Annotated

import typer

from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.earlier_names import Command
from urban_reid.output import out, print_json, say

app = typer.Typer()


@app.command(cls=Command, epilog="Example: urban-reid console --port 8420")
def console(
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="Port on loopback; 0: a free one. 8420 unless given.",
            min=0,
            max=65535,
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve the console's pages on this machine, until Ctrl-C: look at people, follow their ways, search.

    Where `urban-reid up` serves them already, it says where, with a new link, and ends.
    """
    from urban_reid.console.listening import PORT, Address, serve, served
    from urban_reid.up import is_up

    def show(address: Address) -> None:
        if as_json:
            print_json({"url": address.url, "link": address.link})
            sys.stdout.flush()
            return
        out().print(address.url, soft_wrap=True)
        if address.link is not None:
            out().print(f"opens signed in, once, for ten minutes: {address.link}", soft_wrap=True)

    ours = settings()
    there = served(ours) if port is None and is_up(ours) else None
    if there is not None:
        show(there)
        say("`urban-reid up` serves it")
        return
    serve(ours, PORT if port is None else port, show)
