"""Pictures of the pages: by an address that nobody can guess, and only for whoever may see the crop now."""

import base64
import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, text

from pipeline.crops.context_frames import context_store
from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.crops.quality import decode
from pipeline.governance.leads import extension
from pipeline.report.thumbnails import Picture, thumbnail
from schemas.errors import PictureError, StoreError
from schemas.settings import Settings
from urban_reid.console.visitors import Visitor

#: Thumbnails that are kept in memory: about 5 kB each.
_KEPT = 4_000

# Under row-level security this finds what the visitor may see, and nothing else.
_CROP = text(
    "SELECT encode(key, 'hex') AS key, (SELECT kind FROM city) <> 'synthetic' AS shows_people FROM crop "
    "WHERE camera = :camera AND captured_at = :taken AND picture = :sha "
    "AND withdrawn_at IS NULL"
)

_FRAME = text(
    "SELECT NULL AS key, (SELECT kind FROM city) <> 'synthetic' AS shows_people FROM context_frame "
    "WHERE camera = :camera AND captured_at = :taken AND picture = :sha"
)


def address(picture: Picture, visitor: Visitor, height_px: int) -> str:
    """The path of a crop's picture for this visitor: signed, and of no use to another one."""
    kind = "frame" if picture.is_frame else "crop"
    said = f"{kind} {height_px} {picture.camera} {picture.taken.isoformat()} {picture.sha256.hex()}".encode()
    return f"/pictures/{_base64(said)}.{_base64(_signature(said, visitor))}"


@dataclass
class Thumbnails:
    """Makes thumbnails once."""

    settings: Settings
    _made: OrderedDict[bytes, bytes] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, name: str, visitor: Visitor) -> bytes | None:
        """The JPEG of an address's last part; None if there is none, or this visitor may not see it now."""
        said = _read(name, visitor)
        crop = None if said is None else _crop(said, visitor)
        if said is None or crop is None:
            return None
        asked = _asked(said)
        with self._lock:
            if said in self._made:
                self._made.move_to_end(said)
                return self._made[said]
        try:
            made = thumbnail(asked, self._stored(asked), blurred=crop.shows_people)
        except (StoreError, PictureError):
            return None
        with self._lock:
            self._made[said] = made
            while len(self._made) > _KEPT:
                self._made.popitem(last=False)
        return made

    def original(self, name: str, visitor: Visitor) -> "Original | None":
        """The stored crop behind an address's last part, as models see it; None as for `get`. It is never sent."""
        said = _read(name, visitor)
        crop = None if said is None else _crop(said, visitor)
        if said is None or crop is None or crop.key is None:
            return None
        asked = _asked(said)
        try:
            return Original(str(crop.key), asked.camera, decode(self._stored(asked)))
        except (StoreError, PictureError):
            return None

    def _stored(self, asked: Picture) -> bytes:
        crops = context_store(self.settings) if asked.is_frame else CropStore(self.settings)
        return crops.get(place_of_crop(asked.camera, asked.taken), asked.sha256)


@dataclass(frozen=True)
class Original:
    """A stored crop: its key in hex, its camera, uint8 RGB (h, w, 3)."""

    key: str
    camera: str
    pixels: NDArray[np.uint8]


def crop_of(name: str, visitor: Visitor) -> str | None:
    """The key, in hex, of the crop behind an address's last part; None where the visitor may see none now."""
    said = _read(name, visitor)
    crop = None if said is None else _crop(said, visitor)
    return None if crop is None or crop.key is None else str(crop.key)


def media_type(data: bytes) -> str:
    """That of a stored picture."""
    return f"image/{extension(data)[1:].replace('jpg', 'jpeg')}"


def _crop(said: bytes, visitor: Visitor) -> Row[Any] | None:
    """Key of a crop in hex, None for a frame, and whether the city's pictures show people.

    None where the visitor may not see it now.
    """
    asked = _asked(said)
    values = {"camera": asked.camera, "taken": asked.taken, "sha": asked.sha256}
    with visitor.store.signed_in() as connection:
        return connection.execute(_FRAME if asked.is_frame else _CROP, values).first()


def _asked(said: bytes) -> Picture:
    """The picture that an address names."""
    kind, height, camera, taken, sha = said.decode().split(" ")
    widest = {"widest": 4.0} if kind == "frame" else {}
    moment = datetime.fromisoformat(taken)
    return Picture(camera, bytes.fromhex(sha), 0, 0, moment, 1.0, int(height), is_frame=kind == "frame", **widest)


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
