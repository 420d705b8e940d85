"""Pictures of the pages: by an address that nobody can guess, and only for whoever may see the crop now."""

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
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
from pipeline.store import Store
from schemas.errors import PictureError, StoreError, UrbanReidError
from urban_reid.console.kept import Later
from urban_reid.console.visitors import Visitor

#: Thumbnails that are kept in memory: about 5 kB each. How often those are dropped that the database shows to nobody.
_KEPT, _LOOK_EVERY_S = 4_000, 60.0

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

# Of pictures and their numbers those that are still there, for whomever.
_THERE = (
    "SELECT k.n FROM unnest(CAST(:cameras AS text[]), CAST(:taken AS timestamptz[]), CAST(:shas AS bytea[])) "
    "WITH ORDINALITY AS k (camera, taken, sha, n) WHERE EXISTS (SELECT FROM {table} AS t WHERE t.camera = k.camera "
    "AND t.captured_at = k.taken AND t.picture = k.sha AND {and_})"
)
_CROPS_THERE = text(_THERE.format(table="crop", and_="t.withdrawn_at IS NULL"))
_FRAMES_THERE = text(_THERE.format(table="context_frame", and_="t.day = (k.taken AT TIME ZONE 'UTC')::date"))


def address(picture: Picture, visitor: Visitor, height_px: int) -> str:
    """The path of a crop's picture for this visitor: signed, and of no use to another one."""
    kind = "frame" if picture.is_frame else "crop"
    said = f"{kind} {height_px} {picture.camera} {picture.taken.isoformat()} {picture.sha256.hex()}".encode()
    return f"/pictures/{_base64(said)}.{_base64(_signature(said, visitor))}"


class Thumbnails:
    """Makes thumbnails once, and keeps them as long as the database has their pictures."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = Lock()
        self._later = Later(self._drop_gone)

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
        self._later.ask(_LOOK_EVERY_S)
        return made

    def _drop_gone(self) -> float | None:
        """Drops the thumbnails of who was erased and of what was withdrawn or went by age."""
        with self._lock:
            made = list(self._made)
        with suppress(UrbanReidError):  # of a database that is away: it is asked again
            there = self._there(made)
            with self._lock:
                for said in set(made) - there:
                    self._made.pop(said, None)
        with self._lock:
            return _LOOK_EVERY_S if self._made else None

    def _there(self, made: Sequence[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        asked = [(said, _asked(said)) for said in made]
        with self._store.begin(only_reads=True) as connection:
            for query, is_frame in ((_CROPS_THERE, False), (_FRAMES_THERE, True)):
                of = [(said, one) for said, one in asked if one.is_frame is is_frame]
                cameras, taken, shas = ([getattr(one, name) for _, one in of] for name in ("camera", "taken", "sha256"))
                rows = connection.scalars(query, {"cameras": cameras, "taken": taken, "shas": shas})
                found |= {of[n - 1][0] for n in rows}
        return found

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
        crops = context_store(self._store.settings) if asked.is_frame else CropStore(self._store.settings)
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
