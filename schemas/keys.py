"""Content hashes. A key depends on the content only, never on the time or the order of arrival.

Every key is 32 bytes of SHA-256 over length-prefixed parts, so that different lists of parts have different hashes.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime

from schemas.levels import Level
from schemas.times import to_us

KEY_BYTES = 32


def content_hash(kind: str, parts: Iterable[bytes | str | int]) -> bytes:
    """SHA-256 over `kind` and `parts`, each preceded by its type and length."""
    pieces: list[bytes] = []
    for part in (kind, *parts):
        if isinstance(part, bytes):
            tag, data = b"b", part
        elif isinstance(part, str):
            tag, data = b"s", part.encode()
        else:
            tag, data = b"i", str(part).encode()
        pieces += (tag, len(data).to_bytes(8, "big"), data)
    return hashlib.sha256(b"".join(pieces)).digest()


def crop_key(camera: str, captured_at: datetime, source: str, picture_sha256: bytes) -> bytes:
    """The key of a crop."""
    return content_hash("crop", (camera, to_us(captured_at), source, picture_sha256))


def tracklet_key(crop_keys: Iterable[bytes]) -> bytes:
    """The key of a tracklet, which is an identity at camera level."""
    return content_hash("tracklet", sorted(crop_keys))


def identity_key(level: Level, unit: str, member_keys: Iterable[bytes]) -> bytes:
    """The key of an identity above camera level."""
    return content_hash("identity", (level.value, unit, *sorted(member_keys)))


def decision_hash(level: Level, unit: str, window: datetime, verdict: str, left_key: bytes, right_key: bytes) -> bytes:
    """The hash of a match decision's canonical row. No id, clock time or float enters it."""
    return content_hash("decision", (unit, level.value, to_us(window), verdict, left_key, right_key))


def group_hash(level: Level, unit: str, tracklet_keys: Iterable[bytes]) -> bytes:
    """The hash of a group's canonical row: what a version of an identity holds, whatever lies between."""
    return content_hash("group", (unit, level.value, *sorted(tracklet_keys)))
