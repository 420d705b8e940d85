"""What the looks at a file leave for the file that follows it: tracks, held crops, and what the pictures were before.

The state is written exactly and without pickle: JSON for the structure, with each array and picture as a tensor of its
own, in a safetensors file. The same looks give the same bytes, so a state's name is their hash.
"""

import hashlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipeline.ingest.crop_writer import Candidate
from pipeline.ingest.motion import MotionGate
from pipeline.ingest.pace import Pace
from pipeline.ingest.stillness import ChangeMap, Decision, Known, StaticFilter
from pipeline.ingest.tracking import Track, Tracker
from schemas.errors import InputError

#: To be raised with each change of a field of these classes: an earlier program's state then begins nothing.
VERSION = 2
CLASSES = {
    each.__name__: each for each in (ChangeMap, Known, MotionGate, Pace, StaticFilter, Track, Tracker, Candidate)
}
_STRUCTURE = "structure"


@dataclass
class Seam:
    """How the looks at a file go on from the file before, and what they leave for the file after.

    `after`: the state that the file before left, None: it begins anew. In the end, `left` is the state that this one
    leaves, `ends` when a frame after its last one would have been taken, and `replaced` the crops that were given at
    the end of the file before and are none now that it goes on, such as a picture that a better one follows.
    """

    after: Mapping[str, Any] | None = None
    left: bytes | None = None
    ends: datetime | None = None
    replaced: Sequence[Candidate] = ()


def packed(value: Any) -> bytes:
    """A state as bytes. It may hold numbers, text, times, arrays, collections, and objects of CLASSES."""
    arrays: dict[str, NDArray[Any]] = {}
    structure = json.dumps({"version": VERSION, "state": _plain(value, arrays)}).encode()
    return save(arrays | {_STRUCTURE: np.frombuffer(structure, np.uint8)})


def unpacked(data: bytes) -> Any:
    """The state that was packed. Raises InputError for bytes that are none, or of another program's version."""
    try:
        arrays = load(data)
        said = json.loads(arrays[_STRUCTURE].tobytes())
        if said["version"] != VERSION:
            raise InputError("is of another version of this program")
        return _restored(said["state"], arrays)
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise InputError("is damaged") from None


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _plain(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """The value as JSON holds it; its arrays go to `arrays`."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | bytes):
        name = str(len(arrays))
        whole = isinstance(value, np.ndarray)
        arrays[name] = np.ascontiguousarray(value) if whole else np.frombuffer(value, np.uint8)
        return {"array" if whole else "bytes": name}
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    if isinstance(value, timedelta):
        return {"us": value // timedelta(microseconds=1)}
    if isinstance(value, Decision):
        return {"decision": value.name}
    if isinstance(value, dict):
        return {"dict": [[_plain(part, arrays) for part in pair] for pair in value.items()]}
    for kind in (list, tuple, deque):
        if isinstance(value, kind):
            return {kind.__name__: [_plain(part, arrays) for part in value]}
    fields = vars(value)
    if isinstance(value, Candidate):
        fields = fields | {"read": value.read()}
    return {"of": type(value).__name__, "fields": {name: _plain(part, arrays) for name, part in fields.items()}}


def _restored(plain: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if not isinstance(plain, dict):
        return plain
    if "of" in plain:
        fields = {name: _restored(part, arrays) for name, part in plain["fields"].items()}
        if plain["of"] == Candidate.__name__:
            picture = fields["read"]
            fields["read"] = lambda: picture
        made = object.__new__(CLASSES[plain["of"]])
        vars(made).update(fields)
        return made
    ((kind, held),) = plain.items()
    match kind:
        case "array":
            return arrays[held].copy()  # loaded ones cannot be written to
        case "bytes":
            return arrays[held].tobytes()
        case "time":
            return datetime.fromisoformat(held)
        case "us":
            return timedelta(microseconds=held)
        case "decision":
            return Decision[held]
        case "dict":
            return {_restored(key, arrays): _restored(part, arrays) for key, part in held}
        case _:
            parts = [_restored(part, arrays) for part in held]
            return {"list": list, "tuple": tuple, "deque": deque}[kind](parts)
