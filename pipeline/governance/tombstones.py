"""What was erased, known again by salted hashes: a crop that was erased is not taken in again.

A hash says nothing to who does not have what it was made of: a key follows from the picture, its camera and its time to
the microsecond, and an id of a person is random. Who has all of that can find out that it was erased here, and no more.
"""

import hashlib
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, text

#: Kinds of names that are hashed: keys in hex, a picture's SHA-256 in hex, ids.
KINDS = ("crop", "picture", "identity", "person", "probe")

_AMONG = text("SELECT hash FROM erased WHERE hash = ANY(CAST(:hashes AS bytea[]))")


def read_salt(connection: Connection) -> bytes:
    return bytes(connection.execute(text("SELECT salt FROM erasure_salt")).scalar_one())


def erased_hash(salt: bytes, kind: str, name: str) -> bytes:
    """As `erased_hash` in the database computes it."""
    return hashlib.sha256(salt + f"{kind} {name}".encode()).digest()


def erased_crops(connection: Connection, keys: Iterable[bytes]) -> set[bytes]:
    """Those of the keys whose crops were erased."""
    wanted = set(keys)
    if not wanted or not connection.scalar(text("SELECT EXISTS (SELECT FROM erased)")):
        return set()
    salt = read_salt(connection)
    by_hash = {erased_hash(salt, "crop", key.hex()): key for key in wanted}
    found: Sequence[memoryview] = connection.execute(_AMONG, {"hashes": list(by_hash)}).scalars().all()
    return {by_hash[bytes(one)] for one in found}
