"""Recorded files that follow each other: the state that the looks leave at the end of one begins the next.

So somebody who crosses from one file into the next is one track, and the crops are those of one long file. Which file
follows which is told from their times alone, so neither the order in which they come in nor a restart changes it: where
a file comes in after the one that follows it, that one is taken in again.

The last crops of a file are given at its end, for nobody knows whether another follows. Where one does, those of them
that are none now that the tracks go on, such as a picture that a better one of the same half second follows, are
withdrawn.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from pipeline.crops.crop_store import place_of_crop
from pipeline.encryption.data_keys import DataKeys
from pipeline.ingest.look_state import Seam, name_of, unpacked
from pipeline.ingest.undo import withdraw
from pipeline.ingest.video import SOURCE
from pipeline.store import Store
from pipeline.store.locks import lock_crops
from schemas.disk import make_folders, write_whole
from schemas.errors import InputError
from schemas.keys import crop_key
from schemas.settings import Settings

#: A file follows another if it begins so soon before or after the other ends: names state whole seconds.
WITHIN = timedelta(seconds=1)
#: So many states of a camera are kept, the newest.
KEPT = 3


@dataclass(frozen=True)
class Before:
    """The file before: the name of the state that it left, that state, and when a frame after its last one is due."""

    name: str
    state: Mapping[str, Any]
    ends: datetime


_BEFORE = text(
    "SELECT leaves, ends FROM camera_file f WHERE camera = :camera AND state = 'taken' AND leaves IS NOT NULL "
    "AND start < :start AND ends - CAST(:start AS timestamptz) BETWEEN - :within AND :within "
    "AND NOT EXISTS (SELECT FROM ingest_batch b WHERE b.id = f.batch_id AND b.undone_at IS NOT NULL) "
    "ORDER BY greatest(ends - CAST(:start AS timestamptz), CAST(:start AS timestamptz) - ends), path LIMIT 1"
)
_TAKE_AGAIN = text(
    "UPDATE camera_file SET state = 'begun', attempts = 0 WHERE camera = :camera AND state = 'taken' "
    "AND start > :start AND start - CAST(:ends AS timestamptz) BETWEEN - :within AND :within "
    "AND follows IS DISTINCT FROM :leaves RETURNING path, bytes, modified_ns"
)


def before(store: Store, camera: str, start: datetime, options: Mapping[str, str]) -> Before | None:
    """What the file left that ends where one of `start` begins, looked at with the same options; None without it."""
    with store.begin() as connection:
        at = {"camera": camera, "start": start, "within": WITHIN}
        row = connection.execute(_BEFORE, at).one_or_none()
    if row is None:
        return None
    try:
        state = unpacked(_read(store.settings, camera, row.leaves, row.ends))
    except (OSError, InputError):  # it was removed, or is of an earlier program: this file begins anew
        return None
    return Before(row.leaves, state, row.ends) if state["options"] == dict(options) else None


def _read(settings: Settings, camera: str, name: str, ends: datetime) -> bytes:
    place = place_of_crop(camera, ends)
    key = DataKeys(settings).find(place.owner, place.day)
    data = (settings.look_states_dir / camera / name).read_bytes()
    state = None if key is None else key.decrypt(data, name)
    if state is None:
        raise InputError("is damaged")
    return state


def keep(settings: Settings, camera: str, left: bytes, ends: datetime | None) -> str:
    """Writes the state that a file left, encrypted by the key of the day on which it ends; returns the state's name.

    Removes the oldest states. It holds pictures of people.
    """
    name = name_of(left)
    place = place_of_crop(camera, ends or datetime.now(UTC))
    left = DataKeys(settings).make(place.owner, place.day).encrypt(left, name)
    folder = settings.look_states_dir / camera
    make_folders(folder)
    write_whole(folder / name, left, mode=0o600)
    for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)[:-KEPT]:
        old.unlink(missing_ok=True)
    return name


def forget(settings: Settings, camera: str) -> None:
    """Removes all states of a camera, which hold pictures of people."""
    shutil.rmtree(settings.look_states_dir / camera, ignore_errors=True)


def withdraw_replaced(store: Store, connection: Connection, camera: str, seam: Seam) -> set[int]:
    """Withdraws the crops of the file before that are none any more; returns the batches they were of."""
    if not seam.replaced:
        return set()
    lock_crops(connection)
    keys = [
        crop_key(crop.camera, crop.captured_at, SOURCE, hashlib.sha256(crop.read()).digest()) for crop in seam.replaced
    ]
    files = connection.scalars(text("SELECT batch_id FROM camera_file WHERE camera = :camera"), {"camera": camera})
    return withdraw(store, connection, keys, [batch for batch in files if batch is not None])


def take_again(
    connection: Connection, camera: str, start: datetime, ends: datetime | None, leaves: str
) -> list[tuple[str, int, int]]:
    """Has files taken in again that follow this one and began without it; returns path, size and time of change."""
    at = {"camera": camera, "start": start, "ends": ends, "leaves": leaves, "within": WITHIN}
    return [(row.path, row.bytes, row.modified_ns) for row in connection.execute(_TAKE_AGAIN, at)]
