import io

import pytest

from pipeline.encryption.sealed import BrokenSeal, new_key, seal, unseal

KEY = new_key()
PART = 1 << 20
SIZES = [0, 1, PART - 1, PART, PART + 1, 3 * PART]


def sealed(data: bytes, salt: bytes | None = None) -> bytes:
    to = io.BytesIO()
    seal(KEY, io.BytesIO(data), to, salt)
    return to.getvalue()


def opened(content: bytes, key: bytes = KEY) -> bytes:
    to = io.BytesIO()
    unseal(key, io.BytesIO(content), to)
    return to.getvalue()


class Dribbling(io.BytesIO):
    """Gives fewer bytes than are asked for, as a pipe does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 65_536))


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_comes_back(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert opened(sealed(data)) == data
    slow = io.BytesIO()
    seal(KEY, Dribbling(data), slow)
    assert opened(slow.getvalue()) == data
    assert sealed(data) != sealed(data) and sealed(data, b"s" * 32) == sealed(data, b"s" * 32)


def test_each_change_is_found() -> None:
    content = sealed(b"x" * (2 * PART + 5))
    head, parts = content[:36], [content[36 + n * (PART + 16) :][: PART + 16] for n in range(3)]
    assert head + b"".join(parts) == content
    one, two, last = parts
    for changed in (
        b"",
        head,
        head[:-1],
        head + one + two,  # the end is cut off
        head + one + last,
        head + two + one + last,
        head + one + two + last + last,
        head + one + two + last[:-1],
        head + one + two + last + b"?",
        sealed(b"")[:36] + one + two + last,  # the head of another one
        *(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in (0, 4, 36, PART, len(content) - 1)),
    ):
        with pytest.raises(BrokenSeal):
            opened(changed)
    with pytest.raises(BrokenSeal):
        opened(content, new_key())
