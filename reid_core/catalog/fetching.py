"""Brings one file here from an http(s) address: with resume, bounded in size, checked before anybody opens it."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reid_core.catalog.entries import MAX_BYTES, CatalogFile, hash_of
from schemas.errors import HomeError, InputError, ModelFileError

if TYPE_CHECKING:
    import httpx

#: Told with (bytes here, bytes in all or 0).
Progress = Callable[[int, int], None]

#: How often a file is asked for when the connection is cut, each time from where it ended, and the pause between.
TRIES = 5
PAUSE_S = 1.0
REDIRECTS = 5
#: Seconds without a byte after which a connection counts as cut.
SILENCE_S = 30.0
#: Bytes of a piece, after which progress is told.
PIECE = 2**16


class _CutError(Exception):
    """The connection ended before the file did."""


def fetch(file: CatalogFile, address: str, place: Path, progress: Progress) -> None:
    """Writes the file at `address` to `place`, once it is whole and its hash is right.

    What has come is kept beside it as `NAME.part`, and the next call goes on from there. Proxies are those of
    HTTP_PROXY, HTTPS_PROXY and NO_PROXY. Raises InputError for an address that cannot be read or has no such file,
    ModelFileError for a file that is not the published one, of which nothing is kept, and HomeError.
    """
    part = place.with_name(f"{place.name}.part")
    for left in reversed(range(TRIES)):
        try:
            _go_on(file, checked_address(address), part, progress)
            break
        except _CutError as error:
            if not left:
                raise InputError(f"{address}: {error}; the same command goes on where it ended") from None
            time.sleep(PAUSE_S)
        except OSError as error:
            raise HomeError(f"{part}: cannot be written: {error.strerror}") from None
    verify(file, part, address)
    part.replace(place)


def verify(file: CatalogFile, content: Path, where: str) -> None:
    """Raises ModelFileError, and removes `content`, unless it is the published file. `where`: it came from."""
    assert file.hash is not None, file.name
    algorithm, expected = file.hash
    found = hash_of(content, algorithm)
    if found != expected:
        size = content.stat().st_size
        content.unlink()
        raise ModelFileError(
            f"{where}: is not the published {file.name}: its {size} bytes have the {algorithm.upper()} {found[:16]}... "
            f"and not {expected[:16]}...; nothing of it is kept"
        )


def checked_address(address: str) -> str:
    """The address, if it is one of http or https without a user name. Raises InputError."""
    try:
        parts = urlsplit(address)
        fine = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    except ValueError:
        fine = False
    if not fine:
        raise InputError(f"{address[:200]!r}: is no http:// or https:// address without a user name")
    return address


def _go_on(file: CatalogFile, address: str, part: Path, progress: Progress) -> None:
    """Appends to `part` what it lacks."""
    import httpx

    have = part.stat().st_size if part.is_file() else 0
    if file.bytes is not None and have == file.bytes:
        return
    headers = {"accept-encoding": "identity", **({"range": f"bytes={have}-"} if have else {})}
    try:
        with (
            httpx.Client(follow_redirects=True, max_redirects=REDIRECTS, timeout=SILENCE_S) as client,
            client.stream("GET", address, headers=headers) as answer,
        ):
            have = _start(answer, part, have, address)
            length = answer.headers.get("content-length", "")
            total = have + int(length) if length.isdecimal() else 0
            if file.bytes is not None and total not in (0, file.bytes):
                raise _other_size(file, part, address, total)
            with part.open("r+b" if have else "wb") as stream:
                stream.seek(have)
                stream.truncate()
                for piece in _pieces(answer):
                    have += len(piece)
                    if have > (file.bytes or MAX_BYTES):
                        raise _other_size(file, part, address, have)
                    stream.write(piece)
                    progress(have, total or file.bytes or 0)
        if file.bytes is not None and have != file.bytes:
            raise _other_size(file, part, address, have)
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
        raise InputError(f"{address}: {_reason(error)}") from None
    except httpx.HTTPError as error:
        raise _CutError(_reason(error)) from None


def _start(answer: "httpx.Response", part: Path, have: int, address: str) -> int:
    """From which byte on the answer sends the file; `have` or 0. Raises _CutError and InputError."""
    if answer.status_code == 200:
        return 0
    if answer.status_code == 206:
        start = re.match(r"bytes (\d{1,18})-", answer.headers.get("content-range", ""))
        if start is not None and int(start[1]) == have:
            return have
    if answer.status_code in (206, 416):  # what is here is no beginning of what is there
        part.unlink(missing_ok=True)
        raise _CutError("the file there is another one now")
    if answer.status_code == 429 or answer.status_code >= 500:
        raise _CutError(f"the server answers {answer.status_code}")
    raise InputError(f"{address}: cannot be had: the server answers {answer.status_code} {answer.reason_phrase}")


def _pieces(answer: "httpx.Response") -> Iterator[bytes]:
    return answer.iter_raw(PIECE)  # as it was sent: nothing is unpacked


def _other_size(file: CatalogFile, part: Path, address: str, size: int) -> ModelFileError:
    part.unlink(missing_ok=True)
    return ModelFileError(
        f"{address}: is not the published {file.name}: it has {size} bytes or more, and {file.bytes or MAX_BYTES} are "
        "right; nothing of it is kept"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
