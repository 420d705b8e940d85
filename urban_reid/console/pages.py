"""Renders the console's pages: Jinja templates, everything escaped, in the colors and type of the report."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined

from pipeline.association.log_odds import probability
from pipeline.report import curves, timeline
from pipeline.report.thumbnails import Picture
from pipeline.store.errors import not_allowed
from schemas.levels import level_of
from schemas.roles import Role
from schemas.text import one_line
from schemas.times import period_text
from urban_reid.console import texts
from urban_reid.console.pictures import address
from urban_reid.console.refusals import on_page, sent
from urban_reid.console.texts import N_
from urban_reid.console.visitors import Visitor
from urban_reid.permissions import PAGES

#: Files of the pages' own, and their kinds.
STATIC = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "review.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
#: What the pages above all others lead to: address, label, and name in `urban_reid.permissions.PAGES`.
_MENU = (
    ("/", N_("Overview"), "overview"),
    ("/search", N_("Search"), "search"),
    ("/review", N_("Review"), "review"),
    ("/cases", N_("Cases"), "cases"),
    ("/leads", N_("Leads"), "leads"),
    ("/cameras", N_("Cameras"), "cameras"),
    ("/runs", N_("Runs"), "runs"),
    ("/models", N_("Models"), "models"),
    ("/audit", N_("Audit"), "audit"),
    ("/settings", N_("Settings"), "settings"),
)


def menu_of(visitor: Visitor | None) -> list[tuple[str, str, str]]:
    """The pages that a visitor gets; in an open home all but those about cases, which it has none of."""
    if visitor is None:
        return []
    if visitor.grant.is_open:
        return [entry for entry in _MENU if entry[2] not in ("cases", "leads")]
    return [entry for entry in _MENU if (roles := PAGES[entry[2]]) is None or visitor.grant.role in roles]


def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("urban_reid.console"), PrefixLoader({"report": PackageLoader("pipeline.report")})]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"probability": probability, "advised": _advised}
    texts.install(environment, _shown)
    return environment


def _advised(said: str) -> str:
    """A sentence of a layer below, which may name a command, as a page says it."""
    return on_page(not_allowed(said))


@dataclass
class Pages:
    _environment: Environment = field(default_factory=lambda: _environment())

    def render(self, name: str, visitor: Visitor | None, **values: Any) -> str:
        """The text of a page. `zone`, among the values, is that of its times."""
        zone: ZoneInfo = values.get("zone") or ZoneInfo("UTC")
        template = self._environment.get_template(f"{name}.html.jinja")

        def picture(one: Picture, height_px: int = 320) -> str:
            assert visitor is not None
            return address(one, visitor, height_px)

        def at(moment: datetime) -> str:
            return f"{texts.day(moment.astimezone(zone))} {moment.astimezone(zone):%H:%M}"

        units = values["city"].units if "city" in values else ()
        return template.render(
            names={unit.code: unit.name or unit.code.rpartition("/")[2] for unit in units},
            page=name,
            visitor=visitor,
            menu=menu_of(visitor),
            picture=picture,
            language=texts.language().code,
            when=lambda first, last: period_text(first, last, zone, dash="–", day=texts.day),
            clock=lambda moment: f"{moment.astimezone(zone):%H:%M:%S}",
            ago=lambda moment: texts.duration((datetime.now(zone) - moment).total_seconds()),
            at=at,
            shown_at=at(datetime.now(zone)),
            shown_zone=zone.key,
            duration=texts.duration,
            level_of=lambda code: level_of(code).value,
            timeline_layout=timeline,
            curve_layout=curves,
            sent=sent,
            roles=[role.value for role in Role],
            **({"away": ()} | values),
        )

    def static(self, name: str) -> bytes | None:
        """A file of the pages' own by name; None if there is none."""
        return _static(name) if name in STATIC else None


@cache
def _static(name: str) -> bytes:
    own = files("urban_reid.console").joinpath("static", name).read_bytes()
    if name != "console.css":
        return own
    return files("pipeline.report").joinpath("templates", "report.css").read_bytes() + own


def _shown(value: Any) -> Any:
    """Applied to every expression of a template."""
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    if isinstance(value, UUID):
        return str(value)
    return one_line(value) if type(value) is str else value
