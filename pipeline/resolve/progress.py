"""Progress of a resolve over many units, some of which are in work at once."""

from collections.abc import Callable

#: Told with what is done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


class UnitsProgress:
    """Tells progress in percent. Every unit counts the same, a unit in work with the part of it that is done."""

    def __init__(self, units: int, progress: Progress | None) -> None:
        self._units, self._progress = units, progress
        self._parts: dict[str, float] = {}

    def __call__(self, unit: str, done: int, total: int) -> None:
        """`done` of `total` steps of the unit are done. A part that was told before is never taken back."""
        self._parts[unit] = max(done / total, self._parts.get(unit, 0.0))
        if self._progress is not None:
            self._progress("percent of the units resolved", int(100 * sum(self._parts.values()) / self._units), 100)
