"""urban-reid tokens: sessions for scripts, which live longer than a sign-in."""

from datetime import timedelta
from typing import Annotated

import typer

from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.commands.login import AsRole, UnderAuthorization, session_json, units_text
from urban_reid.output import Table, out, print_json, say, shown
from urban_reid.passwords import ask

app = typer.Typer(help="Sessions for scripts, by name: URBAN_REID_TOKEN.", no_args_is_help=True)

TokenName = Annotated[str, typer.Argument(metavar="NAME", help="What the token is for, such as nightly-export.")]


@app.command(epilog="Example: urban-reid tokens add nightly-export --account anna --role auditor --days 90")
def add(
    name: TokenName,
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose. URBAN_REID_OPERATOR unless given.")
    ] = None,
    role: AsRole = None,
    authorization: UnderAuthorization = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="After so many days it ends by itself.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, once. Asks for the account's password, or reads it from stdin.

    A script gets it in URBAN_REID_TOKEN. It ends earlier with its account, its role or its authorization.
    """
    from pipeline.governance.sessions import sign_in
    from pipeline.store import Store

    whose = account or settings().operator
    given = ask(f"password of {whose}: ")
    with Store.open(settings(), "urban-reid tokens") as store:
        token, session = sign_in(
            store, whose, given, role=role, authorization=authorization, token=name, lasts=timedelta(days=days)
        )
    if as_json:
        print_json({"secret": token, **session_json(session)})
    else:
        out().print(token)
        say(f"this is shown once; it holds until {session.expires_at:%Y-%m-%d %H:%M} UTC as URBAN_REID_TOKEN")


@app.command("list", epilog="Example: urban-reid tokens list")
def list_(as_json: AsJson = False) -> None:
    """List the tokens of whoever is signed in, for an administrator everybody's, without what they are."""
    from pipeline.governance.sessions import list_tokens
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid tokens") as store:
        tokens = list_tokens(store)
    if as_json:
        print_json({"tokens": [session_json(token) for token in tokens]})
        return
    if not tokens:
        say("there is none; `urban-reid tokens add NAME` makes one")
        return
    table = Table("token", "account", "role", "units", "made (UTC)", "until (UTC)")
    for token in tokens:
        times = (f"{token.made_at:%Y-%m-%d %H:%M}", f"{token.expires_at:%Y-%m-%d %H:%M}")
        table.add_row(*map(shown, (token.name, token.account, token.role, units_text(token), *times)))
    out().print(table)


@app.command(epilog="Example: urban-reid tokens revoke nightly-export")
def revoke(
    name: TokenName,
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose; an administrator's choice. Your own unless given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """End a token of whoever is signed in; an administrator ends anybody's."""
    from pipeline.governance.sessions import revoke_token
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid tokens") as store:
        revoke_token(store, name, account=account)
    if as_json:
        print_json({"token": name, "outcome": "revoked"})
    else:
        out().print(f"{shown(name)} is revoked")
