"""Encrypts the pictures that version 0.2 or earlier stored as they were.

Killed anywhere, each picture is there, once or twice: one is removed only when the encrypted one is on the disk. Crops
may come in meanwhile; nothing may be undone or dropped, so that no picture comes back.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline.crops.context_frames import context_store
from pipeline.crops.crop_store import CropStore, Place
from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from pipeline.store.locks import share_crops

#: So many are written to the disk at once.
_AT_A_TIME = 500


@dataclass(frozen=True)
class Encrypted:
    """How many pictures were encrypted, and how many were damaged and stay as they are."""

    encrypted: int
    damaged: int


def encrypt_earlier(store: Store, progress: Callable[[int, int], None] | None = None) -> Encrypted:
    """Encrypts all pictures and context frames that are not; an audit row says how many. Raises HomeError."""
    stores = CropStore(store.settings), context_store(store.settings)
    waiting = [(pictures, *one) for pictures in stores for one in earlier_pictures(pictures)]
    encrypted = 0
    for start in range(0, len(waiting), _AT_A_TIME):
        part = waiting[start : start + _AT_A_TIME]
        with store.begin() as connection:
            share_crops(connection)
            written = [path for pictures, place, sha256, path in part if pictures.encrypt_earlier(place, sha256)]
            os.sync()
            for path in written:
                path.unlink(missing_ok=True)
        encrypted += len(written)
        if progress is not None:
            progress(start + len(part), len(waiting))
    result = Encrypted(encrypted, len(waiting) - encrypted)
    if waiting:
        with store.begin() as connection:
            details = {"encrypted": result.encrypted, "damaged": result.damaged}
            audit(connection, store.settings.operator, Action.CROP_ENCRYPT, details=details)
    return result


def earlier_pictures(pictures: CropStore) -> Iterator[tuple[Place, bytes, Path]]:
    """Place, hash and file of each picture in the store that is not encrypted."""
    for path in sorted(pictures.root.glob("*/????-??-??/??/*")):
        name = f"{path.parent.name}{path.name}"
        if len(name) == 64 and "." not in name:
            day = path.parents[1]
            yield Place(day.parent.name, date.fromisoformat(day.name)), bytes.fromhex(name), path
