"""Waiting for a state, for as long as a busy machine may need."""

import time
from collections.abc import Callable
from typing import Any


def wait_until(
    done: Callable[[], Any],
    within_s: float,
    said: Callable[[], object] = lambda: "",
    still: Callable[[], bool] = lambda: True,
) -> Any:
    """What `done` gives, once that is true. said: is shown where it never is. still: whether waiting is of use."""
    deadline = time.monotonic() + within_s
    while not (found := done()):
        assert still() and time.monotonic() < deadline, f"waited in vain; {said()}"
        time.sleep(0.2)
    return found
