"""Histograms of the distances at which the district's decisions were made, by level and verdict."""

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import Connection, text

from schemas.levels import UPWARD, Level


@dataclass(frozen=True)
class DistanceHistogram:
    """Decisions of one level by distance."""

    width: float  # of a bin
    bins: list[tuple[float, int, int, int]]  # lower edge, joins, reviews, kept apart; ascending, without empty bins


_COUNTS = text(
    "SELECT r.level, d.verdict, floor(d.distance / :width) AS bin, count(*) AS many FROM match_decision d "
    "JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NULL AND r.model_id = :model "
    "AND (r.unit = :district OR starts_with(r.unit, :district || '/')) GROUP BY 1, 2, 3"
)


def read_distance_histograms(
    connection: Connection, district: str, model_id: int | None, width: float = 0.04
) -> dict[Level, DistanceHistogram]:
    """One histogram for each level above the cameras, of the current decisions that one model made.

    Distances of two models cannot be compared. Without a model (None) all histograms are empty.
    """
    counts: dict[Level, Counter[tuple[int, str]]] = {level: Counter() for level in UPWARD[1:]}
    for row in connection.execute(_COUNTS, {"district": district, "model": model_id, "width": width}):
        counts[Level(row.level)][int(row.bin), row.verdict] = row.many
    return {
        level: DistanceHistogram(
            width,
            [
                (number * width, found[number, "join"], found[number, "review"], found[number, "apart"])
                for number in sorted({number for number, _ in found})
            ],
        )
        for level, found in counts.items()
    }
