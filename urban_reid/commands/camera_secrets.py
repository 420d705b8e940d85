"""urban-reid cameras secret: users and passwords of cameras, by name."""

import sys
from typing import Annotated

import typer

from schemas.errors import InputError
from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import out, print_json, say, shown

app = typer.Typer(help="Users and passwords of cameras, by name.", no_args_is_help=True)


@app.command("set", epilog="Example: urban-reid cameras secret set gate --host 10.0.0.5   (then type both)")
def set_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What cameras call it: --secret NAME.")],
    host: Annotated[
        list[str],
        typer.Option(metavar="HOST", help="Host that they may be sent to; again for each further one."),
    ],
    as_json: AsJson = False,
) -> None:
    """Store a user and a password in this home, for some hosts. Asks for them, or reads stdin, a line each."""
    from pipeline.cameras.secrets import FILE, write_secret
    from schemas.disk import make_home

    if sys.stdin.isatty():
        user = str(typer.prompt("user"))
        password = str(typer.prompt("password", hide_input=True, default="", show_default=False))
    else:
        lines = sys.stdin.read(10_000).splitlines()
        if len(lines) != 2:
            raise InputError("stdin: must hold two lines, the user and the password")
        user, password = lines
    make_home(settings().home)
    path = settings().home / FILE
    new = write_secret(path, name, user, password, host)
    if as_json:
        print_json({"secret": name, "new": new, "file": str(path)})
        return
    out().print(f"{shown(name)} {'stored' if new else 'replaced'} in {shown(path)}", soft_wrap=True)


@app.command("list", epilog="Example: urban-reid cameras secret list")
def list_(as_json: AsJson = False) -> None:
    """List the names that there are, without what they stand for."""
    from pipeline.cameras.secrets import secret_names

    names = secret_names(settings())
    if as_json:
        print_json({"secrets": names})
        return
    for name in names:
        out().print(shown(name))
    if not names:
        say("there is none; `urban-reid cameras secret set NAME` stores one")


@app.command("remove", epilog="Example: urban-reid cameras secret remove gate")
def remove(name: Annotated[str, typer.Argument(metavar="NAME")], as_json: AsJson = False) -> None:
    """Remove a user and a password from this home."""
    from pipeline.cameras.secrets import FILE, remove_secret

    remove_secret(settings().home / FILE, name)
    if as_json:
        print_json({"secret": name, "outcome": "removed"})
        return
    out().print(f"{shown(name)} removed")
