"""urban-reid audit: who did what, verified, shown and exported."""

from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.parameters import ApprovalParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, FromTime, Operator, Reason, ToTime, checked, moment
from urban_reid.output import Table, out, print_json, shown

app = typer.Typer(help="Who did what, and that nobody changed the record of it.", no_args_is_help=True)


@app.command(epilog="Example: urban-reid audit verify --key 5f0c...")
def verify(
    key: Annotated[
        str | None,
        typer.Option(metavar="FINGERPRINT", help="The key that must have signed the checkpoints; else this home's."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find changed, removed, moved and added rows of the audit, and an end that was cut since the last checkpoint.

    Exit code 1 if there are any. Without checkpoints kept elsewhere, the database's owner can write all of it anew.
    """
    from pipeline.governance.audit_chain import checkpoints_path, verify_city
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid audit") as store:
        verdict = verify_city(store, key)
    if as_json:
        print_json(
            {
                "ok": not verdict.faults,
                "faults": verdict.faults,
                "rows": verdict.rows,
                "erased": verdict.erased,
                "checkpoints": verdict.checkpoints,
                "heads": verdict.heads,
            }
        )
    else:
        for fault in verdict.faults:
            out().print(shown(fault), soft_wrap=True)
        out().print(str(verdict), soft_wrap=True)
        if not verdict.checkpoints:
            where = shown(checkpoints_path(settings()))
            out().print(f"no checkpoint in {where}: `urban-reid audit checkpoint` signs one", soft_wrap=True)
    if verdict.faults:
        raise typer.Exit(1)


@app.command(epilog="Example: urban-reid audit checkpoint")
def checkpoint(as_json: AsJson = False) -> None:
    """Sign how far the audit has come, and append that to the file of checkpoints (URBAN_REID_AUDIT_CHECKPOINTS).

    `urban-reid up` does it every hour. Keep the file where the database's owner cannot change it.
    """
    from pipeline.governance.audit_chain import sign_checkpoint
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid audit") as store:
        signed = sign_checkpoint(store)
    if as_json:
        print_json({"rows": signed.rows, "file": str(signed.path), "key": signed.key, "at": signed.at.isoformat()})
    else:
        out().print(f"{signed.rows} rows signed in {shown(signed.path)}, key {signed.key}", soft_wrap=True)


@app.command(epilog="Example: urban-reid audit show --action search.start --last 20")
def show(
    action: Annotated[str | None, typer.Option(metavar="NAME", help="Only this action, such as search.start.")] = None,
    actor: Annotated[str | None, typer.Option(metavar="USER", help="Only what this user did.")] = None,
    unit: Annotated[str | None, typer.Option(metavar="CODE", help="Only of this unit and all below it.")] = None,
    from_time: FromTime = None,
    to_time: ToTime = None,
    last: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show rows of the audit, oldest first. The look is itself a row of it."""
    from pipeline.governance.audit import Action, read_audit
    from pipeline.governance.audit_report import note_reading
    from pipeline.store import Store

    asked = {"action": action, "actor": actor, "unit": unit, "from": from_time, "to": to_time, "last": last}
    with Store.open(settings(), "urban-reid audit") as store:
        note_reading(store, Action.AUDIT_SHOW, asked)
        with store.signed_in() as connection:
            rows = read_audit(
                connection,
                action=action,
                actor=actor,
                unit=unit,
                start=moment(from_time),
                end=moment(to_time),
                last=last,
            )
    if as_json:
        print_json({"rows": [_as_json(row) for row in rows]})
        return
    table = Table("time (UTC)", "who", "what", "unit", "reason", "details")
    for row in rows:
        cells = (f"{row.at:%Y-%m-%d %H:%M:%S}", row.actor, row.action, row.unit or "", row.reason or "", row.details)
        table.add_row(*map(shown, cells))
    out().print(table)


@app.command(
    epilog="Example: urban-reid audit report --from 2026-01-01T00:00:00Z --to 2027-01-01T00:00:00Z --out 2026.md"
)
def report(
    from_time: FromTime = None,
    to_time: ToTime = None,
    file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="A new file for the page; else it is printed.")
    ] = None,
    counts: Annotated[bool, typer.Option("--counts", help="Only counts by year, as JSON: nobody is named.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a page on a period: searches by purpose and unit, refusals, exports, erasures. No reason, nobody sought."""
    from pipeline.governance.audit_report import report as read
    from pipeline.store import Store
    from schemas.disk import write_whole
    from schemas.errors import InputError

    start, end = moment(from_time), moment(to_time)
    if start is not None and end is not None and end <= start:
        raise InputError(f"--to {to_time} is not after --from {from_time}")
    if file is not None and file.exists():
        raise InputError(f"{file} is there already; name another file")
    with Store.open(settings(), "urban-reid audit") as store:
        period = read(store, start, end)
    if counts or as_json:
        print_json(dict(period.counts()) if counts else period.as_json())
    elif file is None:
        for line in period.page().splitlines():
            out().print(shown(line), soft_wrap=True)
    else:
        try:
            write_whole(file, period.page(), mode=0o600)
        except OSError as error:
            raise InputError(f"{file} cannot be written: {error.strerror or error}") from None
        out().print(shown(file), soft_wrap=True)


@app.command(epilog='Example: urban-reid audit export ./audit-2026 --reason "yearly report to the regulator"')
def export(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    reason: Reason,
    operator: Operator = None,
    from_time: FromTime = None,
    as_json: AsJson = False,
) -> None:
    """Write the audit, its checkpoints, a page to read, and the program that verifies them anywhere."""
    from pipeline.governance.audit_export import export as write
    from pipeline.store import Store

    approval = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    with Store.open(settings(), "urban-reid audit") as store:
        rows = write(store, folder, operator=approval.operator, reason=approval.reason, since=moment(from_time))
    if as_json:
        print_json({"rows": rows, "folder": str(folder)})
    else:
        line = f"{rows} rows in {shown(folder)}; `python verify_audit.py .` there verifies them"
        out().print(line, soft_wrap=True)


def _as_json(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "at": row.at.isoformat(),
        "actor": row.actor,
        "action": row.action,
        "unit": row.unit,
        "reason": row.reason,
        "details": row.details,
    }
