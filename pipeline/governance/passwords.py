"""Passwords of accounts: argon2id, its parameters in each hash."""

import unicodedata
from functools import cache
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from schemas.errors import InputError

#: RFC 9106, section 4, the second recommended option: 64 MiB, three passes, four lanes, 16 bytes of salt.
_HASHER = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4, hash_len=32, salt_len=16)
#: So many are hashed at once, whoever asks: each takes those 64 MiB.
_seats = BoundedSemaphore(4)
#: NIST SP 800-63B-4, 3.1.1.2: 15 characters or more where a password is all that is asked for, and no rules for them.
SHORTEST = 15
_LONGEST = 256


def new_password(text: str, name: str) -> str:
    """The hash of a password that somebody chose for the account `name`. Raises InputError for one that may not be."""
    if not SHORTEST <= len(text) <= _LONGEST:
        raise InputError(
            f"a password has {SHORTEST} to {_LONGEST} characters and this one {len(text)}; several words do well"
        )
    if len(set(text)) < 5 or name in text.casefold():
        raise InputError("a password has five different characters or more, and does not hold the account's name")
    with _seats:
        return _HASHER.hash(_bytes(text))


def matches(stored: str | None, text: str) -> bool:
    """Whether `text` is the password of a stored hash. None, no account: False, after as much work."""
    try:
        with _seats:
            return _HASHER.verify(stored or _nobodys(), _bytes(text)) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def renewed(stored: str, text: str) -> str | None:
    """A hash with the parameters of now where the stored one has others; else None."""
    return _HASHER.hash(_bytes(text)) if _HASHER.check_needs_rehash(stored) else None


def _bytes(text: str) -> bytes:
    """The same for each way in which keyboards compose a letter."""
    return unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")


@cache
def _nobodys() -> str:
    return _HASHER.hash(b"nobody's")
