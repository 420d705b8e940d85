"""Files by name below one place, the same for a folder and for an object store.

A name has parts divided by "/", such as `d1/2026-01-01/ab/cdef`. A file is complete or absent, and never changes but
for the keys, which a new wrapping key replaces.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

#: What lies where `URBAN_REID_PICTURES_URL` says.
Kind = Literal["crops", "context", "keys"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class FileInfo:
    """stamp: another one for each content that was ever written under the name."""

    bytes: int
    modified_at: float  # seconds since 1970
    stamp: str


class Files(Protocol):
    """Methods raise OSError, and PicturesUnavailable while the place cannot be reached: that says nothing of a file."""

    @property
    def place(self) -> str:
        """The folder or the address, for messages."""

    @property
    def trusts_stamps_s(self) -> float:
        """How long a content may be held before its stamp is to be looked at again, seconds."""

    def where(self, name: str) -> str:
        """A file's path or address, for messages."""

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError too."""

    def write(self, name: str, data: bytes) -> None:
        """Returns when the file would survive a loss of power."""

    def create(self, name: str, data: bytes) -> bool:
        """As `write`, where there is no such file; else False, and nothing is written. Of two at once one gets True."""

    def info(self, name: str) -> FileInfo | None:
        """None if there is no such file."""

    def remove(self, name: str, *, overwrite: bool = False) -> bool:
        """False if it was not there. `overwrite`: its content first, where the place can do that."""

    def remove_all(self, names: Sequence[str]) -> int:
        """Removes files; how many there were. An object store does not say: there it is how many were named."""

    def remove_below(self, folder: str) -> int:
        """Removes all files below a folder; how many there were."""

    def names(self, below: str = "") -> Iterator[str]:
        """Names of all files below a folder, in order."""

    def is_empty(self) -> bool:
        """Whether there is no file at all, or no such place."""

    def sweep(self) -> int:
        """Removes what killed processes left of files that they were writing; how many."""
