"""The audit for auditors: rows, whether anybody changed them, and all of it to take along."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Form
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.background import BackgroundTask

from pipeline.governance.audit import Action, read_audit
from pipeline.governance.audit_chain import verify_city
from pipeline.governance.audit_export import export
from pipeline.governance.audit_report import note_reading
from pipeline.governance.doors import check_role
from pipeline.governance.verify_audit import Verdict
from schemas.parameters import ApprovalParameters
from schemas.roles import Role
from urban_reid.console.context import Console, Here, Sending, gets
from urban_reid.console.forms import checked
from urban_reid.console.refusals import shown_on
from urban_reid.console.texts import N_
from urban_reid.console.visitors import Visitor
from urban_reid.console.words import ACTIONS

routes = APIRouter()
#: Rows on a page.
_A_PAGE = 100


@routes.get("/audit")
def audit_page(
    here: Here,
    found: Annotated[Visitor, Depends(gets("audit"))],
    action: str = "",
    actor: str = "",
    unit: str = "",
    before: int | None = None,
) -> HTMLResponse:
    return _page(here, found, action, actor, unit, before)


@routes.post("/audit/verify")
def verify(here: Here, found: Sending) -> HTMLResponse:
    check_role(found.store, (Role.AUDITOR,), N_("verifying the audit"))
    return _page(here, found, verdict=verify_city(here.store))


@routes.post("/audit/export")
@shown_on(audit_page)
def export_now(here: Here, found: Sending, reason: Annotated[str, Form()]) -> Response:
    check_role(found.store, (Role.AUDITOR,), N_("an export of the audit"))
    approval = checked(ApprovalParameters, operator=found.name, reason=reason)
    # Not where others of the machine could put a folder of its name after it is gone: an erasure looks there.
    folder = Path(tempfile.mkdtemp(prefix="audit-export-", dir=here.store.settings.home))
    try:
        export(found.store, folder / "audit", operator=approval.operator, reason=approval.reason)
        packed = shutil.make_archive(str(folder / "packed"), "zip", folder, "audit")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    gone = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
    return FileResponse(packed, filename="audit.zip", media_type="application/zip", background=gone)


def _page(
    here: Console,
    found: Visitor,
    action: str = "",
    actor: str = "",
    unit: str = "",
    before: int | None = None,
    verdict: Verdict | None = None,
) -> HTMLResponse:
    asked = {"action": action or None, "actor": actor or None, "unit": unit or None}
    note_reading(found.store, Action.AUDIT_SHOW, asked | {"before": before, "last": _A_PAGE})
    with found.store.signed_in() as connection:
        rows = read_audit(
            connection,
            action=asked["action"],
            actor=asked["actor"],
            unit=asked["unit"],
            before=before,
            last=_A_PAGE + 1,
        )
    more, rows = len(rows) > _A_PAGE, list(reversed(rows))[:_A_PAGE]
    values = {
        "rows": rows,
        "next": rows[-1].id if more else None,
        "verdict": verdict,
        "actions": sorted(Action),
        "said": ACTIONS,
    }
    return here.page("audit", found, action=action, actor=actor, unit=unit, **values)
