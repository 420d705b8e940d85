"""Moves the pictures of a home of version 0.2 or earlier, `crops/ab/cdef...`, to their places.

It can be killed anywhere and goes on at the next call. A picture gets its new places first, and is removed from the old
one when it is at all of them.
"""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from sqlalchemy import Connection, text

from pipeline.crops.crop_store import PROBES, CropStore, Place

#: Below the crop store's root: pictures that no crop and no probe refers to, left by killed ingests.
UNCLAIMED = "_unclaimed"

_FOLDER, _NAME = re.compile("[0-9a-f]{2}"), re.compile("[0-9a-f]{62}")

_CLAIMS = text(
    "SELECT picture, split_part(camera, '/', 1) AS owner, (captured_at AT TIME ZONE 'UTC')::date AS day FROM crop "
    f"UNION SELECT picture, '{PROBES}', (uploaded_at AT TIME ZONE 'UTC')::date FROM probe ORDER BY picture, owner, day"
)


def is_earlier(crops: CropStore) -> bool:
    """Whether there are folders of an earlier version: with files, or emptied by a move that was killed.

    A district's code may look like such a folder's name, but below it are folders only.
    """
    for folder in _folders(crops):
        with os.scandir(folder) as entries:
            first = next(entries, None)
            if first is None or first.is_file() or any(entry.is_file() for entry in entries):
                return True
    return False


def move_pictures(connection: Connection, crops: CropStore) -> None:
    """Moves every picture to the places of the crops and probes that refer to it, if any is in an earlier place.

    Pictures that none refers to go to UNCLAIMED, for a person to look at. Parts of pictures are removed. A database
    without crops moves nothing: it is hardly the one of these pictures. One process moves, others wait. Raises
    HomeError.
    """
    with crops.errors():
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('urban_reid pictures', 0))"))
        if is_earlier(crops) and connection.scalar(text("SELECT EXISTS (SELECT FROM crop)")):
            _move(connection, crops)


def _move(connection: Connection, crops: CropStore) -> None:
    crops.root.chmod(0o700)
    for old, sha256, places in _claimed(connection, crops):
        for place in places:
            crops.take_over(place, sha256, old)
    os.sync()  # the new places are on the disk before an old one goes
    for old, sha256, places in _claimed(connection, crops):
        if not places:
            _set_aside(crops, old)
        elif all(crops.find(place, sha256) is not None for place in places):
            old.unlink(missing_ok=True)
    for folder in _folders(crops):
        for other in (path for path in folder.iterdir() if path.is_file() and not _NAME.fullmatch(path.name)):
            if other.suffix == ".part":
                other.unlink()
            else:
                _set_aside(crops, other)
        if not any(folder.iterdir()):
            folder.rmdir()


def _set_aside(crops: CropStore, file: Path) -> None:
    to = crops.root / UNCLAIMED / file.parent.name / file.name
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.rename(to)


def _folders(crops: CropStore) -> list[Path]:
    if not crops.root.is_dir():
        return []
    return sorted(path for path in crops.root.iterdir() if _FOLDER.fullmatch(path.name) and path.is_dir())


def _claimed(connection: Connection, crops: CropStore) -> Iterator[tuple[Path, bytes, Sequence[Place]]]:
    """Each picture in an earlier place, with its hash and the places that it belongs to."""
    rows = connection.execution_options(yield_per=10_000).execute(_CLAIMS)
    claims = groupby(rows, key=lambda row: bytes(row.picture))
    claim = next(claims, None)
    for folder in _folders(crops):
        for old in sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)):
            sha256 = bytes.fromhex(folder.name + old.name)
            while claim is not None and claim[0] < sha256:
                claim = next(claims, None)
            found = claim[1] if claim is not None and claim[0] == sha256 else ()
            yield old, sha256, [Place(row.owner, row.day) for row in found]
