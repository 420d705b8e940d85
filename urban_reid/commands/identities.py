"""urban-reid identities: statements of operators about identities."""

from typing import Annotated

import typer

from schemas.parameters import ApprovalParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, Operator, Reason, checked
from urban_reid.earlier_names import Command
from urban_reid.output import out, print_json, shown

app = typer.Typer(help="Confirm or deny that an identity is one person.", no_args_is_help=True)


@app.callback()
def identities() -> None:
    """Makes typer keep `confirm` as a subcommand although it is the only one."""


@app.command(
    cls=Command,
    epilog='Example: urban-reid identities confirm 3f2a81c0 --operator anna --reason "order 12; all 14 crops seen"',
)
def confirm(
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="The identity's id, or its first digits as in the report.")
    ],
    reason: Reason,
    operator: Operator = None,
    not_one_person: Annotated[
        bool,
        typer.Option(
            "--not-one-person", help="The identity shows several people, or an earlier confirmation was wrong."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Confirm that all crops of a district's identity, as it is now, show one person. Training may use them."""
    from pipeline.store import Store
    from pipeline.training.confirmations import confirm as write

    approval = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    with Store.open(settings(), "urban-reid identities") as store:
        done = write(
            store, identity, operator=approval.operator, reason=approval.reason, is_one_person=not not_one_person
        )
    if as_json:
        print_json({"identity": done.identity, "crops": done.crops, "is_one_person": not not_one_person})
    else:
        what = "not one person" if not_one_person else "one person"
        out().print(f"{shown(done.identity)} of {shown(done.unit)}, {done.crops} crops: recorded as {what}")
