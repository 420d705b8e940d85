"""The folder that a report lies in: made, or known as an earlier report's; nothing else in it is touched."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import InputError

#: Lies in every report's folder from its first moment, so that a later run knows it.
MARKER = ".urban-reid-report"
_THUMBNAIL = re.compile(r"[0-9a-f]{64}\.jpg(\.part)?")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turns what the disk refuses into one clear line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{out}: the report cannot be written there: {error.strerror or error}") from None


def open_folder(out: Path) -> Path:
    """Makes `out` if it is not there; the folder for thumbnails in it.

    Raises InputError where a report may not be written: a file, or a folder that holds anything but a report.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; a report needs a folder of its own: name another")
    with writing(out):
        if out.is_dir() and not (out / MARKER).exists() and any(out.iterdir()):
            raise InputError(f"{out} holds other files; a report needs a folder of its own: name a new or an empty one")
        crops = out / "crops"
        if crops.is_symlink() or (crops.exists() and not crops.is_dir()):
            raise InputError(f"{crops} is no plain folder; remove it, or name another folder for the report")
        crops.mkdir(parents=True, exist_ok=True)
        (out / MARKER).write_text("An earlier report lies here; `urban-reid report` may write it anew.\n")
    return crops


def write_whole(path: Path, content: str) -> None:
    """Writes a file whole, or leaves the old one."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(content, encoding="utf-8")
    part.replace(path)


def remove_stale(crops: Path, kept: Collection[str]) -> None:
    """Removes an earlier report's thumbnails that the pages no longer show."""
    for file in crops.iterdir():
        if _THUMBNAIL.fullmatch(file.name) and file.name not in kept:
            file.unlink()
