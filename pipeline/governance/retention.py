"""How long what is kept: hours by unit and level, each set by somebody with a reason.

A crop counts from the later of its capture and its ingest, an identity from the later of when it was last seen and when
that was decided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from schemas.city_file import unknown_unit
from schemas.errors import InputError
from schemas.levels import Level, level_of

#: Of live homes, at every level, unless somebody sets something else.
DEFAULT_HOURS = 72
#: From the camera up: crops and their vectors, then identities of each level.
LEVELS = (Level.CAMERA, Level.BUILDING, Level.STREET, Level.DISTRICT)

_READ = text(
    "SELECT DISTINCT ON (unit, level) unit, level, hours, set_by, reason, set_at FROM retention "
    "ORDER BY unit, level, id DESC"
)
_SET = text(
    "INSERT INTO retention (unit, level, hours, set_by, reason) "
    "VALUES (:unit, CAST(:level AS unit_level), :hours, :actor, :reason)"
)


@dataclass(frozen=True)
class Rule:
    """unit: with all below it; "": the whole city. hours: None: without an end."""

    unit: str
    level: Level
    hours: int | None
    set_by: str
    reason: str
    set_at: datetime


@dataclass(frozen=True)
class Retention:
    """The rules of a city."""

    rules: Sequence[Rule]
    is_live: bool

    def hours(self, unit: str, level: Level) -> int | None:
        """What holds for a level at a unit: the rule of the nearest unit above it, else the default; None: no end."""
        above = [r for r in self.rules if r.level is level and (not r.unit or f"{unit}/".startswith(f"{r.unit}/"))]
        if not above:
            return DEFAULT_HOURS if self.is_live else None
        return max(above, key=lambda rule: len(rule.unit)).hours

    def hours_of_rows(self, unit: str) -> int | None:
        """How long rows of a unit's identities stay: as long as any level above needs them to say who was where."""
        own = LEVELS.index(level_of(unit))
        parts = unit.split("/")
        hours = [self.hours("/".join(parts[: len(parts) - up]), level) for up, level in enumerate(LEVELS[own:])]
        return None if None in hours else max(hour for hour in hours if hour is not None)


def read_retention(connection: Connection) -> Retention:
    rows = connection.execute(_READ)
    kind = connection.scalar(text("SELECT kind FROM city"))
    rules = [Rule(row.unit, Level(row.level), row.hours, row.set_by, row.reason, row.set_at) for row in rows]
    return Retention(rules, kind == "live")


def set_retention(
    store: Store, unit: str, levels: Sequence[Level], hours: int | None, *, actor: str, reason: str
) -> None:
    """Sets the hours of these levels at a unit and all below it ("": the whole city), with an audit row.

    A longer time than the default needs the reason more than a shorter one; each has one. Raises CityError, InputError.
    """
    if hours is not None and not 1 <= hours <= 876_000:
        raise InputError(f"{hours} hours: give 1 to 876000, or none for no end")
    with store.begin() as connection:
        units = set(connection.execute(text("SELECT code FROM urban_unit")).scalars())
        if unit and unit not in units:
            raise unknown_unit(unit, units)
    with store.signed_in() as connection:
        for level in levels:
            at = {"unit": unit, "level": level.value, "hours": hours, "actor": actor, "reason": reason}
            connection.execute(_SET, at)
        details = {"levels": [level.value for level in levels], "hours": hours}
        audit(connection, actor, Action.RETENTION_SET, unit=unit or None, reason=reason, details=details)
