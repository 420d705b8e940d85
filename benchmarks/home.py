"""A data directory for a benchmark."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.disk import keep_private


@contextmanager
def home(kept: Path | None = None) -> Iterator[Path]:
    """A directory, deleted on exit, with everything in it closed to other users. kept: this one, which stays."""
    keep_private()
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="urban-reid-benchmark-") as folder:
        Path(folder).chmod(0o711)  # as root, the embedded database runs as another user, who passes through
        yield Path(folder)
