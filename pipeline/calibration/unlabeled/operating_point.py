"""The lowest operating point whose joins keep the stated share of wrong ones."""

from collections.abc import Callable, Sequence

from schemas.arrays import Floats


def lowest_kept(points: Sequence[float], joins_at: Callable[[float], Floats], keeps: Callable[[Floats], bool]) -> float:
    """The lowest of the ascending points whose joins keep the rate; the highest if none does.

    joins_at: (j,) log-odds of the joins at a point, which takes long. Who is joined at a point is mostly joined at a
    lower one, too: so the joins at one point say which to try next, and three of many are tried.
    """
    kept, missed, at = len(points), -1, 0
    while kept - missed > 1:
        joins = joins_at(points[at])
        if keeps(joins):
            kept, at = at, at - 1
        else:
            missed = at
            probably = (i for i in range(missed + 1, kept) if keeps(joins[joins >= points[i]]))
            at = next(probably, kept - 1)
    return points[min(kept, len(points) - 1)]
