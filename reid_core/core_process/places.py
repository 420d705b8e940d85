"""The places of a bounded queue."""

import threading

from schemas.errors import CoreUnavailable


class Places:
    """Requests that are read, wait or compute, also those whose client has given up: `most` at a time."""

    def __init__(self, most: int) -> None:
        self._most, self._jobs = most, 0
        self._places = threading.Lock()

    @property
    def jobs(self) -> int:
        return self._jobs

    def enter(self) -> None:
        """Takes a place, which `leave` gives back. Raises CoreUnavailable if there is none."""
        with self._places:
            if self._jobs >= self._most:
                raise CoreUnavailable(f"the core is busy with {self._jobs} requests; try again")
            self._jobs += 1

    def leave(self) -> None:
        with self._places:
            self._jobs -= 1
