"""Where things go in the plots of a level's calibration: probability against distance and where the decisions fell, and
how far the probabilities can be believed.

Only geometry, in pixels; the template makes SVG of it.
"""

import math
from dataclasses import dataclass

from pipeline.association.log_odds import appearance_log_odds, distance_at
from pipeline.report.read import Spread
from schemas.calibration import Judgment, LevelCalibration, Reliability
from schemas.cards import probability
from schemas.levels import Level

WIDTH, HEIGHT = 340.0, 304.0
LEFT, RIGHT = 48.0, 328.0
TOP, BOTTOM = 16.0, 146.0  # of the probability's axis
STRIP = 34.0
STRIPS_TOP = 164.0
_POINTS = 80
#: Of the reliability curves, whose plot is a square.
SQUARE_BOTTOM = TOP + RIGHT - LEFT
SQUARE_HEIGHT = SQUARE_BOTTOM + 40
_LARGEST, _SMALLEST = 5.0, 1.5  # radius of a point


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
            line.append((x(distance), _y(probability(appearance_log_odds(calibration.terms, distance)))))
        join_y, review_y = _y(probability(calibration.join_log_odds)), _y(probability(calibration.review_log_odds))
        join_distance = distance_at(calibration.terms, calibration.join_log_odds)
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


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    radius: float  # its area goes with the pairs, from curve to curve anew: the middle holds few of them
    predicted: float
    observed: float
    pairs: int


@dataclass(frozen=True)
class Reliabilities:
    """Of a level that was judged: both curves, each from the lowest probability to the highest."""

    level: Level
    judged: Judgment
    shortlist: list[Point]
    middle: list[Point]


def draw_reliabilities(level: Level, judged: Judgment) -> Reliabilities:
    return Reliabilities(level, judged, _points(judged.shortlist), _points(judged.middle))


def _points(curve: Reliability) -> list[Point]:
    return [
        Point(
            LEFT + predicted * (RIGHT - LEFT),
            SQUARE_BOTTOM - observed * (SQUARE_BOTTOM - TOP),
            max(_SMALLEST, _LARGEST * math.sqrt(many / max(curve.counts))),
            predicted,
            observed,
            many,
        )
        for predicted, observed, many in zip(curve.predicted, curve.observed, curve.counts, strict=True)
    ]


def furthest_shown(spreads: list[Spread]) -> float:
    """The end of the distances' axis: a fifth that no decision lies beyond."""
    last = max((distance + spread.width for spread in spreads for distance, *_ in spread.bins), default=1.0)
    return max(1.0, math.ceil(last * 5 - 1e-9) / 5)


def _y(probability: float) -> float:
    return BOTTOM - probability * (BOTTOM - TOP)
