"""urban-reid console: serves the pages for operators."""

from typing import Annotated

import typer

from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.earlier_names import Command
from urban_reid.output import out, print_json

app = typer.Typer()


@app.command(cls=Command, epilog="Example: urban-reid console --port 8420")
def console(
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Port on loopback; 0: a free one.", min=0, max=65535)
    ] = 8420,
    as_json: AsJson = False,
) -> None:
    """Serve the console's pages on this machine, until Ctrl-C: look at people, follow their ways, search."""
    import uvicorn

    from pipeline.store import Store
    from urban_reid.console.app import make_app
    from urban_reid.console.listening import listen

    with Store.open(settings(), "urban-reid console") as store, listen(port) as sockets:
        where = sockets.getsockname()[1]
        made = make_app(store, ["127.0.0.1", "localhost"])
        visitors = made.state.console.visitors
        address = f"http://127.0.0.1:{where}"
        link = f"{address}/enter/{visitors.new_link_key()}" if visitors.is_open_home() else None
        if as_json:
            print_json({"url": address, "link": link})
        else:
            out().print(address, soft_wrap=True)
            if link is not None:
                out().print(f"opens signed in, once, for ten minutes: {link}", soft_wrap=True)
        server = uvicorn.Server(uvicorn.Config(made, log_level="warning", server_header=False))
        server.run(sockets=[sockets])
