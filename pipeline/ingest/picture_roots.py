"""Resolves the picture paths of a manifest: only below its own folder and the roots that the settings allow."""

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import unquote

import fsspec

from pipeline.crops.quality import MAX_BYTES
from schemas.errors import InputError, PictureError

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """A picture's location: a file on this machine, or a URI that fsspec can open."""

    where: Path | str

    def read(self) -> bytes:
        """The first MAX_BYTES + 1 bytes of the file. Raises PictureError."""
        try:
            with self._open() as file:
                return file.read(MAX_BYTES + 1)
        except (OSError, ImportError, ValueError) as error:  # ImportError: fsspec needs another package for the scheme
            raise PictureError(getattr(error, "strerror", None) or f"cannot be read: {str(error)[:120]}") from None

    def _open(self) -> BinaryIO:
        if isinstance(self.where, Path):
            if not stat.S_ISREG(self.where.stat().st_mode):
                raise OSError(errno.EINVAL, "is no regular file")  # reading a named pipe might never return
            return self.where.open("rb")
        files, path = fsspec.url_to_fs(self.where)
        return cast(BinaryIO, files.open(path, "rb"))


class Places:
    """The locations below `folder` and below `roots` (URIs, or folders of this machine)."""

    def __init__(self, folder: Path, roots: tuple[str, ...]) -> None:
        self._folder = folder.resolve()
        self._folders = [self._folder]
        self._remote: list[tuple[str, str]] = []
        for root in roots:
            scheme, path = _split(root) or ("file", root)
            if scheme == "file":
                self._folders.append(Path(path).resolve())
            else:
                self._remote.append((scheme, path.rstrip("/") + "/"))

    def find(self, path: str) -> Place:
        """The location of a manifest's `path`. Raises InputError for a path outside the allowed folders and roots."""
        if "\x00" in path:
            raise InputError("the path holds a NUL character")
        uri = _split(path)
        if uri is None:
            if path.startswith(("/", "\\")) or ".." in PurePosixPath(path).parts:
                raise InputError(f"the path {path[:100]!r} leaves the manifest's folder")
            return self._local(self._folder / path, [self._folder], path)
        scheme, rest = uri
        if "::" in path or not {"..", "."}.isdisjoint(unquote(rest).split("/")) or any(c in rest for c in "?#*\\"):
            raise InputError(f"the URI {path[:100]!r} is not plain: no '..', '::', '?', '#' or '*'")
        if scheme == "file":
            if not rest.startswith("/"):
                raise InputError(f"the URI {path[:100]!r} names another machine; write file:///folder/name")
            return self._local(Path(rest), self._folders, path)
        if not any(scheme == allowed and rest.startswith(root) for allowed, root in self._remote):
            raise InputError(f"the URI {path[:100]!r} lies below no allowed root; see URBAN_REID_CROP_ROOTS")
        return Place(f"{scheme}://{rest}")

    def _local(self, path: Path, folders: list[Path], written: str) -> Place:
        try:
            target = os.path.realpath(path)
        except OSError as error:
            raise InputError(f"the path {written[:100]!r} cannot be followed: {error.strerror}") from None
        if not any(Path(target).is_relative_to(folder) for folder in folders):
            raise InputError(
                f"the path {written[:100]!r} leads to a place outside the manifest's folder and the allowed roots"
            )
        return Place(Path(target))


def _split(text: str) -> tuple[str, str] | None:
    """Lower-case scheme and the rest of a URI; None for a plain path."""
    match = _URI.fullmatch(text)
    if match is not None:
        return match[1].lower(), match[2]
    if "://" in text:
        raise InputError(f"the URI {text[:100]!r} has no plain scheme")
    return None
