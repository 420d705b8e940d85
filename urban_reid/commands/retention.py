"""urban-reid retention: how long crops and identities are kept."""

from typing import Annotated

import typer

from schemas.errors import UsageError
from schemas.levels import Level
from schemas.parameters import ApprovalParameters
from schemas.roles import Role
from schemas.settings import settings
from urban_reid.arguments import AsJson, Operator, Reason, checked
from urban_reid.output import Table, out, print_json, say, shown

app = typer.Typer(help="How long crops and identities are kept.", no_args_is_help=True)


@app.command(epilog="Example: urban-reid retention show")
def show(as_json: AsJson = False) -> None:
    """Show how long what is kept, who set it, and why."""
    from pipeline.governance.retention import DEFAULT_HOURS, LEVELS, read_retention
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid retention") as store, store.begin() as connection:
        retention = read_retention(connection)
    default = DEFAULT_HOURS if retention.is_live else None
    rules = [
        {"unit": r.unit, "level": r.level.value, "hours": r.hours, "set_by": r.set_by, "reason": r.reason}
        for r in retention.rules
    ]
    if as_json:
        print_json({"default_hours": default, "rules": rules})
        return
    table = Table("unit", "level", "hours", "set by", "reason")
    if not {(r.unit, r.level) for r in retention.rules} >= {("", level) for level in LEVELS}:
        why = "people of real cameras" if retention.is_live else "rendered people or a published data set"
        table.add_row("all", "all", _hours(default), "", f"default of a home with {why}")
    for r in retention.rules:
        table.add_row(*map(shown, (r.unit or "all", r.level.value, _hours(r.hours), r.set_by, r.reason)))
    out().print(table)


def _hours(hours: int | None) -> str:
    return "no end" if hours is None else str(hours)


@app.command(epilog='Example: urban-reid retention set --hours 168 --unit d1 --reason "order 3/2026 of the council"')
def set(
    hours: Annotated[str, typer.Option(metavar="N|none", help="Hours that it is kept; none: without an end.")],
    reason: Reason,
    unit: Annotated[str, typer.Option(metavar="CODE", help="This unit and all below it; else the whole city.")] = "",
    level: Annotated[
        list[Level] | None, typer.Option(help="camera: crops; else identities of that level. All unless given.")
    ] = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Set how long crops and identities of a unit are kept. Takes effect with the next run."""
    from pipeline.governance.doors import check_role
    from pipeline.governance.retention import LEVELS, set_retention
    from pipeline.store import Store

    if hours != "none" and not hours.isdecimal():
        raise UsageError(f"--hours: {hours[:40]!r} is no whole number of hours, and not none")
    kept = None if hours == "none" else int(hours)
    with Store.open(settings(), "urban-reid retention") as store:
        grant = check_role(store, (Role.ADMINISTRATOR,), "setting the retention")
        actor = grant.name or operator or settings().operator
        approval = checked(ApprovalParameters, operator=actor, reason=reason)
        levels = level or LEVELS
        set_retention(store, unit, levels, kept, actor=approval.operator, reason=approval.reason)
    if as_json:
        print_json({"unit": unit, "levels": [one.value for one in levels], "hours": kept})
    else:
        names = ", ".join(one.value for one in levels)
        out().print(
            f"{shown(unit or 'the whole city')}, {names}: kept {_hours(kept)} hours".replace(
                "no end hours", "without an end"
            )
        )


@app.command(epilog="Example: urban-reid retention run")
def run(as_json: AsJson = False) -> None:
    """Remove now what has been kept for as long as it may be. `urban-reid up` does it every hour."""
    from pipeline.erasure.expire import expire
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid retention") as store:
        done = expire(store, actor=settings().operator, on_wait=say)
    if as_json:
        print_json({name: value for name, value in vars(done).items() if name != "more"})
    else:
        out().print(
            f"removed {done.crops} crops, {done.pictures} pictures, {done.versions} versions of identities, "
            f"{done.probes} uploaded pictures, {done.partitions} days of vectors",
            soft_wrap=True,
        )
