"""Renders the pages: Jinja templates, everything escaped, each with a policy that forbids loading from elsewhere."""

import base64
import hashlib
from collections.abc import Collection
from datetime import datetime
from importlib.resources import files
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.association.log_odds import probability
from pipeline.report import curves, timeline, tree
from pipeline.report.contents import JOINS_A_LEVEL, REVIEWS_A_LEVEL, Contents
from pipeline.report.evidence import Side
from pipeline.report.identities import DistrictIdentity, Tracklet
from schemas.levels import UPWARD
from schemas.text import one_line
from schemas.times import period_text

PAGES = ("index.html", "identities.html", "joins.html", "review.html")
#: Most entries that the first page shows.
_FIRST_TIMELINES = 4
_FIRST_PAIRS = 2  # of each level
_CLOCKS = 20
_OUTAGES = 50


def render(contents: Contents, missing: Collection[str], decisions: int) -> dict[str, str]:
    """The text of each page by file name.

    `missing`: names of thumbnails that could not be written. `decisions`: number of lines of decisions.jsonl.
    """
    css = files(__package__).joinpath("templates", "report.css").read_text(encoding="utf-8")
    style_hash = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    environment = _environment(contents)
    context = {
        "c": contents,
        "missing": missing,
        "decisions": decisions,
        "css": Markup(css),  # noqa: S704 - a file of this package # nosec B704
        "policy": f"default-src 'none'; style-src 'sha256-{style_hash}'; img-src 'self' file:; base-uri 'none'; "
        "form-action 'none'",
        "period": None if contents.ends is None else period_text(*contents.ends, contents.timezone, dash="–"),
        "downward": tuple(reversed(UPWARD[1:])),
        "joins_a_level": JOINS_A_LEVEL,
        "reviews_a_level": REVIEWS_A_LEVEL,
        "first_timelines": _FIRST_TIMELINES,
        "first_pairs": _FIRST_PAIRS,
        "most_clocks": _CLOCKS,
        "most_outages": _OUTAGES,
        "tree_layout": tree,
        "curve_layout": curves,
        "timeline_layout": timeline,
    }
    return {name: environment.get_template(f"{name}.jinja").render(context, page=name) for name in PAGES}


def _environment(contents: Contents) -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__ or "pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    # Templates that it shares with the console mark their texts; the report is English.
    environment.add_extension("jinja2.ext.i18n")
    environment.install_null_translations(newstyle=True)  # type: ignore[attr-defined]
    zone = contents.timezone
    names = {unit.code: unit.name for unit in contents.units}
    numbers = {identity.persistent_id: number for number, identity in enumerate(contents.identities, 1)}

    def name(code: str) -> str:
        return names[code] or code.rpartition("/")[2]

    def place(code: str) -> str:
        """The names from the street down to the unit; of a district its own name."""
        units = _path(code)
        return " › ".join(name(unit) for unit in units[1:] or units)

    environment.filters |= {
        "name": name,
        "place": place,
        "below": lambda code, unit: " › ".join(name(u) for u in _path(code)[unit.count("/") + 1 :]),
        "figure": lambda number: f"{number:,}",
        "told": str,
        "plural": lambda number, word, words=None: f"{number:,} {word if number == 1 else words or word + 's'}",
        "short": lambda value: (value.hex if isinstance(value, UUID) else value.hex())[:8],
        "clock": lambda moment: _clock(moment, zone),
        "day": lambda moment: (
            f"{moment.astimezone(zone):%a} {moment.astimezone(zone).day} {moment.astimezone(zone):%b %Y}"
        ),
        "brief": lambda moment: f"{moment.day} {moment:%b}" if contents.several_days else f"{moment:%H:%M}",
        "when": lambda seen: _when(seen, zone, dated=contents.several_days),
        "duration": duration,
        "outage": lambda outage: outage.when(zone).replace("-", "–"),
        "fixed": lambda value, digits=2: f"{value:.{digits}f}",
        "signed": lambda value, digits=2: f"{value:+.{digits}f}".replace("-", "−"),
        "probability": probability,
        "percent": lambda share: f"{share:.1%}",
        "number": lambda persistent_id: numbers.get(persistent_id),
    }
    return environment


def _path(code: str) -> list[str]:
    """The codes from the district down to the unit itself."""
    parts = code.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _shown(value: Any) -> Any:
    """Applied to every expression of a template: text on one line without control characters, floats with one digit."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return one_line(value) if isinstance(value, str) else value


def _clock(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%H:%M:%S}"


def _when(seen: Tracklet | DistrictIdentity | Side, zone: ZoneInfo, *, dated: bool) -> str:
    """The period in which it was seen, with the day if the report covers several."""
    if not seen.timed:
        return "time not known"
    return period_text(seen.first_seen, seen.last_seen, zone, dated=dated, dash="–")


def duration(seconds: float) -> str:
    """8 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    whole = round(abs(seconds))
    for size, unit, smaller, part in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{abs(seconds):.1f} s" if abs(seconds) < 10 else f"{whole} s"
