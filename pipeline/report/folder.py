"""The folder of a report: checked, made, and recognized by later reports. Other files in it are not touched."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.disk import write_whole
from schemas.errors import InputError

#: Written into every report's folder first, so that a later report recognizes it.
MARKER = ".urban-reid-report"
#: Thumbnails, and what is left of one when its writer is killed; earlier versions left `.part`.
_THUMBNAIL = re.compile(r"[0-9a-f]{64}\.jpg(\.part(ial)?)?")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turns an OSError of writing the report into an InputError of one line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{out}: the report cannot be written there: {error.strerror or error}") from None


def check_folder(out: Path) -> None:
    """Raises InputError if a report may not be written to `out`: a file, or a folder with anything but a report."""
    with writing(out):
        if out.is_symlink() and not out.exists():
            raise InputError(f"{out} is a link to a place that does not exist; remove it, or name another folder")
        if not out.exists():
            return
        if not out.is_dir():
            raise InputError(f"{out} is a file; a report needs a folder of its own: name another")
        if not (out / MARKER).exists() and any(out.iterdir()):
            raise InputError(f"{out} holds other files; a report needs a folder of its own: name a new or an empty one")
        crops = out / "crops"
        if crops.is_symlink() or (crops.exists() and not crops.is_dir()):
            raise InputError(f"{crops} is no plain folder; remove it, or name another folder for the report")


def open_folder(out: Path) -> Path:
    """Checks `out` and makes it if it does not exist. Returns the folder for thumbnails in it. Raises InputError."""
    check_folder(out)
    crops = out / "crops"
    with writing(out):
        crops.mkdir(parents=True, exist_ok=True)
        write_whole(out / MARKER, "A report of urban-reid. `urban-reid report` may replace it.\n")
    return crops


def remove_stale(crops: Path, kept: Collection[str]) -> None:
    """Removes thumbnails of earlier reports that the pages no longer show."""
    for file in crops.iterdir():
        if _THUMBNAIL.fullmatch(file.name) and file.name not in kept:
            file.unlink()
