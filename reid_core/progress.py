"""How long work reports what it does: one form for training, evaluation and reproduction."""

from collections.abc import Callable

#: Called with the name of a step, how many of its units are done, and how many there are; 0 where that is unknown.
#: Steps follow one another; a step is reported when it begins or advances, at least every few seconds.
Progress = Callable[[str, int, int], None]
