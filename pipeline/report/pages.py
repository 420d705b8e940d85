"""The pages: Jinja templates, everything escaped, and a policy in each page that lets nothing in from elsewhere."""

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

from pipeline.report import curves, journey, tree
from pipeline.report.contents import JOINS_A_LEVEL, REVIEWS_A_LEVEL, Contents
from pipeline.report.evidence import Side
from pipeline.report.read import Person, Sighting
from schemas.cards import probability
from schemas.levels import UPWARD
from schemas.text import one_line

PAGES = ("index.html", "identities.html", "joins.html", "review.html")
#: What the first page shows of each.
FIRST_JOURNEYS = 4
FIRST_PAIRS = 2  # of each level
CLOCKS = 20


def render(contents: Contents, missing: Collection[str], decisions: int) -> dict[str, str]:
    """Each page's file name and text. `missing`: thumbnails that are not there; `decisions`: lines of their file."""
    css = files(__package__).joinpath("templates", "report.css").read_text(encoding="utf-8")
    style_hash = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    environment = _environment(contents)
    context = {
        "c": contents,
        "missing": missing,
        "decisions": decisions,
        "css": Markup(css),  # noqa: S704 - our own file
        "policy": f"default-src 'none'; style-src 'sha256-{style_hash}'; img-src 'self' file:; base-uri 'none'; "
        "form-action 'none'",
        "period": _period(contents),
        "downward": tuple(reversed(UPWARD[1:])),
        "joins_a_level": JOINS_A_LEVEL,
        "reviews_a_level": REVIEWS_A_LEVEL,
        "first_journeys": FIRST_JOURNEYS,
        "first_pairs": FIRST_PAIRS,
        "most_clocks": CLOCKS,
        "picture": tree,
        "plot": curves,
        "way": journey,
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
    zone = contents.timezone
    names = {unit.code: unit.name for unit in contents.units}
    positions = {person.persistent_id: number for number, person in enumerate(contents.people, 1)}

    def name(code: str) -> str:
        return names[code] or code.rpartition("/")[2]

    def place(code: str) -> str:
        """The names from the street down to the unit."""
        units = _path(code)
        return " › ".join(name(unit) for unit in units[1:] or units)

    environment.filters |= {
        "name": name,
        "place": place,
        "below": lambda code, unit: " › ".join(name(u) for u in _path(code)[unit.count("/") + 1 :]),
        "many": lambda number: f"{number:,}",
        "plural": lambda number, word, words=None: f"{number:,} {word if number == 1 else words or word + 's'}",
        "short": lambda value: (value.hex if isinstance(value, UUID) else value.hex())[:8],
        "clock": lambda moment: _clock(moment, zone),
        "day": lambda moment: (
            f"{moment.astimezone(zone):%a} {moment.astimezone(zone).day} {moment.astimezone(zone):%b %Y}"
        ),
        "brief": lambda moment: f"{moment.day} {moment:%b}" if contents.several_days else f"{moment:%H:%M}",
        "when": lambda seen: _when(seen, zone, dated=contents.several_days),
        "duration": duration,
        "fixed": lambda value, digits=2: f"{value:.{digits}f}",
        "signed": lambda value, digits=2: f"{value:+.{digits}f}".replace("-", "−"),
        "probability": probability,
        "percent": lambda share: f"{share:.1%}",
        "number": lambda person_id: positions.get(person_id),
    }
    return environment


def _path(code: str) -> list[str]:
    """The district, street, building and camera that lead to a unit, itself the last."""
    parts = code.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _shown(value: Any) -> Any:
    """What every expression of a template becomes: text on one line and no control characters, short numbers."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return one_line(value) if isinstance(value, str) else value


def _clock(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%H:%M:%S}"


def _when(seen: Sighting | Person | Side, zone: ZoneInfo, *, dated: bool) -> str:
    """09:03:12–09:03:20; with the day where the report spans several."""
    if not seen.timed:
        return "time not known"
    first, last = seen.first_seen.astimezone(zone), seen.last_seen.astimezone(zone)
    if first.date() != last.date():
        return f"{first.day} {first:%b %H:%M} – {last.day} {last:%b %H:%M}"
    start, end = f"{first:%H:%M:%S}", f"{last:%H:%M:%S}"
    day = f"{first.day} {first:%b} " if dated else ""
    return day + (start if start == end else f"{start}–{end}")


def _period(contents: Contents) -> str | None:
    """Thu 1 Jan 2026, 09:00–09:23; None where times are not known."""
    if contents.ends is None:
        return None
    first, last = contents.ends
    if first.date() == last.date():
        return f"{first:%a} {first.day} {first:%b %Y}, {first:%H:%M}–{last:%H:%M}"
    return f"{first:%a} {first.day} {first:%b %Y, %H:%M} – {last:%a} {last.day} {last:%b %Y, %H:%M}"


def duration(seconds: float) -> str:
    """8 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    whole = round(abs(seconds))
    for size, unit, smaller, part in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{abs(seconds):.1f} s" if abs(seconds) < 10 else f"{whole} s"
