"""A data directory for as long as a benchmark needs one."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def home() -> Iterator[Path]:
    """Gone afterwards. The embedded server, which may run as another user, can reach it."""
    with tempfile.TemporaryDirectory(prefix="urban-reid-benchmark-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)
