"""urban-reid cases: cases, and the authorizations under which somebody may search and look."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.parameters import ApprovalParameters, AuthorizationParameters, CaseParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, Reason, checked, checked_arguments, moment
from urban_reid.output import Table, out, print_json, shown

if TYPE_CHECKING:
    from pipeline.governance.authorizations import Opens
    from pipeline.store import Store

app = typer.Typer(help="Cases, and the authorizations to search and look in them.", no_args_is_help=True)

Case = Annotated[str, typer.Argument(metavar="CASE", help="The case's name, or the first digits of its id.")]
Authorization = Annotated[str, typer.Argument(metavar="ID", help="The authorization's id, or its first digits.")]


class Kind(StrEnum):
    SEARCH = "search"
    URGENT = "urgent"
    STANDING = "standing"
    SUBJECT = "subject"


def _store() -> "Store":
    from pipeline.store import Store

    return Store.open(settings(), "urban-reid cases")


def checked_reason(reason: str) -> str:
    """The reason. Raises UsageError for a blank one."""
    return checked(ApprovalParameters, operator=settings().operator, reason=reason).reason


@app.command("open", epilog='Example: urban-reid cases open "case 17" --reason "a child is missed since noon"')
def open_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that no other case has.")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Open a case. Operators and supervisors do."""
    from pipeline.governance.authorizations import open_case

    name = checked_arguments(CaseParameters, name=name).name
    with _store() as store:
        case = open_case(store, name, reason=checked_reason(reason))
    _say({"case": str(case), "name": name}, f"case {shown(name)} is open: {case}", as_json)


@app.command(
    epilog='Example: urban-reid cases ask "case 17" --purpose missing-person --legal-basis "police act, section 12" '
    '--sought "child, 8, red coat" --unit d1/s1 --from 2026-01-01T08:00:00Z --to 2026-01-01T20:00:00Z '
    "--expires 2026-01-08T00:00:00Z (times of an example: write yours; --expires lies after now)"
)
def ask(
    case: Case,
    purpose: Annotated[str, typer.Option(metavar="NAME", help="A name of `urban-reid purposes list`.")],
    legal_basis: Annotated[str, typer.Option(metavar="TEXT", help="The law or the order that allows it.")],
    sought: Annotated[str, typer.Option(metavar="TEXT", help="Who is looked for.")],
    unit: Annotated[
        list[str], typer.Option(metavar="CODE", help="A unit that may be searched; give it more than once.")
    ],
    from_time: Annotated[str, typer.Option("--from", metavar="TIME", help="Start of what may be seen, with a zone.")],
    to_time: Annotated[str, typer.Option("--to", metavar="TIME", help="End of what may be seen, with a zone.")],
    expires: Annotated[str, typer.Option(metavar="TIME", help="When the authorization ends, with a zone.")],
    kind: Annotated[
        Kind,
        typer.Option(help="urgent: holds at once, and is approved within 48 hours or locked; both off by default."),
    ] = Kind.SEARCH,
    as_json: AsJson = False,
) -> None:
    """Ask for an authorization: who is sought, for which purpose, where, in which period and until when.

    A supervisor who has no other part in the case approves it (`cases approve`). Then `urban-reid login` signs you in
    under it.
    """
    from pipeline.governance.authorizations import ask as ask_for

    asked = checked(
        AuthorizationParameters,
        kind=kind.value,
        purpose=purpose,
        legal_basis=legal_basis,
        sought=sought,
        units=tuple(unit),
        from_time=moment(from_time),
        to_time=moment(to_time),
        expires_at=moment(expires),
    )
    with _store() as store:
        authorization = ask_for(store, case, asked)
    _say({"authorization": str(authorization)}, f"asked for: {authorization}", as_json)


@app.command(epilog="Example: urban-reid cases pending")
def pending(as_json: AsJson = False) -> None:
    """Show what waits for a decision, and what each would open: crops, cameras and identities."""
    from pipeline.governance.authorizations import pending as waiting

    with _store() as store:
        rows = waiting(store)
    if as_json:
        print_json({"pending": [_as_json(row) | {"opens": vars(opens)} for row, opens in rows]})
        return
    if not rows:
        out().print("nothing waits for a decision")
    for row, opens in rows:
        _print_authorization(row, opens)


@app.command(epilog='Example: urban-reid cases approve 3f2a81c0 --reason "in proportion to the danger" --yes')
def approve(
    authorization: Authorization,
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts, and with --json.")] = False,
    as_json: AsJson = False,
) -> None:
    """Approve an authorization that somebody else asked for, after a look at what it would open."""
    from pipeline.governance.authorizations import approve as approve_it
    from pipeline.governance.authorizations import what_it_opens

    why = checked_reason(reason)
    with _store() as store:
        row, opens = what_it_opens(store, authorization)
        if not as_json:
            _print_authorization(row, opens)
        if not yes and not (not as_json and typer.confirm("Approve it?")):
            raise typer.Exit(1)
        approved = approve_it(store, str(row.id), opens, reason=why)
    _say({"authorization": str(approved), "opens": vars(opens)}, f"approved: {approved}", as_json)


@app.command(epilog='Example: urban-reid cases refuse 3f2a81c0 --reason "out of proportion"')
def refuse(authorization: Authorization, reason: Reason, as_json: AsJson = False) -> None:
    """Refuse an authorization. Results of urgent use that is refused are erased."""
    from pipeline.governance.authorizations import lock_overdue
    from pipeline.governance.authorizations import refuse as refuse_it

    with _store() as store:
        refused = refuse_it(store, authorization, reason=checked_reason(reason))
        lock_overdue(store)
    _say({"authorization": str(refused)}, f"refused: {refused}", as_json)


@app.command(epilog='Example: urban-reid cases revoke 3f2a81c0 --reason "the child is found"')
def revoke(authorization: Authorization, reason: Reason, as_json: AsJson = False) -> None:
    """End an authorization now, for every session under it. A supervisor can, and whoever asked for it."""
    from pipeline.governance.authorizations import lock_overdue
    from pipeline.governance.authorizations import revoke as revoke_it

    with _store() as store:
        revoked = revoke_it(store, authorization, reason=checked_reason(reason))
        lock_overdue(store)
    _say({"authorization": str(revoked)}, f"revoked: {revoked}", as_json)


@app.command(epilog="Example: urban-reid cases lock")
def lock(as_json: AsJson = False) -> None:
    """Lock urgent use that was not approved in time, and erase its results. `urban-reid up` does it every minute."""
    from pipeline.governance.authorizations import lock_overdue

    with _store() as store:
        locked = lock_overdue(store)
    _say({"locked": locked}, f"{locked} locked", as_json)


@app.command("list", epilog="Example: urban-reid cases list")
def list_(as_json: AsJson = False) -> None:
    """List the cases, the oldest first."""
    from pipeline.governance.authorizations import cases

    with _store() as store:
        rows = cases(store)[::-1]  # the newest is next to the prompt
    if as_json:
        print_json({"cases": [_as_json(row) for row in rows]})
        return
    table = Table("id", "name", "opened", "by", "authorizations", "state")
    for row in rows:
        state = ("closed" if row.closed_at else "open") + (", held" if row.hold else "")
        cells = (str(row.id)[:8], row.name, f"{row.opened_at:%Y-%m-%d}", row.opened_by, row.authorizations, state)
        table.add_row(*map(shown, cells))
    out().print(table)


@app.command(epilog='Example: urban-reid cases show "case 17"')
def show(case: Case, as_json: AsJson = False) -> None:
    """Show a case and its authorizations."""
    from pipeline.governance.authorizations import show_case

    with _store() as store:
        row, authorizations = show_case(store, case)
    if as_json:
        print_json(_as_json(row) | {"authorizations": [_as_json(one) for one in authorizations]})
        return
    state = ("closed" if row.closed_at else "open") + (", held" if row.hold else "")
    out().print(f"{shown(row.name)} ({row.id}), {state}, opened by {shown(row.opened_by)}", soft_wrap=True)
    for one in authorizations:
        _print_authorization(one)


@app.command(epilog='Example: urban-reid cases close "case 17" --reason "the child is found"')
def close(case: Case, reason: Reason, as_json: AsJson = False) -> None:
    """Close a case, which revokes its authorizations."""
    from pipeline.governance.authorizations import close_case

    with _store() as store:
        closed = close_case(store, case, reason=checked_reason(reason))
    _say({"case": str(closed)}, f"closed: {closed}", as_json)


@app.command(epilog='Example: urban-reid cases hold "case 17" --reason "order 12 of the court"')
def hold(
    case: Case,
    reason: Reason,
    release: Annotated[bool, typer.Option("--release", help="Hold it no longer.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep what a case names beyond its retention, until it is released."""
    from pipeline.governance.authorizations import hold_case

    with _store() as store:
        held = hold_case(store, case, hold=not release, reason=checked_reason(reason))
    _say({"case": str(held), "hold": not release}, f"{'released' if release else 'held'}: {held}", as_json)


def _print_authorization(row: Any, opens: "Opens | None" = None) -> None:
    counts = row.opens if opens is None else vars(opens)
    lines = [
        f"{row.id}  {row.state}, {row.kind}, of {shown(row.case_name)}",
        f"  sought    {shown(row.sought)}",
        f"  purpose   {shown(row.purpose)}; {shown(row.legal_basis)}",
        f"  where     {shown(', '.join(row.units))}",
        f"  period    {row.from_time:%Y-%m-%d %H:%M} to {row.to_time:%Y-%m-%d %H:%M} UTC",
        f"  until     {row.expires_at:%Y-%m-%d %H:%M} UTC",
        f"  asked by  {shown(row.asked_by)}" + (f", approved by {shown(row.approved_by)}" if row.approved_by else ""),
    ]
    if counts:
        opened = ", ".join(f"{_counted(counts[name])} {name}" for name in ("crops", "cameras", "identities"))
        lines.append(f"  opens     {opened}")
    for line in lines:
        out().print(line, soft_wrap=True)


def _counted(number: int) -> str:
    from pipeline.governance.authorizations import MOST_COUNTED, is_more

    return f"more than {MOST_COUNTED:,}" if is_more(number) else str(number)


def _as_json(row: Any) -> dict[str, Any]:
    return {name: _plain(value) for name, value in row._mapping.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | bool | dict) or value is None:
        return value
    if isinstance(value, Sequence):
        return list(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _say(found: dict[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        out().print(line, soft_wrap=True)
