"""One picture as it was taken, with its face: asked for one by one, each a row of the audit before it is written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import text

from pipeline.crops.context_frames import context_store
from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.governance.audit import Action
from pipeline.governance.deciding import check_may_export
from pipeline.governance.doors import check_authorized, refused
from pipeline.governance.written import record_written
from pipeline.store import Store
from schemas.disk import write_whole
from schemas.errors import InputError

_WHAT = "a look at a picture with its face"
_CROP = text("SELECT camera, captured_at, picture FROM crop WHERE key = :key AND withdrawn_at IS NULL")
_FRAME = text(
    "SELECT f.captured_at, f.picture FROM context_frame f JOIN crop c ON c.camera = f.camera AND c.track = f.track "
    "WHERE c.key = :key AND c.withdrawn_at IS NULL"
)


@dataclass(frozen=True)
class Shown:
    """A picture that was written: its camera, and the file."""

    camera: str
    file: Path


def show_picture(store: Store, key: str, out: Path, *, reason: str, of: Literal["crop", "frame"] = "crop") -> Shown:
    """Writes the picture of the crop with this key (hex), or the context frame of its track, closed to other users.

    Raises NotAllowed, InputError for what there is none of and a file that is there, StoreError, HomeError.
    """
    if out.exists():
        raise InputError(f"{out} is there already; name another file")
    try:
        found = bytes.fromhex(key)
    except ValueError:
        found = b""
    check_may_export(store, _WHAT)  # whoever may see nobody is not told either whether there is such a crop
    with store.begin() as connection:
        crop = connection.execute(_CROP, {"key": found}).one_or_none()
    if crop is None:
        raise InputError(f"no crop has the key {key[:80]!r}; `assignments.jsonl` beside a report lists keys")
    grant = check_authorized(store, crop.camera, _WHAT)
    if grant.from_time and grant.to_time and not grant.from_time <= crop.captured_at < grant.to_time:
        raise refused(store, grant, _WHAT, f"{_WHAT} of another time is not covered by the authorization", crop.camera)
    details = {"crop": key, "of": of}
    check_authorized(store, crop.camera, _WHAT, Action.PICTURE_SHOW, reason=reason, details=details)
    pictures = CropStore(store.settings) if of == "crop" else context_store(store.settings)
    with store.signed_in() as connection:
        taken = connection.execute(_CROP if of == "crop" else _FRAME, {"key": found}).one_or_none()
    if taken is None:
        raise InputError(f"the track of crop {key} has no context frame, or it may not be seen")
    data = pictures.get(place_of_crop(crop.camera, taken.captured_at), bytes(taken.picture))
    with store.begin() as connection:
        record_written(connection, "picture", out, unit=crop.camera)
    try:
        write_whole(out, data, mode=0o600)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}") from None
    return Shown(crop.camera, out)
