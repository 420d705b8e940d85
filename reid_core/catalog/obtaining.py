"""Brings a model's files here: from its publisher, from a mirror, or from a folder."""

import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reid_core.catalog.entries import CatalogFile, CatalogModel, Release, Task, hash_of
from reid_core.catalog.fetching import checked_address, fetch, verify
from schemas.disk import make_folders, open_lock, try_lock
from schemas.errors import HomeError, InputError, ModelFileError, UsageError
from schemas.settings import Settings

#: Told with (file, bytes here, bytes in all or 0).
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Obtained:
    """A model's files in a folder that goes away; first the one that an engine opens."""

    folder: Path
    release: Release

    @property
    def files(self) -> list[Path]:
        return [self.folder / file.name for file in self.release.files]


@contextmanager
def obtain(
    settings: Settings, model: CatalogModel, source: str | None, sha256: str | None, tell: Tell
) -> Iterator[Obtained]:
    """A model's files, each with its published hash, in `downloads/NAME` of this home until the block ends.

    `source`: None for the publisher's addresses; an http(s) address, below which they lie as `NAME/FILE`; or a folder
    with `NAME/FILE` or `FILE`, where another release than the first counts too. `sha256`: the hash of a file whose
    publisher states none. After an error what was fetched stays, and the next call goes on from there. Raises
    UsageError, InputError, ModelFileError and HomeError.
    """
    releases = [_with_hashes(release, model, sha256) for release in model.releases]
    folder = settings.home / "downloads" / model.name
    with _alone(folder):
        if source is None or "://" in source:
            release = releases[0]
            for file in release.files:
                address = _address(file, model, source)
                if not _is(file, folder / file.name):
                    fetch(file, address, folder / file.name, partial(tell, f"bytes of {file.name}"))
        else:
            release = _from_folder(Path(source), model, releases, folder)
        yield Obtained(folder, release)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder, made, for one process at a time; it goes again if nothing came into it. Raises HomeError."""
    try:
        make_folders(folder)
        lock = open_lock(folder.with_name(f"{folder.name}.lock"))
    except OSError as error:
        raise HomeError(f"{folder}: cannot be written: {error.strerror}") from None
    with lock:
        if not try_lock(lock):
            raise HomeError(f"{folder}: another program fetches this model now; wait for it")
        try:
            yield
        finally:
            with suppress(OSError):  # something came into it
                folder.rmdir()


def _address(file: CatalogFile, model: CatalogModel, mirror: str | None) -> str:
    return file.address if mirror is None else f"{checked_address(mirror).rstrip('/')}/{model.name}/{file.name}"


def is_obtained(folder: Path, model: CatalogModel) -> bool:
    """Whether the folder holds the files of a release of the model, by their hashes as far as they are published."""
    return any(
        all(_is(file, folder / file.name) if file.hash else (folder / file.name).is_file() for file in release.files)
        for release in model.releases
    )


def keep_files(place: Path, files: Sequence[Path]) -> None:
    """Copies a model's files into the folder `place`, whole, instead of what was there. Raises HomeError."""
    new = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        make_folders(new)
        for file in files:
            shutil.copyfile(file, new / file.name)
        if place.exists():
            old = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
            place.rename(old)
            shutil.rmtree(old, ignore_errors=True)
        new.rename(place)
    except OSError as error:
        raise HomeError(f"{place}: the model cannot be kept there: {error.strerror}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _with_hashes(release: Release, model: CatalogModel, sha256: str | None) -> Release:
    """The release with the user's hash for the file that has none published. Raises UsageError."""
    unknown = [file for file in release.files if file.hash is None]
    if not unknown:
        if sha256 is not None:
            raise UsageError(f"{model.name}: its hash is published; leave --sha256 out")
        return release
    begins = unknown[0].sha256_begins
    published = f"only the first digits of its hash, {begins}" if begins else "no hash"
    if sha256 is None:
        raise UsageError(
            f"{model.name}: its publisher states {published}, so nothing here can tell it from a forged one; give the "
            f"hash of {unknown[0].name} that you trust with --sha256"
        )
    if not re.fullmatch(r"[0-9a-f]{64}", sha256.lower()) or not sha256.lower().startswith(begins or ""):
        raise UsageError(
            f"--sha256 {sha256[:80]!r}: write 64 hexadecimal digits{f', which begin with {begins}' if begins else ''}"
        )
    given = {"sha256": sha256.lower()}
    files = (file.model_copy(update=given) if file.hash is None else file for file in release.files)
    return release.model_copy(update={"files": tuple(files)})


def _from_folder(source: Path, model: CatalogModel, releases: list[Release], folder: Path) -> Release:
    """Copies the files of the first release that `source` holds whole. Raises InputError and ModelFileError."""
    if not source.is_dir():
        raise InputError(f"--from {source}: no such folder")
    names = list(dict.fromkeys(file.name for release in releases for file in release.files))
    there = {name: place for name in names for place in (source / name, source / model.name / name) if place.is_file()}
    published = [file for release in releases for file in release.files]
    try:
        right = {name: {file.hash for file in published if _is(file, place)} for name, place in there.items()}
        for release in releases:
            if all(file.hash in right.get(file.name, ()) for file in release.files):
                return _copied(release, there, folder)
        wrong = next((there[name] for name, hashes in right.items() if not hashes), None)
        found = hash_of(wrong, "sha384")[:16] if wrong is not None else ""
    except OSError as error:
        raise InputError(f"--from {source}: {error.filename or model.name} cannot be read: {error.strerror}") from None
    if wrong is not None:
        raise ModelFileError(
            f"{wrong}: is not the published file of {model.name}: its SHA-384 {found}... is not in the catalog, so "
            f"it was changed or is of another release; {_INSTEAD[model.task]}"
        )
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(f"--from {source}: holds neither {model.name}/{missing[0]} nor {missing[0]}")
    raise InputError(f"--from {source}: the files of {model.name} there are of different releases; take them from one")


def _copied(release: Release, there: dict[str, Path], folder: Path) -> Release:
    for file in release.files:
        try:
            shutil.copyfile(there[file.name], folder / file.name)
        except OSError as error:
            raise HomeError(f"{folder}: cannot be written: {error.strerror}") from None
        verify(file, folder / file.name, str(there[file.name]))
    return release


#: How a file that the catalog does not know is used all the same, by a user who trusts it.
_INSTEAD = {
    Task.RE_IDENTIFICATION: "`urban-reid models register` takes a file that you trust yourself",
    Task.DETECTION: "`--detector FILE` takes a file that you trust yourself",
    Task.ATTRIBUTES: "get it from elsewhere",
    Task.FACES: "get it from elsewhere",
}


def _is(file: CatalogFile, path: Path) -> bool:
    """Whether the published file lies at `path`."""
    if file.hash is None or not path.is_file() or file.bytes not in (None, path.stat().st_size):
        return False
    return hash_of(path, file.hash[0]) == file.hash[1]
