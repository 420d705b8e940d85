"""urban-reid accounts: who may sign in, as what, where and until when."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from schemas.roles import Role
from schemas.settings import settings
from urban_reid.arguments import AsJson, FromTime, ToTime, moment
from urban_reid.output import Table, out, print_json, say, shown
from urban_reid.passwords import ask_new, ask_old_and_new

app = typer.Typer(help="Who may sign in, as what, where and until when.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")]
GivenRole = Annotated[Role, typer.Option("--role", help="What the account may do.")]
ChangeNumber = Annotated[int, typer.Argument(metavar="CHANGE", help="Its number, which `accounts pending` shows.")]
Units = Annotated[
    list[str] | None,
    typer.Option("--unit", metavar="CODE", help="Only at this unit and below it; may be given again. Else the city."),
]


@app.command(epilog="Example: urban-reid accounts add zoe --role administrator   (then type a password)")
def add(
    name: Name,
    role: GivenRole,
    unit: Units = None,
    from_time: FromTime = None,
    to_time: ToTime = None,
    as_json: AsJson = False,
) -> None:
    """Make an account with its first role. Asks for a password, or reads it from stdin.

    An administrator does it. While there is none, whoever runs the program makes one. Where there are several, another
    one has to agree before the role holds.
    """
    from pipeline.governance.accounts import add_account
    from pipeline.store import Store

    start, end = moment(from_time), moment(to_time)
    password = ask_new()
    with Store.open(settings(), "urban-reid accounts") as store:
        waiting = add_account(store, name, password, role, units=unit or (), from_time=start, to_time=end)
    if as_json:
        print_json({"account": name, "role": role, "units": unit or [""], "waiting": waiting})
    elif not _say_waiting(waiting):
        out().print(f"{shown(name)} may sign in as {role}: `urban-reid login {shown(name)}`", soft_wrap=True)


@app.command("list", epilog="Example: urban-reid accounts list")
def list_(as_json: AsJson = False) -> None:
    """List the accounts, their roles and whether they are locked."""
    from pipeline.governance.accounts import list_accounts
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid accounts") as store:
        accounts = list_accounts(store)
    if as_json:
        print_json({"accounts": [_as_json(account) for account in accounts]})
        return
    if not accounts:
        say("there is none; `urban-reid accounts add NAME --role administrator` makes the first")
        return
    table = Table("account", "state", "role", "unit", "from (UTC)", "to (UTC)", "given by")
    for account in accounts:
        first = (account.name, _state(account))
        for grant in account.grants or (None,):
            if grant is None:
                cells = ("none", "", "", "", "")
            else:
                end = f"{grant.to_time:%Y-%m-%d %H:%M}" if grant.to_time else ""
                cells = (grant.role, grant.unit or "all", f"{grant.from_time:%Y-%m-%d %H:%M}", end, grant.granted_by)
            table.add_row(*map(shown, (*first, *cells)))
            first = ("", "")
    out().print(table)


@app.command(epilog="Example: urban-reid accounts grant anna --role operator --unit d1 --to 2027-01-01T00:00:00Z")
def grant(
    name: Name,
    role: GivenRole,
    unit: Units = None,
    from_time: FromTime = None,
    to_time: ToTime = None,
    as_json: AsJson = False,
) -> None:
    """Give an account one more role, or a role at more units. Nobody gives one to himself."""
    from pipeline.governance.accounts import grant_role
    from pipeline.store import Store

    start, end = moment(from_time), moment(to_time)
    with Store.open(settings(), "urban-reid accounts") as store:
        waiting = grant_role(store, name, role, units=unit or (), from_time=start, to_time=end)
    if as_json:
        print_json({"account": name, "role": role, "units": unit or [""], "waiting": waiting})
    elif not _say_waiting(waiting):
        out().print(f"{shown(name)} is {role} at {shown(', '.join(unit)) if unit else 'all units'}", soft_wrap=True)


@app.command(epilog="Example: urban-reid accounts revoke anna --role operator")
def revoke(
    name: Name,
    role: GivenRole,
    unit: Annotated[str | None, typer.Option(metavar="CODE", help="Only the role given at this unit.")] = None,
    as_json: AsJson = False,
) -> None:
    """End a role of an account, and its sessions in that role."""
    from pipeline.governance.accounts import revoke_role
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid accounts") as store:
        revoke_role(store, name, role, unit)
    _say_done(name, f"is {role} no more" + (f" at {unit}" if unit else ""), "revoked", as_json)


@app.command(epilog="Example: urban-reid accounts disable anna")
def disable(name: Name, as_json: AsJson = False) -> None:
    """End an account for good, and its sessions. Its name stays taken, because the audit names it."""
    from pipeline.governance.accounts import disable_account
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid accounts") as store:
        disable_account(store, name)
    _say_done(name, "is disabled", "disabled", as_json)


@app.command(epilog="Example: urban-reid accounts unlock anna")
def unlock(name: Name, as_json: AsJson = False) -> None:
    """Let an account sign in again that wrong passwords have locked."""
    from pipeline.governance.accounts import unlock_account
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid accounts") as store:
        unlock_account(store, name)
    _say_done(name, "is not locked", "unlocked", as_json)


@app.command(epilog="Example: urban-reid accounts password   (then type the password of now and the new one twice)")
def password(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Whose, for administrators; else that of who is signed in.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a password: your own, or as an administrator somebody else's. Ends the account's sessions.

    Asks for it, or reads it from stdin; your own password of now goes before it, on a line of its own.
    """
    from pipeline.governance.accounts import change_password, set_password
    from pipeline.store import Store

    old, new = ask_old_and_new() if name is None else ("", ask_new())
    waiting: tuple[int, ...] = ()
    with Store.open(settings(), "urban-reid accounts") as store:
        if name is None:
            name = change_password(store, old, new)
        else:
            waiting = set_password(store, name, new)
    if waiting and as_json:
        print_json({"account": name, "outcome": "waiting", "waiting": waiting})
    elif not _say_waiting(waiting):
        _say_done(name, "has a new password; its sessions are ended", "changed", as_json)


@app.command(epilog="Example: urban-reid accounts recover zoe   (then type a new password twice)")
def recover(name: Name, as_json: AsJson = False) -> None:
    """Give an administrator a new password, as whoever runs the program: when no other one is there to do it.

    The audit names it, and the account's sessions end.
    """
    from pipeline.governance.accounts import recover_administrator
    from pipeline.store import Store

    new = ask_new()
    with Store.open(settings(), "urban-reid accounts") as store:
        recover_administrator(store, name, new)
    _say_done(name, "has a new password; its sessions are ended", "recovered", as_json)


@app.command(epilog="Example: urban-reid accounts pending")
def pending(as_json: AsJson = False) -> None:
    """List roles and passwords that wait until another administrator agrees."""
    from pipeline.governance.account_changes import waiting_changes
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid accounts") as store:
        changes = waiting_changes(store)
    if as_json:
        print_json({"pending": [vars(one) | {"asked_at": one.asked_at.isoformat()} | _period(one) for one in changes]})
        return
    if not changes:
        say("nothing waits for another administrator")
        return
    table = Table("change", "account", "what", "unit", "asked by", "asked (UTC)")
    for one in changes:
        unit = "" if one.unit is None else one.unit or "all"
        cells = (one.id, one.account, one.role or "a new password", unit, one.asked_by)
        table.add_row(*map(shown, cells), f"{one.asked_at:%Y-%m-%d %H:%M}")
    out().print(table)


@app.command(epilog="Example: urban-reid accounts agree 3")
def agree(change: ChangeNumber, as_json: AsJson = False) -> None:
    """Agree to a role or password that another administrator gave; it holds from then on."""
    from pipeline.governance.account_changes import agree as agree_to
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid accounts") as store:
        name = agree_to(store, change)
    _say_done(name, f"is changed, as change {change} says", "agreed", as_json)


@app.command(epilog="Example: urban-reid accounts decline 3")
def decline(change: ChangeNumber, as_json: AsJson = False) -> None:
    """Decline a role or password that another administrator gave, or take back one's own."""
    from pipeline.governance.account_changes import decline as decline_it
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid accounts") as store:
        name = decline_it(store, change)
    _say_done(name, f"stays as it was: change {change} is declined", "declined", as_json)


def _say_waiting(changes: Sequence[int]) -> bool:
    """Says that changes wait for another administrator; whether any does."""
    for change in changes:
        out().print(f"waits for another administrator: `urban-reid accounts agree {change}`", soft_wrap=True)
    return bool(changes)


def _period(change: Any) -> dict[str, str | None]:
    times = {"from_time": change.from_time, "to_time": change.to_time}
    return {name: time and time.isoformat() for name, time in times.items()}


def _say_done(name: str, what: str, outcome: str, as_json: bool) -> None:
    if as_json:
        print_json({"account": name, "outcome": outcome})
    else:
        out().print(f"{shown(name)} {shown(what)}", soft_wrap=True)


def _state(account: Any) -> str:
    if account.disabled_at:
        return "disabled"
    return f"locked until {account.locked_until:%Y-%m-%d %H:%M} UTC" if account.locked_until else "open"


def _as_json(account: Any) -> dict[str, Any]:
    def text(time: Any) -> str | None:
        return time.isoformat() if time else None

    return {
        "account": account.name,
        "made_at": text(account.made_at),
        "locked_until": text(account.locked_until),
        "disabled_at": text(account.disabled_at),
        "roles": [
            {
                "role": grant.role,
                "unit": grant.unit,
                "from": text(grant.from_time),
                "to": text(grant.to_time),
                "granted_by": grant.granted_by,
            }
            for grant in account.grants
        ],
    }
