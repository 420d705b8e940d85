"""Where things go in the plots of a level's calibration: probability against distance, and where the decisions fell.

Only geometry, in pixels; the template makes SVG of it.
"""

import math
from dataclasses import dataclass

from pipeline.report.read import Spread
from schemas.cards import LevelCalibration, probability
from schemas.levels import Level

WIDTH, HEIGHT = 340.0, 290.0
LEFT, RIGHT = 48.0, 328.0
TOP, BOTTOM = 16.0, 146.0  # of the probability's axis
STRIP = 34.0
STRIPS_TOP = 164.0
_POINTS = 80


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    kind: str  # join, review, apart
    many: int
    distance: float  # where the bin begins


@dataclass(frozen=True)
class Strip:
    kind: str
    base: float
    many: int


@dataclass(frozen=True)
class Curve:
    level: Level
    calibration: LevelCalibration | None
    line: list[tuple[float, float]]
    join_y: float
    review_y: float
    join_x: float | None  # the distance at which appearance alone reaches the operating point; None: off the plot
    join_distance: float
    bars: list[Bar]
    strips: list[Strip]
    ticks: list[tuple[float, float]]  # x, distance


def draw_curve(level: Level, calibration: LevelCalibration | None, spread: Spread, furthest: float) -> Curve:
    """`furthest`: the distance at the right end, the same for all levels so that they can be compared."""

    def x(distance: float) -> float:
        return LEFT + distance / furthest * (RIGHT - LEFT)

    line: list[tuple[float, float]] = []
    join_y = review_y = BOTTOM
    join_x, join_distance = None, 0.0
    if calibration is not None:
        for i in range(_POINTS + 1):
            distance = furthest * i / _POINTS
            line.append((x(distance), _y(probability(calibration.log_odds(distance)))))
        join_y, review_y = _y(probability(calibration.join_log_odds)), _y(probability(calibration.review_log_odds))
        join_distance = calibration.distance_at(calibration.join_log_odds)
        join_x = x(join_distance) if 0 <= join_distance <= furthest else None
    bars, strips = [], []
    fullest = max((max(counts) for _, *counts in spread.bins), default=1)
    for number, kind in enumerate(("join", "review", "apart")):
        base = STRIPS_TOP + (number + 1) * STRIP
        strips.append(Strip(kind, base, sum(counts[number] for _, *counts in spread.bins)))
        for distance, *counts in spread.bins:
            if counts[number]:
                height = max(1.5, counts[number] / fullest * (STRIP - 8))
                left, right = x(distance), x(distance + spread.width)
                bars.append(Bar(left, base - height, right - left - 1, height, kind, counts[number], distance))
    ticks = [(x(step / 5), step / 5) for step in range(0, round(furthest * 5) + 1, 2 if furthest > 1.2 else 1)]
    return Curve(level, calibration, line, join_y, review_y, join_x, join_distance, bars, strips, ticks)


def furthest_shown(spreads: list[Spread]) -> float:
    """The end of the distances' axis: a fifth that no decision lies beyond."""
    last = max((distance + spread.width for spread in spreads for distance, *_ in spread.bins), default=1.0)
    return max(1.0, math.ceil(last * 5 - 1e-9) / 5)


def _y(probability: float) -> float:
    return BOTTOM - probability * (BOTTOM - TOP)
