"""Files of detectors: those of this home, `detectors/NAME/`, and others."""

import hashlib
from pathlib import Path

from schemas.errors import ModelFileError
from schemas.settings import Settings

#: What the engines open; an IR's weights lie beside it.
SUFFIXES = (".xml", ".pth")


def name_of(*files: Path) -> str:
    """The first file's name, and the first digits of the SHA-256 of all."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file()))
    return f"{files[0].name} {digest.hexdigest()[:8]}"


def detector_names(settings: Settings) -> list[str]:
    """The detectors of this home."""
    place = settings.detectors_dir
    return sorted(folder.name for folder in place.glob("[!.]*/") if folder.name != "default") if place.is_dir() else []


def detector_file(folder: Path) -> Path:
    """The file in a detector's folder that an engine opens. Raises ModelFileError."""
    found = [file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES] if folder.is_dir() else []
    if len(found) != 1:
        raise ModelFileError(f"{folder}: holds {len(found)} files of a detector, and must hold one")
    return found[0]
