"""A temporary data directory for a benchmark."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.disk import keep_private


@contextmanager
def home() -> Iterator[Path]:
    """The directory, deleted on exit, with everything in it closed to other users."""
    keep_private()
    with tempfile.TemporaryDirectory(prefix="urban-reid-benchmark-") as folder:
        Path(folder).chmod(0o711)  # as root, the embedded database runs as another user, who passes through
        yield Path(folder)
