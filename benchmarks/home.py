"""A temporary data directory for a benchmark."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def home() -> Iterator[Path]:
    """The directory, deleted on exit. The embedded server, which may run as another user, has access."""
    with tempfile.TemporaryDirectory(prefix="urban-reid-benchmark-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)
