"""urban-reid resolve: groups crops into identities, level by level."""

from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import InputError, UsageError
from schemas.levels import Level, check_code, level_of
from schemas.parameters import ApprovalParameters, ResolveParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, FromTime, Operator, ToTime, checked, moment
from urban_reid.earlier_names import Command
from urban_reid.output import Table, out, print_json, say, show_handed_over, shown
from urban_reid.progress import stages

app = typer.Typer()


@app.command(cls=Command, epilog="Example: urban-reid resolve --unit d1 --export assignments.jsonl")
def resolve(
    unit: Annotated[str, typer.Option(metavar="CODE", help="The district, such as d1.")],
    from_time: FromTime = None,
    to_time: ToTime = None,
    again: Annotated[
        bool, typer.Option("--again", help="Decide old windows anew with the model in use; needs --reason.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The reason for --again; written to the audit.")
    ] = None,
    operator: Operator = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end, or hand the run over to `up`.")
    ] = True,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each crop's identities as JSON Lines, a line a crop.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Resolve what is new or late in a district and everything below it.

    --again decides the windows between --from and --to, or all, anew with the model and calibration in use, and later
    ones as far as they depend on these. Earlier decisions stay, superseded.
    """
    from urban_reid import running

    if level_of(check_code(unit)) is not Level.DISTRICT:
        raise UsageError(
            f"--unit {unit}: that is a {level_of(unit)}; resolve takes a district, and a district's code has no slash"
        )
    parameters = checked(ResolveParameters, unit=unit, from_time=moment(from_time), to_time=moment(to_time))
    if reason is not None and not again:
        raise UsageError("--reason belongs to --again")
    approval = None
    if again:
        approval = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason or "")
    if not wait and export is not None:
        raise UsageError("--export needs the end of the run: omit --no-wait")
    if export is not None and not export.absolute().parent.is_dir():
        raise InputError(f"--export {export}: there is no folder {export.absolute().parent}")
    if export is not None and export.exists() and not export.is_file():
        raise InputError(f"--export {export}: it exists and is not a plain file, so it is not replaced; name another")
    if export is not None:
        _check_export(unit)
    if approval is not None:
        parameters = _again(parameters, approval)
    if not wait:
        show_handed_over(running.hand_over(settings(), parameters), as_json)
        return
    with stages() as tell:
        timed = running.resolve(settings(), parameters, tell, lambda line: say(shown(line)))
    if export is not None:
        _export(unit, export)
    found = {
        "written": timed.resolved.written,
        "digest": timed.resolved.digest,
        "seconds": {kind: round(seconds, 3) for kind, seconds in timed.seconds.items()},
    }
    nothing = None if any(result.windows for result in timed.resolved.results) else _why_nothing(unit)
    if as_json:
        print_json(found | ({"nothing_to_do": nothing} if nothing else {}))
        return
    table = Table("level", "units", "windows changed", "identities", "joins", "for review", "rows")
    for level in reversed(Level):
        results = [result for result in timed.resolved.results if level_of(result.unit) is level]
        counts = (
            len(results),
            sum(result.changed for result in results),
            sum(result.identities for result in results),
            sum(result.joins for result in results),
            sum(result.reviews for result in results),
            sum(result.written for result in results),
        )
        table.add_row(level, *map(str, counts))
    out().print(table)
    out().print(", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in timed.seconds.items()))
    if nothing:
        out().print(f"nothing to do: {nothing}", soft_wrap=True)
    out().print(f"decision digest {timed.resolved.digest}", soft_wrap=True)
    if any(result.reviews for result in timed.resolved.results) and not any(r.joins for r in timed.resolved.results):
        out().print(
            "nothing was joined, as long as the model in use has no calibration: see `urban-reid models calibrate "
            "--help`"
        )


def _again(parameters: ResolveParameters, approval: ApprovalParameters) -> ResolveParameters:
    """Marks the windows of the period to be decided again; the parameters of the resolve that must follow."""
    from pipeline.resolve.again import decide_again
    from pipeline.store import Store
    from urban_reid import running

    with running.ready(settings(), parameters.unit), Store.open(settings(), "urban-reid resolve") as store:
        decide_again(store, parameters.unit, parameters, operator=approval.operator, reason=approval.reason)
    return ResolveParameters(unit=parameters.unit)


def _why_nothing(unit: str) -> str:
    from pipeline.resolve.again import why_nothing
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid resolve") as store, store.begin() as connection:
        return why_nothing(connection, unit)


def _check_export(unit: str) -> None:
    """Raises NotAllowed before the work rather than after it."""
    from pipeline.governance.doors import check_authorized
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid resolve") as store:
        check_authorized(store, unit, "an export of assignments")


def _export(unit: str, file: Path) -> None:
    from pipeline.city.assignments import write_assignments
    from pipeline.governance.written import record_written
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid resolve") as store:
        with store.begin() as connection:
            record_written(connection, "assignments", file, unit=unit)
        try:
            write_assignments(store, unit, file)
        except OSError as error:
            raise InputError(f"--export {file}: cannot be written: {error.strerror}") from None
