"""urban-reid up: keeps all services running until Ctrl-C."""

import sys

import typer

from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import out, print_json, say, shown, warn_if_open

app = typer.Typer()


@app.command(epilog="Example: urban-reid up   (then open the address that it prints)")
def up(as_json: AsJson = False) -> None:
    """Run the database, the core process, the Prefect server and all deployments until Ctrl-C."""
    from urban_reid.up import run

    def ready(url: str) -> None:
        if as_json:
            print_json({"url": url, "home": str(settings().home)})
            sys.stdout.flush()
            return
        out().print(f"up on {shown(settings().home)}")
        out().print(f"  Prefect's pages   [bold]{shown(url)}[/bold]")
        out().print(f"  flows to run      {shown(url)}/deployments", soft_wrap=True)
        out().print("  Ctrl-C ends everything")

    warn_if_open(settings())
    run(settings(), lambda line: say(shown(line)), ready)
