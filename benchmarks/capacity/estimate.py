"""A value with its error, and the fits that give one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

#: Share of repetitions in which an interval holds the value, where the errors are normal.
_SURE = 0.95


@dataclass(frozen=True)
class Range:
    """A value and the interval that it lies in. Sums add the ends, as if all errors had one sign: the widest case."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> "Range":
        return cls(value, value, value)

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Range":
        """Median, least and most of what was measured several times."""
        return cls(float(np.median(samples)), min(samples), max(samples))

    def __add__(self, other: "Range") -> "Range":
        return Range(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> "Range":
        """The factor is not negative."""
        return Range(self.value * factor, self.low * factor, self.high * factor)

    def floored(self) -> "Range":
        """A cost is not below nothing."""
        return Range(max(self.value, 0.0), max(self.low, 0.0), max(self.high, 0.0))


NOTHING = Range.exact(0.0)


def total(ranges: Sequence[Range]) -> Range:
    return sum(ranges, NOTHING)


@dataclass(frozen=True)
class Plane:
    """y as a sum of what each of several figures costs, by least squares, with normal errors."""

    costs: tuple[float, ...]
    variance: float  # of a single y
    inverse: tuple[tuple[float, ...], ...]  # times the variance: the covariance of the costs
    free: int  # points that are left to tell the error

    @classmethod
    def through(cls, rows: Sequence[Sequence[float]], y: Sequence[float]) -> "Plane":
        """rows: the figures of each y. Raises ValueError where the points do not tell the costs and an error apart."""
        a, b = np.asarray(rows, float), np.asarray(y, float)
        free = len(a) - a.shape[1]
        if free < 1 or np.linalg.matrix_rank(a) < a.shape[1]:
            raise ValueError(f"{a.shape[1]} costs with their error need more and other points than these {len(a)}")
        costs = np.linalg.lstsq(a, b)[0]
        variance = float(((b - a @ costs) ** 2).sum()) / free
        inverse = np.linalg.inv(a.T @ a)
        return cls(tuple(costs.tolist()), variance, tuple(map(tuple, inverse.tolist())), free)

    def at(self, row: Sequence[float], *, single: bool = False) -> Range:
        """The mean of many y at these figures, or where a single one lies; of one figure alone: what it costs."""
        at = np.asarray(row, float)
        value = float(at @ np.asarray(self.costs))
        variance = self.variance * (single + at @ np.asarray(self.inverse) @ at)
        off = float(stdtrit(self.free, (1 + _SURE) / 2) * np.sqrt(variance))  # of Student's t
        return Range(value, value - off, value + off)


@dataclass(frozen=True)
class Line:
    """y = a + slope (x - mean): a plane of two figures, which differ so much in size that x is taken from its mean."""

    mean: float
    plane: Plane

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> "Line":
        """Raises ValueError for fewer than three points, which tell nothing of the error, or for one x alone."""
        if len(x) < 3 or len(set(x)) == 1:
            raise ValueError(f"a line with its error needs three points of different size, not {len(x)}")
        mean = float(np.mean(x))
        return cls(mean, Plane.through([(1.0, each - mean) for each in x], y))

    @property
    def slope(self) -> float:
        return self.plane.costs[1]

    @property
    def slope_range(self) -> Range:
        return self.plane.at((0.0, 1.0))

    def at(self, x: float, *, single: bool = False) -> Range:
        """The mean of many y at x, or where a single one lies."""
        return self.plane.at((1.0, x - self.mean), single=single)


@dataclass(frozen=True)
class Power:
    """y = c x^exponent: a line through the logarithms."""

    line: Line

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> "Power":
        return cls(Line.through(np.log(x).tolist(), np.log(y).tolist()))

    @property
    def exponent(self) -> Range:
        return self.line.slope_range

    def at(self, x: float) -> Range:
        """Where a single y at x lies; nothing at 0."""
        if x <= 0:
            return NOTHING
        found = self.line.at(float(np.log(x)), single=True)
        return Range(*np.exp([found.value, found.low, found.high]).tolist())


@dataclass(frozen=True)
class Growth:
    """How a cost grows with a size: a line or a power, whichever foretells the largest size better from the others."""

    form: str  # "line" or "power"
    fit: Line | Power
    foretold: Range  # of the largest size, by the same form through the smaller ones
    largest: float  # what was measured there
    exponent: Range  # of the power through all

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> "Growth":
        """x: ascending. Raises ValueError for fewer than four sizes."""
        line = Line.through(x[:-1], y[:-1]).at(x[-1], single=True)
        power, whole = Power.through(x[:-1], y[:-1]).at(x[-1]), Power.through(x, y)
        if abs(line.value - y[-1]) < abs(power.value - y[-1]):
            return cls("line", Line.through(x, y), line.floored(), y[-1], whole.exponent)
        return cls("power", whole, power.floored(), y[-1], whole.exponent)

    def at(self, x: float) -> Range:
        """Where a single y at x lies; nothing at 0."""
        if x <= 0:
            return NOTHING
        return (self.fit.at(x, single=True) if isinstance(self.fit, Line) else self.fit.at(x)).floored()
