"""urban-reid leads: hits of searches, confirmed by two people who did not ask for them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.settings import settings
from urban_reid.arguments import AsJson, Reason
from urban_reid.commands.cases import checked_reason
from urban_reid.output import Table, out, print_json, shown

if TYPE_CHECKING:
    from pipeline.store import Store

app = typer.Typer(help="Leads, and whether two people confirm them.", no_args_is_help=True)

Lead = Annotated[str, typer.Argument(metavar="ID", help="The lead's id, or its first digits.")]


def _store() -> "Store":
    from pipeline.store import Store

    return Store.open(settings(), "urban-reid leads")


@app.command("list", epilog="Example: urban-reid leads list")
def list_(as_json: AsJson = False) -> None:
    """List the leads of the case that you are signed in under, in no order: the score is not shown.

    open: fewer than two have answered; differ: a third has to look; confirmed, rejected: two agreed.
    """
    from pipeline.governance.leads import leads

    with _store() as store:
        rows = leads(store)
    if as_json:
        found = [
            {
                "lead": str(row.id),
                "unit": row.unit,
                "asked_by": row.asked_by,
                "verdict": row.verdict,
                "own_answer": row.own_answer,
            }
            for row in rows
        ]
        print_json({"leads": found})
        return
    table = Table("lead", "unit", "asked for by", "verdict", "your answer")
    for row in rows:
        own = {None: "", True: "same", False: "another"}[row.own_answer]
        table.add_row(str(row.id)[:8], shown(row.unit), shown(row.asked_by), row.verdict, own)
    out().print(table)


@app.command(epilog="Example: urban-reid leads show 3f2a81c0 --out ./lead")
def show(
    lead: Lead,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the two pictures.")],
    as_json: AsJson = False,
) -> None:
    """Write the picture that was searched with and the lead's into a folder.

    That you saw them is written to the audit first.
    """
    from pipeline.crops.crop_store import CropStore
    from pipeline.governance.leads import show_lead

    with _store() as store:
        found = show_lead(store, CropStore(settings()), lead, out_dir)
    if as_json:
        print_json({"lead": str(found.lead), "sought": str(found.sought), "found": str(found.found)})
    else:
        out().print(f"sought  {shown(found.sought)}", soft_wrap=True)
        out().print(f"lead    {shown(found.found)}", soft_wrap=True)


@app.command(epilog='Example: urban-reid leads answer 3f2a81c0 --same --reason "coat, bag and gait"')
def answer(
    lead: Lead,
    reason: Reason,
    same: Annotated[bool, typer.Option("--same/--another", help="Whether both pictures show the same person.")],
    as_json: AsJson = False,
) -> None:
    """Say whether both pictures show one person. Neither the requester nor the approver can, and nobody twice.

    Two who agree decide; where they differ, a third does. You see the others' answers once it is decided.
    """
    from pipeline.governance.leads import answer_lead

    with _store() as store:
        found, verdict = answer_lead(store, lead, is_same=same, reason=checked_reason(reason))
    if as_json:
        print_json({"lead": str(found), "verdict": verdict})
    else:
        out().print(f"{found}: {verdict}")
