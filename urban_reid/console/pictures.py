"""Pictures of the pages: by an address that nobody can guess, and only for whoever may see the crop now."""

import base64
import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock

from sqlalchemy import text

from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.crops.privacy import shows_people
from pipeline.report.thumbnails import Picture, thumbnail
from schemas.errors import PictureError, StoreError
from urban_reid.console.visitors import Visitor

#: Thumbnails that are kept in memory: about 5 kB each.
_KEPT = 4_000

# Under row-level security this finds what the visitor may see, and nothing else.
_CROP = text(
    "SELECT encode(key, 'hex') FROM crop WHERE camera = :camera AND captured_at = :taken AND picture = :sha "
    "AND withdrawn_at IS NULL"
)


def address(picture: Picture, visitor: Visitor, height_px: int) -> str:
    """The path of a crop's picture for this visitor: signed, and of no use to another one."""
    said = f"{height_px} {picture.camera} {picture.taken.isoformat()} {picture.sha256.hex()}".encode()
    return f"/pictures/{_base64(said)}.{_base64(_signature(said, visitor))}"


@dataclass
class Thumbnails:
    """Makes thumbnails once."""

    crops: CropStore
    _made: OrderedDict[bytes, bytes] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, name: str, visitor: Visitor) -> bytes | None:
        """The JPEG of an address's last part; None if there is none, or this visitor may not see it now."""
        said = _read(name, visitor)
        if said is None or crop_of(name, visitor) is None:
            return None
        height, camera, moment, sha = _parts(said)
        with self._lock:
            if said in self._made:
                self._made.move_to_end(said)
                return self._made[said]
        picture = Picture(camera, sha, 0, 0, moment, 1.0, height)
        try:
            with visitor.store.signed_in() as connection:
                blurred = shows_people(connection)
            made = thumbnail(picture, self.crops.get(place_of_crop(camera, moment), picture.sha256), blurred)
        except (StoreError, PictureError):
            return None
        with self._lock:
            self._made[said] = made
            while len(self._made) > _KEPT:
                self._made.popitem(last=False)
        return made


def crop_of(name: str, visitor: Visitor) -> str | None:
    """The key, in hex, of the crop behind an address's last part; None where the visitor may see none now."""
    said = _read(name, visitor)
    if said is None:
        return None
    _, camera, taken, sha = _parts(said)
    with visitor.store.signed_in() as connection:
        key = connection.execute(_CROP, {"camera": camera, "taken": taken, "sha": sha}).scalar()
    return None if key is None else str(key)


def _parts(said: bytes) -> tuple[int, str, datetime, bytes]:
    """Height in pixels, camera, time, SHA-256 of the picture."""
    height, camera, taken, sha = said.decode().split(" ")
    return int(height), camera, datetime.fromisoformat(taken), bytes.fromhex(sha)


def _read(name: str, visitor: Visitor) -> bytes | None:
    said, _, signature = name.partition(".")
    try:
        decoded, given = _bytes(said), _bytes(signature)
    except ValueError:
        return None
    return decoded if hmac.compare_digest(given, _signature(decoded, visitor)) else None


def _signature(said: bytes, visitor: Visitor) -> bytes:
    return hmac.new(visitor.secret, said, hashlib.sha256).digest()[:16]


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text_: str) -> bytes:
    return base64.urlsafe_b64decode(text_ + "=" * (-len(text_) % 4))
