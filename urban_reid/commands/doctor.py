"""urban-reid doctor: one page of checks of the data directory and its city."""

from typing import Annotated

import typer

from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import out, print_json, say, shown

app = typer.Typer()


@app.command(epilog="Example: urban-reid doctor --fix")
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Close the data directory's files to other users.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at disk, permissions, database, pictures, models, clock and services, and say what to do.

    Starts nothing but the embedded database, and changes nothing without --fix. Exit code 1 if there is something
    to do.
    """
    from pipeline.doctor.check import State
    from pipeline.doctor.permissions import close_to_others
    from urban_reid.doctor import examine

    if fix:
        closed = close_to_others(settings().home)
        say(f"closed {closed} files and folders to other users" if closed else "no file was open to other users")
    checks = list(examine(settings()))
    wrong = any(check.state is State.TO_DO for check in checks)
    if as_json:
        print_json(
            {
                "ok": not wrong,
                "checks": [
                    {"name": check.name, "state": check.state, "found": check.found, "remedy": check.remedy or None}
                    for check in checks
                ],
            }
        )
    else:
        for check in checks:
            mark = {State.OK: "green", State.TO_DO: "bold red", State.UNKNOWN: "yellow"}[check.state]
            line = f"[{mark}]{check.state:<7}[/]  {check.name:<11}  {shown(check.found)}"
            out().print(line, soft_wrap=True)
            if check.remedy:
                out().print(f"{'':22}-> {shown(check.remedy)}", soft_wrap=True)
    if wrong:
        raise typer.Exit(1)
