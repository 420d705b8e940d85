"""What a calibration without labels found, as `learning` keeps it and as a person reads it."""

from pydantic import AwareDatetime, Field
from sqlalchemy import Connection, text

from schemas.levels import Level
from schemas.settings import Frozen


class Outcome(Frozen):
    """What a learning found."""

    tracklets: int = Field(ge=0)
    levels: tuple[Level, ...] = Field(description="that have a calibration from it")
    why_not: dict[Level, str] = Field(description="of the other levels")
    crops_since: AwareDatetime | None = Field(
        None, description="where there were too many: when the first crop that was learned from was captured"
    )
    answers: int = Field(0, ge=0, description="of operators and reviewers, that it counts as labels")
    newest_answer: AwareDatetime | None = Field(None, description="when the newest of them was given")
    likely_overlaps: tuple[tuple[str, str], ...] = Field(
        (), description="cameras that probably see one place, although the city file does not say so"
    )

    def lines(self, unit: str) -> list[str]:
        """Lines about the unit for a person: what was learned, what was not, and what is asked."""
        levels = ", ".join(level.value for level in self.levels) or "nothing"
        answers = f" and {self.answers} answer{'s' * (self.answers > 1)}" if self.answers else ""
        said = [f"{unit}: learned without labels from {self.tracklets} tracklets{answers}: {levels}"]
        if self.crops_since is not None:
            said.append(f"{unit}: only the latest crops were learned from, those since {self.crops_since:%F %T} UTC")
        said += [f"{unit}: not learned: {level.value}, {why}" for level, why in self.why_not.items()]
        said += [
            f"{unit}: do {one} and {other} see one place? People were seen at both at once, far too alike for "
            "strangers; if so, name the overlap in the city file, else these pairs are never joined"
            for one, other in self.likely_overlaps
        ]
        return said


def newest_outcomes(connection: Connection, model_id: int) -> dict[str, Outcome]:
    """What the newest learning of each unit found, by unit."""
    rows = connection.execute(
        text("SELECT DISTINCT ON (unit) unit, outcome FROM learning WHERE model_id = :model ORDER BY unit, id DESC"),
        {"model": model_id},
    )
    return {row.unit: Outcome.model_validate(row.outcome) for row in rows}
