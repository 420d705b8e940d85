"""What engineers look at: runs, models, settings."""

import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends, Form
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import SecretStr

from flows.server_process import read_record
from pipeline.browsing.models import read_models, read_switches
from pipeline.browsing.runs import read_runs
from pipeline.crops.crop_store import CropStore
from pipeline.governance.audit import working_under
from pipeline.governance.doors import check_role
from pipeline.governance.retention import DEFAULT_HOURS, read_retention
from pipeline.registry import ModelRow, find_model, models
from pipeline.training.promotion import Promotion, promote, rollback
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.parameters import ApprovalParameters
from schemas.roles import Role
from schemas.settings import Settings
from schemas.text import said
from urban_reid.console.context import Console, Here, Sending, gets
from urban_reid.console.forms import checked
from urban_reid.console.refusals import shown_on
from urban_reid.console.texts import N_, _
from urban_reid.console.visitors import Visitor

routes = APIRouter()


@routes.get("/runs")
def runs_page(
    here: Here, found: Annotated[Visitor, Depends(gets("runs"))], unit: str = "", before: int | None = None
) -> HTMLResponse:
    if unit:
        here.city()[0].check_unit(unit)
    with here.store.begin(only_reads=True) as connection:
        shown = read_runs(connection, unit or None, before)
    return here.page("runs", found, shown=shown, unit=unit, prefect=prefect_pages(here.store.settings))


def prefect_pages(settings: Settings) -> str | None:
    """The address of Prefect's pages, without user and password; None where no server was started."""
    if settings.prefect_url is not None:
        return _without_user(settings.prefect_url).removesuffix("/api")
    record = read_record(settings.home / "prefect" / "server.json")
    return None if record is None else record.url.removesuffix("/api")


@routes.get("/models")
def models_page(here: Here, found: Annotated[Visitor, Depends(gets("models"))]) -> HTMLResponse:
    registered = models(here.store)
    with here.store.begin() as connection:
        shown = read_models(connection, registered)
        switches = read_switches(connection)
    changes = found.grant.is_open or found.grant.role == Role.ENGINEER
    values = {"shown": shown, "switches": switches, "sureness": here.judging.now(), "changes": changes}
    return here.page("models", found, switching=here.switching, **values)


@routes.post("/models/promote")
@shown_on(models_page)
def promote_now(here: Here, found: Sending, name: Annotated[str, Form()], reason: Annotated[str, Form()]) -> Response:
    """Not one that there is something against: that takes the command line, and --force."""
    check_role(found.store, (Role.ENGINEER,), N_("a promotion"))
    approval = checked(ApprovalParameters, operator=found.name, reason=reason)
    with here.store.begin() as connection:
        find_model(connection, name)  # raises now rather than beside the pages
    _begin(here, found, said(f"{name} is getting ready"), partial(promote, name=name, **approval.model_dump()))
    return RedirectResponse("/models", 303)


@routes.post("/models/rollback")
@shown_on(models_page)
def rollback_now(here: Here, found: Sending, reason: Annotated[str, Form()]) -> Response:
    check_role(found.store, (Role.ENGINEER,), N_("a rollback"))
    approval = checked(ApprovalParameters, operator=found.name, reason=reason)
    _begin(here, found, said("the model of before is getting ready"), partial(rollback, **approval.model_dump()))
    return RedirectResponse("/models", 303)


def _begin(here: Console, found: Visitor, words: str, switch: Callable[..., Promotion]) -> None:
    ours = here.store.settings

    def core(model: ModelRow) -> ReIDCore:
        return open_core(ours, model.directory(ours))

    def work(tell: Callable[[int, int], None]) -> str:
        with nullcontext() if found.grant.is_open else working_under(found.token):
            done = switch(here.store, CropStore(ours), core, progress=tell)
        return said(
            f"{done.model} is in use instead of {done.before}: {done.done.crops:,} pictures were looked at again"
        )

    here.switching.begin(words, work)


@dataclass(frozen=True)
class SettingShown:
    """`value`: as it may be shown; of a secret only whether it is set."""

    name: str
    value: str
    is_set: bool  # in the environment; else it is what the program brings along
    description: str


def settings_shown(settings: Settings) -> list[SettingShown]:
    """All settings in the order of their names, without secrets."""
    found = []
    for name, about in Settings.model_fields.items():
        variable, value = f"URBAN_REID_{name.upper()}", getattr(settings, name)
        is_set = any(one.upper().split("__")[0] == variable and os.environ[one] for one in os.environ)
        if name == "association":
            for part, field_ in type(value).model_fields.items():
                inner = f"{variable}__{part.upper()}"
                stated = any(one.upper() == inner for one in os.environ)
                found.append(SettingShown(inner, _plain(getattr(value, part)), stated, field_.description or ""))
            continue
        shown = _of_secret(value) if _is_secret(name, about.annotation) else _plain(value)
        found.append(SettingShown(variable, shown, is_set, about.description or ""))
    return sorted(found, key=lambda one: one.name)


_ADDRESSES = ("database_url", "database_direct_url", "replica_url")


def _is_secret(name: str, kind: Any) -> bool:
    """An address of a database may hold a password anywhere."""
    return kind is SecretStr or SecretStr in _parts(kind) or name in _ADDRESSES


def _parts(kind: Any) -> set[Any]:
    return {kind} | {part for one in get_args(kind) for part in _parts(one)}


def _of_secret(value: Any) -> str:
    if isinstance(value, dict):
        return _("names: %(names)s", names=", ".join(sorted(value))) if value else ""
    return _("set, and not shown") if value is not None else ""


def _plain(value: Any) -> str:
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return _without_user(str(value))


def _without_user(said: str) -> str:
    """An address without user and password, and anything else as it is."""
    return re.sub("(?<=://).*@", "", said)


@routes.get("/settings")
def settings_page(here: Here, found: Annotated[Visitor, Depends(gets("settings"))]) -> HTMLResponse:
    with here.store.begin() as connection:
        retention = read_retention(connection)
    values = {"shown": settings_shown(here.store.settings), "retention": retention, "default_hours": DEFAULT_HOURS}
    return here.page("settings", found, **values)
