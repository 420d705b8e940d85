"""Renders the console's pages: Jinja templates, everything escaped, in the colors and type of the report."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.report import timeline
from pipeline.report.pages import duration
from pipeline.report.thumbnails import Picture
from schemas.levels import level_of
from schemas.roles import Role
from schemas.text import one_line
from schemas.times import period_text
from urban_reid.console.pictures import address
from urban_reid.console.visitors import Visitor

_STATIC = {"console.css": None, "console.js": None}


@dataclass
class Pages:
    _environment: Environment = field(
        default_factory=lambda: Environment(
            loader=PackageLoader("urban_reid.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_shown,
        )
    )

    def render(self, name: str, visitor: Visitor | None, **values: Any) -> str:
        """The text of a page. `zone`, among the values, is that of its times."""
        zone: ZoneInfo = values.get("zone") or ZoneInfo("UTC")
        template = self._environment.get_template(f"{name}.html.jinja")

        def picture(one: Picture, height_px: int = 320) -> str:
            assert visitor is not None
            return address(one, visitor, height_px)

        return template.render(
            page=name,
            visitor=visitor,
            picture=picture,
            when=lambda first, last: period_text(first, last, zone, dash="–"),
            clock=lambda moment: f"{moment.astimezone(zone):%H:%M:%S}",
            ago=lambda moment: duration((datetime.now(zone) - moment).total_seconds()),
            at=lambda moment: f"{moment.astimezone(zone):%d %b %Y %H:%M}".lstrip("0"),
            duration=duration,
            level_of=lambda code: level_of(code).value,
            timeline_layout=timeline,
            roles=[role.value for role in Role],
            **values,
        )

    def static(self, name: str) -> bytes | None:
        """A file of the pages' own by name; None if there is none."""
        return _static(name) if name in _STATIC else None


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
