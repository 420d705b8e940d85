"""What a backup's folder holds, in its own words."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError, field_validator

from schemas.disk import write_whole
from schemas.errors import InputError
from schemas.settings import Frozen, Settings
from schemas.validation import fault_line

MANIFEST = "manifest.json"
#: The folders of a data directory that a backup holds.
FOLDERS = ("keys", "crops", "models", "detectors", "attributes", "context", "plan")
#: The settings that decide what the embedder and the association compute, by which a restored home goes on as before.
SETTINGS = ("association", "precision", "compile")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z]+-[0-9TZ]+\.[a-z]+$")]


class Content(Frozen):
    """A file of the backup's folder."""

    name: Name
    sha256: Sha256
    bytes: int = Field(ge=0)


class StoredFile(Frozen):
    """A line of the list of files: a file of the data directory, and its object."""

    path: str  # relative, below one of FOLDERS
    sha256: Sha256  # of the object
    bytes: int = Field(ge=0)  # of the object
    sealed: bool = False  # with the backup's key; else the object is the file as it is

    @field_validator("path")
    @classmethod
    def _is_inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if "\0" in path or len(parts) < 2 or parts[0] not in FOLDERS or ".." in parts:
            raise ValueError(f"is not below {' or '.join(FOLDERS)}")
        return path


class Manifest(Frozen):
    """The content of manifest.json."""

    format: Literal[1, 2] = 2  # 1: nothing is encrypted that was not encrypted in the data directory
    taken_at: AwareDatetime  # the moment of the database's snapshot
    program: str  # version of urban-reid
    revision: str  # of the database
    postgresql: str  # version of the server that the dump was taken from
    began: AwareDatetime | None  # of the city's first audit row, by which two cities differ; None before the first
    decision_digest: Sha256
    settings: dict[str, Any]
    database: Content
    files: Content
    count: int = Field(ge=0)  # of the files of the data directory
    file_bytes: int = Field(ge=0)
    missing_pictures: int = Field(ge=0)  # that rows name and the data directory does not have, or not undamaged
    missing_models: tuple[str, ...]
    key: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})+$")] | None = None  # of the backup, wrapped, hex
    pictures_url: str | None = None  # the object store with pictures and keys, of which a backup holds none


def settings_that_matter(settings: Settings) -> dict[str, Any]:
    """The settings that a backup records: none that is secret, none that describes the machine."""
    found: dict[str, Any] = settings.model_dump(mode="json", include=set(SETTINGS))
    return found


def read_manifest(folder: Path) -> Manifest:
    """Raises InputError if there is none, or if it is damaged or of a newer program."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder} holds no backup: there is no {MANIFEST}; `urban-reid db backup DIR` writes one"
        ) from None
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise InputError(
            f"{path} is damaged, or was written by a newer program: {fault_line(error, Manifest)}"
        ) from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
    write_whole(folder / MANIFEST, text + "\n", mode=0o600, sync=True)


def read_files(folder: Path, manifest: Manifest) -> Iterator[StoredFile]:
    """The files of the data directory, line by line. Raises InputError for a line that is none."""
    path = folder / manifest.files.name
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield StoredFile.model_validate_json(line)
                except ValidationError as error:
                    raise InputError(f"{path}, line {number}, is damaged: {fault_line(error, StoredFile)}") from None
    except FileNotFoundError:
        raise InputError(f"{path}, the backup's list of files, is missing") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}, the backup's list of files, is damaged") from None
