"""A trial of a second: forms of one computation take turns, and each is compared with the first in the same round.

What counts is processor time on one thread: on a busy machine threads that wait for each other would lose most, and the
trial would measure what else runs.
"""

import statistics
import time
from collections.abc import Callable, Mapping

#: A form is taken in place of the first only if it is faster by this factor: a trial on a busy machine errs by less.
MARGIN = 1.15
#: Rounds of a trial; those after the fewest are left out when it has taken `SECONDS`.
MOST_ROUNDS, FEWEST_ROUNDS = 9, 3
SECONDS = 1.0

Clock = Callable[[], float]


def speeds(forms: Mapping[str, Callable[[], object]], clock: Clock = time.process_time) -> dict[str, float]:
    """How many times as fast as the first form each form is, itself 1: the median of rounds in which all take turns.

    A form computes once when it is called. The first call of each is not counted. Every other round goes backwards, so
    that no form always follows the same one. `clock`: seconds.
    """
    if len(forms) == 1:
        return dict.fromkeys(forms, 1.0)
    begun = clock()
    for form in forms.values():
        form()
    names = list(forms)
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and clock() - begun > SECONDS:
            break
        spent = {}
        for name in names if number % 2 == 0 else names[::-1]:
            started = clock()
            forms[name]()
            spent[name] = clock() - started
        for name in names:
            ratios[name].append(spent[names[0]] / spent[name])
    return {name: statistics.median(found) for name, found in ratios.items()}


def fastest_first(measured: Mapping[str, float], default: str) -> list[str]:
    """The forms that are faster than `default` by the margin, the fastest first, then `default`."""
    faster = [name for name, speed in measured.items() if name != default and speed >= MARGIN * measured[default]]
    return [*sorted(faster, key=lambda name: -measured[name]), default]
