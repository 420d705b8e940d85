"""urban-reid login, logout, whoami: under whose account the command line works."""

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from schemas.roles import Role
from schemas.settings import settings
from urban_reid.arguments import WHOLE_ID, AsJson
from urban_reid.output import out, print_json, say, shown
from urban_reid.passwords import ask

if TYPE_CHECKING:
    from pipeline.governance.sessions import Session

app = typer.Typer()

AsRole = Annotated[Role | None, typer.Option("--role", help="As what, for an account with several roles.")]


def _whole_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter(WHOLE_ID) from None


UnderAuthorization = Annotated[
    UUID | None,
    typer.Option("--authorization", metavar="ID", help="Work under this authorization of a case.", parser=_whole_id),
]


@app.command(epilog="Example: urban-reid login anna --role operator   (then type the password)")
def login(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The account's name. URBAN_REID_OPERATOR unless given.")
    ] = None,
    role: AsRole = None,
    authorization: UnderAuthorization = None,
    as_json: AsJson = False,
) -> None:
    """Sign in, for twelve hours at most. Asks for the password, or reads it from stdin.

    The commands of this data directory and user then work under the account, until `urban-reid logout`.
    """
    from pipeline.governance.sessions import sign_in, sign_out
    from pipeline.store import Store
    from pipeline.store.session_file import keep_token

    account = name or settings().operator
    given = ask(f"password of {account}: ")
    with Store.open(settings(), "urban-reid login") as store:
        token, session = sign_in(store, account, given, role=role, authorization=authorization)
        if settings().token is None:
            sign_out(store)  # of the session before, whose token is replaced
    keep_token(settings().home, token)
    if settings().token is not None:
        say("[yellow]note:[/yellow] commands work under the token in URBAN_REID_TOKEN while it is set, not under this")
    _show(session, as_json)


@app.command(epilog="Example: urban-reid logout")
def logout(as_json: AsJson = False) -> None:
    """Sign out: the session ends, and its token is forgotten."""
    from pipeline.governance.sessions import sign_out
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid logout") as store:
        ended = sign_out(store)
    if as_json:
        print_json({"account": ended and ended.account})
    else:
        out().print(f"{shown(ended.account)} is signed out" if ended else "nobody was signed in")


@app.command(epilog="Example: urban-reid whoami")
def whoami(as_json: AsJson = False) -> None:
    """Show under whose account commands work here, as what, where and until when."""
    from pipeline.governance.sessions import current_session
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid whoami") as store:
        session = current_session(store)
    if session is None:
        if as_json:
            print_json({"account": None})
        elif settings().token is None:
            out().print("nobody is signed in here; `urban-reid login NAME` does it", soft_wrap=True)
        else:
            out().print("nobody is signed in here: the token in URBAN_REID_TOKEN holds no session, or one that ended")
        return
    _show(session, as_json)


def _show(session: "Session", as_json: bool) -> None:
    if as_json:
        print_json(session_json(session))
        return
    under = f", under the authorization {session.authorization}" if session.authorization else ""
    out().print(
        f"{shown(session.account)} is signed in as {session.role} at {shown(units_text(session))}{under}, until "
        f"{session.expires_at:%Y-%m-%d %H:%M} UTC",
        soft_wrap=True,
    )


def units_text(session: "Session") -> str:
    return ", ".join(unit or "all units" for unit in session.units)


def session_json(session: "Session") -> dict[str, Any]:
    return {
        "account": session.account,
        "role": session.role,
        "units": list(session.units),
        "authorization": session.authorization and str(session.authorization),
        "token": session.name,
        "expires_at": session.expires_at.isoformat(),
    }
