"""Layout of the plots of a level's calibration, in pixels. The template draws them as SVG.

One plot shows the probability over distance and the distances of the decisions, the other the reliability curves.
"""

import math
from dataclasses import dataclass

from pipeline.association.log_odds import appearance_log_odds, distance_at, probability
from pipeline.report.distance_histograms import DistanceHistogram
from schemas.calibration import Judgment, LevelCalibration, Reliability
from schemas.levels import Level

WIDTH, HEIGHT = 340.0, 304.0
LEFT, RIGHT = 66.0, 328.0
TOP, BOTTOM = 16.0, 146.0  # of the probability's axis
STRIP = 34.0  # height of the histogram of one verdict
STRIPS_TOP = 164.0
_POINTS = 80
#: Bottom and height of the plot of the reliability curves, which is a square.
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
    count: int
    distance: float  # lower edge of the bin


@dataclass(frozen=True)
class Strip:
    """The histogram of one verdict."""

    kind: str  # join, review, apart
    base: float  # y of its base line
    count: int


@dataclass(frozen=True)
class Curve:
    """Probability over distance at one level, before transit times, and the histograms of its decisions' distances."""

    level: Level
    calibration: LevelCalibration | None
    line: list[tuple[float, float]]  # empty without calibration
    join_y: float
    review_y: float
    join_x: float | None  # where appearance alone reaches the operating point; None: outside the plot
    join_distance: float  # the distance there
    bars: list[Bar]
    strips: list[Strip]
    ticks: list[tuple[float, float]]  # x, distance


def draw_curve(
    level: Level, calibration: LevelCalibration | None, histogram: DistanceHistogram, furthest: float
) -> Curve:
    """`furthest`: the distance at the right end; give all levels the same so that they can be compared."""

    def x(distance: float) -> float:
        return LEFT + distance / furthest * (RIGHT - LEFT)

    line: list[tuple[float, float]] = []
    join_y = review_y = BOTTOM
    join_x, join_distance = None, 0.0
    if calibration is not None:
        for i in range(_POINTS + 1):
            distance = furthest * i / _POINTS
            if calibration.learned is not None and not calibration.learned[0] <= distance <= calibration.learned[1]:
                continue  # nothing is known there
            line.append((x(distance), _y(probability(appearance_log_odds(calibration.terms, distance)))))
        join_y, review_y = _y(probability(calibration.join_log_odds)), _y(probability(calibration.review_log_odds))
        join_distance = distance_at(calibration.terms, calibration.join_log_odds)
        join_x = x(join_distance) if 0 <= join_distance <= furthest else None
    bars, strips = [], []
    fullest = max((max(counts) for _, *counts in histogram.bins), default=1)
    for number, kind in enumerate(("join", "review", "apart")):
        base = STRIPS_TOP + (number + 1) * STRIP
        strips.append(Strip(kind, base, sum(counts[number] for _, *counts in histogram.bins)))
        for distance, *counts in histogram.bins:
            if counts[number]:
                height = max(1.5, counts[number] / fullest * (STRIP - 8))
                left, right = x(distance), x(distance + histogram.width)
                bars.append(Bar(left, base - height, right - left - 1, height, kind, counts[number], distance))
    ticks = [(x(step / 5), step / 5) for step in range(0, round(furthest * 5) + 1, 2 if furthest > 1.2 else 1)]
    return Curve(level, calibration, line, join_y, review_y, join_x, join_distance, bars, strips, ticks)


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    radius: float  # the area is proportional to the number of pairs, scaled to the largest bin of its curve
    predicted: float
    observed: float
    pairs: int


@dataclass(frozen=True)
class Reliabilities:
    """The reliability curves of a level, each by ascending probability."""

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
            max(_SMALLEST, _LARGEST * math.sqrt(count / max(curve.counts))),
            predicted,
            observed,
            count,
        )
        for predicted, observed, count in zip(curve.predicted, curve.observed, curve.counts, strict=True)
    ]


def furthest_shown(histograms: list[DistanceHistogram]) -> float:
    """The end of the distance axis: the smallest multiple of 0.2 that no decision exceeds, at least 1."""
    edges = (distance + histogram.width for histogram in histograms for distance, *_ in histogram.bins)
    last = max(edges, default=1.0)
    return max(1.0, math.ceil(last * 5 - 1e-9) / 5)


def _y(probability: float) -> float:
    return BOTTOM - probability * (BOTTOM - TOP)
