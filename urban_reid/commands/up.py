"""urban-reid up: keeps all services running until Ctrl-C."""

import logging
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.logs import begin_logging
from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import out, print_json, say, shown, warn_if_open

if TYPE_CHECKING:
    from urban_reid.console.listening import Address

app = typer.Typer()


@app.command(epilog="Example: urban-reid up --port 4200   (then open the address that it prints)")
def up(
    port: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=65_535,
            help="Port of Prefect's pages. Unless given: URBAN_REID_PREFECT_PORT, or a free one that stays the same.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the database, the core process, the console, the Prefect server and all deployments until Ctrl-C."""
    from flows.environment import secret_file
    from urban_reid.up import run

    ours = settings() if port is None else settings().model_copy(update={"prefect_port": port})
    secret = None if ours.prefect_url else str(secret_file(ours))

    def ready(url: str, console: "Address") -> None:
        if as_json:
            at = {"url": console.url, "link": console.link}
            print_json({"url": url, "home": str(ours.home), "secret_file": secret, "console": at})
            sys.stdout.flush()
            return
        out().print(f"up on {shown(ours.home)}")
        out().print(f"  the console       [bold]{shown(console.url)}[/bold]", soft_wrap=True)
        if console.link is None:
            out().print("  to sign in        an account's name and password")
        else:
            out().print(f"  opens signed in   {shown(console.link)}   (once, for ten minutes)", soft_wrap=True)
        out().print(f"  Prefect's pages   [bold]{shown(url)}[/bold]")
        if secret is not None:
            out().print(f"  to sign in        the line in {shown(secret)}", soft_wrap=True)
        out().print(f"  flows to run      {shown(url)}/deployments", soft_wrap=True)
        out().print("  Ctrl-C ends everything")

    def tell(line: str) -> None:
        if ours.log == "json":
            logging.getLogger("urban_reid.up").warning("%s", line)
        else:
            say(shown(line))

    if ours.log == "json":
        begin_logging("json", "up")
    warn_if_open(ours, tell)
    run(ours, tell, ready)
