"""urban-reid keys: the key file, and the keys of districts and days that it wraps."""

import typer

from schemas.parameters import ApprovalParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson, Operator, Reason, checked
from urban_reid.output import Table, out, print_json, shown

app = typer.Typer(help="The keys that encrypt pictures and backups.", no_args_is_help=True)


@app.command(epilog="Example: urban-reid keys show")
def show(as_json: AsJson = False) -> None:
    """Show where the key file is, its id, and of how many days there are keys. Tries one of these; shows none."""
    from pipeline.governance.keys import keys_of

    found = keys_of(settings())
    if as_json:
        print_json({"file": str(found.file), "id": found.id, "within_home": found.within_home, "days": found.days})
        return
    where = ", in the data directory" if found.within_home else ""
    what = f", id {found.id}" if found.id else ", which the first picture makes"
    out().print(f"key file {shown(found.file)}{where}{what}", soft_wrap=True)
    table = Table("of", "days")
    for owner, days in found.days.items():
        table.add_row(shown(owner), str(days))
    out().print(table)


@app.command(epilog='Example: urban-reid keys renew --reason "yearly"')
def renew(reason: Reason, operator: Operator = None, as_json: AsJson = False) -> None:
    """Make a new key file, and wrap all keys with it; no picture is written anew.

    The key before stays beside it, as NAME.ID: backups made until now need it. Remove it when those are gone.
    """
    from pipeline.governance.keys import renew_key
    from pipeline.store import Store

    approval = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    with Store.open(settings(), "urban-reid keys") as store:
        wrapped = renew_key(store, operator=approval.operator, reason=approval.reason)
    if as_json:
        print_json({"wrapped": wrapped})
    else:
        out().print(f"a new key file wraps {wrapped} keys; keep a copy of it, and the one before for earlier backups")
