"""urban-reid webhook: what whoever sets up the receiver of its messages needs to know."""

import typer

from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import out, print_json

app = typer.Typer()


@app.command(epilog="Example: urban-reid webhook")
def webhook(as_json: AsJson = False) -> None:
    """Print the secret that the webhook's messages are signed with; it is made if there is none.

    A receiver checks the signature with it, as docs/guides/service.md shows.
    """
    from pipeline.webhook.hook import webhook_secret
    from schemas.disk import make_home

    make_home(settings().home)
    secret = webhook_secret(settings())
    if as_json:
        print_json({"secret": secret})
    else:
        out().print(secret, soft_wrap=True, highlight=False)
