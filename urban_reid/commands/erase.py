"""urban-reid erase: removes a person from the city, and proves that they are gone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import UsageError
from schemas.parameters import ApprovalParameters
from schemas.roles import Role
from schemas.settings import settings
from urban_reid.arguments import AsJson, Operator, checked
from urban_reid.output import out, print_json, say, shown

if TYPE_CHECKING:
    from pipeline.erasure.erase import Erased
    from pipeline.store import Store

app = typer.Typer()


@app.command(epilog='Example: urban-reid erase --identity 3f2a81c0 --reason "request 12 under GDPR Art. 17"')
def erase(
    identity: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A person: an identity's id, or its first digits.")
    ] = None,
    crop: Annotated[list[str] | None, typer.Option(metavar="KEY", help="One crop, by its key.")] = None,
    probe: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="An uploaded picture, with its searches.")
    ] = None,
    case: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="All searches of a case, with their pictures and hits.")
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Prove that an erasure, or a person, key or picture's SHA-256 that was erased, is gone."
        ),
    ] = None,
    scrub: Annotated[
        bool, typer.Option("--scrub", help="Write the database's files anew, so that the disk forgets it too.")
    ] = False,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="The reason; written to the audit.")] = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Erase people, crops, uploaded pictures or cases: rows, vectors, pictures, hits, reports and exports of ours.

    Decisions and audit keep hashes, so that the decision digest and the audit's chain verify as before. Each option may
    be given several times. An erasure that was interrupted goes on with the next.
    """
    from pipeline.governance.doors import check_role
    from pipeline.store import Store

    asked = {"identity": identity, "crop": crop, "probe": probe, "case": case}
    kinds = {kind: names for kind, names in asked.items() if names}
    if len(kinds) > 1 or (kinds and verify):
        raise UsageError("name one kind of thing at a time: --identity, --crop, --probe, --case or --verify")
    if not kinds and not verify and not scrub:
        raise UsageError("name what to erase: --identity, --crop, --probe or --case; or --verify ID, or --scrub")
    actor = operator or settings().operator
    found: dict[str, Any] = {}
    with Store.open(settings(), "urban-reid erase") as store:
        grant = check_role(store, (Role.ADMINISTRATOR,), "erasing")
        actor = grant.name or actor
        for kind, names in kinds.items():
            approval = checked(ApprovalParameters, operator=actor, reason=reason or "")
            found |= _erase(store, kind, names, approval, as_json)
        if verify:
            found |= _verify(store, verify, actor, as_json)
    if scrub:
        found |= _scrub(as_json)
    if as_json:
        print_json(found)
    if found.get("found"):
        raise typer.Exit(1)


def _erase(
    store: "Store", kind: str, names: Sequence[str], approval: ApprovalParameters, as_json: bool
) -> dict[str, Any]:
    from pipeline.backup.earlier import earlier_backups
    from pipeline.erasure.erase import erase as erase_names

    done = erase_names(store, kind, names, actor=approval.operator, reason=approval.reason, on_wait=say)
    backups = earlier_backups(store)
    if not as_json:
        _say_erased(done)
        for line in backups:
            out().print(shown(f"still there: {line}"), soft_wrap=True)
    return {"erasure": str(done.id), "counts": dict(done.counts), "left": list(done.left), "backups": backups}


def _say_erased(done: "Erased") -> None:
    counts = done.counts
    line = (
        f"erased {counts['crops']} crops, {counts['pictures']} pictures, {counts['versions']} versions of identities, "
        f"{counts['searches']} searches; the texts of {counts['audit_rows']} rows of the audit; as erasure {done.id}"
    )
    out().print(line, soft_wrap=True)
    if counts.get("units_to_resolve"):
        out().print("people who were joined with them are resolved again: `urban-reid resolve`", soft_wrap=True)
    for left in done.left:
        out().print(shown(f"not reached: {left}"), soft_wrap=True)


def _verify(store: "Store", what: str, actor: str, as_json: bool) -> dict[str, Any]:
    from pipeline.erasure.absence import verify_absence

    absence = verify_absence(store, what, actor=actor)
    if not as_json:
        for line in absence.found:
            out().print(shown(line), soft_wrap=True)
        where = "rows, partitions, pictures, reports, exports and Prefect's database"
        said = f"found in {len(absence.found)} places" if absence.found else f"absent from {where}"
        out().print(f"{absence.hashes} erased names: {said}", soft_wrap=True)
    return {"names": absence.hashes, "found": list(absence.found)}


def _scrub(as_json: bool) -> dict[str, Any]:
    from pipeline.erasure.scrub import scrub

    done = scrub(settings())
    if not as_json:
        out().print(f"database written anew: {done.before} bytes before, {done.after} now", soft_wrap=True)
    return {"bytes_before": done.before, "bytes_after": done.after}
