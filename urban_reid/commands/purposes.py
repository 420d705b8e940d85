"""urban-reid purposes: for what, and within which limits, an authorization may be asked."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.parameters import AssessmentParameters, PurposeParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, Reason, checked_arguments
from urban_reid.commands.cases import checked_reason
from urban_reid.output import Table, out, print_json, shown

if TYPE_CHECKING:
    from pipeline.store import Store

app = typer.Typer(help="Purposes, impact assessment and limits of authorizations.", no_args_is_help=True)

_Hours = Annotated[int | None, typer.Option(min=1, max=8784, metavar="HOURS")]


def _store() -> "Store":
    from pipeline.store import Store

    return Store.open(settings(), "urban-reid purposes")


@app.command("list", epilog="Example: urban-reid purposes list")
def list_(as_json: AsJson = False) -> None:
    """List the purposes, the impact assessment and the limits."""
    from pipeline.governance.purposes import assessment, limits, purposes

    with _store() as store:
        rows, reference, bounds = purposes(store), assessment(store), limits(store)
    if as_json:
        listed = [
            {"name": row.name, "description": row.description, "retired": row.retired_at is not None} for row in rows
        ]
        print_json({"purposes": listed, "assessment": reference, "limits": vars(bounds)})
        return
    table = Table("purpose", "what it is", "state")
    for row in rows:
        table.add_row(shown(row.name), shown(row.description), "retired" if row.retired_at else "")
    out().print(table)
    said = shown(reference) if reference else "none: nothing is authorized before `urban-reid purposes assessment`"
    out().print(f"impact assessment  {said}", soft_wrap=True)
    kinds = [name for name, allowed in (("urgent", bounds.urgent), ("standing", bounds.standing)) if allowed]
    out().print(
        f"limits             a period of {bounds.longest_period_h} hours, open for {bounds.longest_open_h} hours; "
        f"beside searches: {', '.join(kinds) or 'nothing'}",
        soft_wrap=True,
    )


@app.command(
    epilog='Example: urban-reid purposes add missing-person "a person who is missed" --reason "council, 3 May"'
)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a-z, 0-9 and dashes, such as missing-person.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What it is, for people.")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Add a purpose. Administrators do."""
    from pipeline.governance.purposes import add_purpose

    new = checked_arguments(PurposeParameters, name=name, text=text)
    with _store() as store:
        add_purpose(store, new.name, new.text, reason=checked_reason(reason))
    _say({"purpose": name}, f"added: {shown(name)}", as_json)


@app.command(epilog='Example: urban-reid purposes retire missing-person --reason "the decree has ended"')
def retire(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A purpose of the list.")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Take a purpose from the list. What was approved for it goes on until it expires."""
    from pipeline.governance.purposes import retire_purpose

    with _store() as store:
        retire_purpose(store, name, reason=checked_reason(reason))
    _say({"purpose": name}, f"retired: {shown(name)}", as_json)


@app.command(epilog='Example: urban-reid purposes assessment "DPIA 2026/7, registry of the city" --reason "signed"')
def assessment(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Where the signed assessment is found.")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """State where the city's impact assessment is found; before that nothing is authorized."""
    from pipeline.governance.purposes import state_assessment

    reference = checked_arguments(AssessmentParameters, text=text).text
    with _store() as store:
        state_assessment(store, reference, reason=checked_reason(reason))
    _say({"assessment": reference}, f"impact assessment: {shown(reference)}", as_json)


@app.command("limits", epilog='Example: urban-reid purposes limits --urgent --reason "council, 3 May"')
def limits_(
    reason: Reason,
    longest_period_h: _Hours = None,
    longest_open_h: _Hours = None,
    urgent: Annotated[
        bool | None, typer.Option("--urgent/--no-urgent", help="Whether a search may begin before its approval.")
    ] = None,
    standing: Annotated[
        bool | None,
        typer.Option("--standing/--no-standing", help="Whether searches over live cameras may be asked for."),
    ] = None,
    standing_searches: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="N", help="Standing searches of one authorization at once.")
    ] = None,
    standing_hits_h: Annotated[
        int | None, typer.Option(min=1, max=1000, metavar="N", help="Hits that these raise within an hour.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change what may be asked for: the longest period, the longest time until it expires, kinds, and numbers."""
    from pipeline.governance.purposes import change_limits, limits

    given: dict[str, Any] = {
        "longest_period_h": longest_period_h,
        "longest_open_h": longest_open_h,
        "urgent": urgent,
        "standing": standing,
        "standing_searches": standing_searches,
        "standing_hits_h": standing_hits_h,
    }
    with _store() as store:
        new = replace(limits(store), **{name: value for name, value in given.items() if value is not None})
        change_limits(store, new, reason=checked_reason(reason))
    _say(vars(new), ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in vars(new).items()), as_json)


def _say(found: dict[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        out().print(line, soft_wrap=True)
