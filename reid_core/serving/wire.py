"""The protocol between the core, here or elsewhere, and its clients: raw tensors, shapes in headers, bounded sizes.

    GET  /jobs                          requests that wait or compute: {"embedding": n, "detection": n}
    GET  /models/DIGEST                 200 if the home has an undamaged model with this digest
    POST /models/DIGEST/embed           uint8 (n, H, W, 3)    -> float32 (n, D)
    POST /models/DIGEST/distances       float64 (2, n, D)     -> float64 (n,)
    GET  /detectors/DIGEST              which pictures the home's detector with this digest takes
    POST /detectors/DIGEST/find         uint8 (n, h, w, 3)    -> float64 (m, 6): picture, corners in shares, confidence

An error is {"error": a class of schemas.errors, "message": its fact, "do": as there}. Byte order is that of
the machines, little-endian wherever PyTorch has wheels for.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from reid_core.serving.unix_socket import usable
from schemas.errors import CoreError, CoreUnavailable, ModelFileError, OutOfDeviceMemory, UrbanReidError, VectorError
from schemas.settings import Settings

SHAPE = "x-shape"
SECONDS = "x-seconds"
DEADLINE = "x-deadline-s"

#: Bytes of pictures or vectors that a client sends at once: a few batches, so that clients take turns.
CHUNK_BYTES = 8 * 2**20
#: Bytes that the core process accepts in one request: a chunk, or one picture of the largest input.
MAX_BODY_BYTES = 16 * 2**20
#: Seconds after which a client gives up on one chunk.
DEADLINE_S = 600.0


def rows_of_chunk(row_bytes: int, *multiples: int) -> int:
    """Rows of a chunk: a multiple of the first of `multiples` that fits, otherwise as many as fit, and at least 1."""
    fitting = max(1, CHUNK_BYTES // max(1, row_bytes))
    return next((fitting // multiple * multiple for multiple in multiples if multiple <= fitting), fitting)


ERRORS = {kind.__name__: kind for kind in (CoreError, CoreUnavailable, OutOfDeviceMemory, ModelFileError, VectorError)}


def statement(error: UrbanReidError) -> dict[str, str]:
    """What the other end is told of an error, which `stated` makes of it again."""
    name = type(error).__name__
    kind = name if name in ERRORS else CoreError.__name__
    return {"error": kind, "message": error.fact, "do": error.do}


def stated(said: Mapping[str, str]) -> CoreError:
    """The error of a `statement`. Raises KeyError where it is none."""
    return ERRORS[said["error"]](said["message"], do=said["do"])


def socket_path(settings: Settings) -> Path:
    """The core process's socket. Raises HomeError if its path is too long for a socket."""
    return usable(settings.core_socket)


def format_shape(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


def parse_shape(header: str | None, item_bytes: int, body_bytes: int) -> tuple[int, ...]:
    """The shape that a header states. Raises CoreError unless it accounts for each byte of the body."""
    try:
        shape = tuple(int(part) for part in (header or "")[:200].split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 0 or math.prod(shape) * item_bytes != body_bytes:
        raise CoreError(f"a body of {body_bytes} bytes does not have the shape {(header or 'none')[:60]!r}")
    return shape


def parse_deadline(header: str | None) -> float:
    """The seconds that a header states, at most `DEADLINE_S`, which is also the default. Raises CoreError."""
    if header is None:
        return DEADLINE_S
    try:
        deadline_s = float(header)
    except ValueError:
        deadline_s = math.nan
    if not deadline_s > 0:
        raise CoreError(f"the deadline {header[:60]!r} is not a number of seconds above 0")
    return min(deadline_s, DEADLINE_S)
