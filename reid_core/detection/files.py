"""Files of detectors: those of this home, `detectors/NAME/`, and others."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from reid_core.catalog.obtaining import keep_files
from schemas.disk import write_whole
from schemas.errors import HomeError, ModelFileError
from schemas.settings import Settings

#: The name of the detector that needs no file.
HOG = "hog"
#: The file that names the default among the detectors of a home.
DEFAULT = "default"
#: What the engines open; an IR's weights lie beside it.
SUFFIXES = (".xml", ".onnx", ".pth")


def digest_of(file: Path) -> str:
    """The SHA-256 of a detector's file and of the weights beside an IR, in hexadecimal digits. Raises OSError."""
    parts = [file, file.with_suffix(".bin")]
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts if part.is_file())).hexdigest()


def name_of(file: Path) -> str:
    """A detector's name: its file's, and the first digits of its digest."""
    return f"{file.name} {digest_of(file)[:8]}"


def detector_names(settings: Settings) -> list[str]:
    """The detectors of this home."""
    place = settings.detectors_dir
    return sorted(folder.name for folder in place.glob("[!.]*/")) if place.is_dir() else []


def default_detector(settings: Settings) -> str | None:
    """The name of this home's default detector; None where HOG is. Raises HomeError."""
    place = settings.detectors_dir / DEFAULT
    try:
        return place.read_text("utf-8").strip()[:200]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise HomeError(
            f"{place}: cannot be read ({error})", do="`urban-reid models get NAME` writes it anew"
        ) from None


def keep_detector(settings: Settings, name: str, files: Sequence[Path]) -> None:
    """Copies `files` as the detector `name` of this home, in place of one that has this name. Raises HomeError."""
    keep_files(settings.detectors_dir / name, files)


def make_default(settings: Settings, name: str) -> None:
    """Makes a detector of this home its default. Raises HomeError."""
    place = settings.detectors_dir / DEFAULT
    try:
        write_whole(place, f"{name}\n", mode=0o600)
    except OSError as error:
        raise HomeError(f"{place}: cannot be written: {error.strerror}") from None


def detector_file(folder: Path) -> Path:
    """The file in a detector's folder that an engine opens. Raises ModelFileError."""
    found = [file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES] if folder.is_dir() else []
    if len(found) != 1:
        raise ModelFileError(f"{folder}: holds {len(found)} files of a detector, and must hold one")
    return found[0]
