"""A user's own labels: a file that says of crops who is on them.

CSV with a head line, or JSON Lines. A label has `truth` and either `crop`, the crop's key in hex, or `camera`, `time`
(with a zone) and `track` (left out where the crop came without one). Other columns are ignored, so that a manifest, or
an export of assignments, is a file of labels too. A label whose `truth` is empty says nothing.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection

from pipeline.accuracy.labeled import Said
from pipeline.store.copy import copy_out
from schemas.arrays import Ints
from schemas.errors import InputError
from schemas.levels import is_within
from schemas.times import parse_time

MAX_LINE_BYTES = 65_536
MAX_TRUTH = 200
#: Labels that go to the database at a time.
_BATCH = 20_000


@dataclass(frozen=True)
class Label:
    crop: bytes | None  # the key; else camera, captured_at and track say which crop
    camera: str
    captured_at: datetime | None
    track: str | None
    truth: str


@dataclass(frozen=True)
class Matched:
    """How many of the file's labels are of crops of the unit."""

    labels: int
    matched: int


def read_labels(path: Path) -> Iterator[Label]:
    """The file's labels, one after the other. Raises InputError with the line at fault."""
    lines = _lines(path)
    first = next((line for line in lines if line.strip()), "")
    rows = (_json if first.lstrip().startswith("{") else _csv)(path, chain([first], lines))
    for number, row in rows:
        try:
            label = _label(row)
        except (ValueError, InputError) as error:
            raise InputError(f"{path}: line {number}: {error}") from None
        if label is not None:
            yield label


def read_said(path: Path, unit: str, told: Callable[[Matched], None] = lambda _: None) -> Callable[[Connection], Said]:
    """What `labeled_tracklets` asks: the file's labels of the unit's crops. `told` hears how many these were.

    Raises InputError where no label is of a crop of the unit, and as `read_labels`.
    """

    def said(connection: Connection) -> Said:
        numbers: dict[str, int] = {}
        labels = matched = 0
        found: list[tuple[Ints, Ints]] = []
        given = read_labels(path)
        while batch := list(islice(given, _BATCH)):
            labels += len(batch)
            person = np.array([numbers.setdefault(label.truth, len(numbers)) for label in batch], dtype=np.int64)
            for rows, tracklet in _tracklets(connection, unit, batch):
                matched += len(np.unique(rows))
                found.append((tracklet, person[rows]))
        if not matched:
            raise InputError(
                f"{path}: none of its {labels} labels is of a crop of {unit}; a label names a crop by its key, `crop`, "
                "or by `camera`, `time` and `track`, as they were taken in"
            )
        told(Matched(labels, matched))
        people = sorted(numbers)
        place = np.empty(len(people), dtype=np.int64)
        place[[numbers[name] for name in people]] = np.arange(len(people))
        tracklet, person = (np.concatenate(column) for column in zip(*found, strict=True))
        return Said(tracklet, place[person], np.ones(len(tracklet), dtype=np.int64), tuple(people))

    return said


_MEMBERS = (
    "LEFT JOIN identity_member m ON m.crop_id = c.id WHERE c.camera = :unit OR starts_with(c.camera, :unit || '/')"
)
_BY_KEY = (
    "SELECT new.n - 1, coalesce(m.identity_id, 0) FROM unnest(CAST(:key AS bytea[])) WITH ORDINALITY AS new (key, n) "
    f"JOIN crop c ON c.key = new.key {_MEMBERS}"
)
_BY_PLACE = (
    "SELECT new.n - 1, coalesce(m.identity_id, 0) FROM unnest(CAST(:camera AS text[]), "
    "CAST(:captured_at AS timestamptz[]), CAST(:track AS text[])) WITH ORDINALITY "
    "AS new (camera, captured_at, track, n) JOIN crop c ON c.camera = new.camera AND c.captured_at = new.captured_at "
    f"AND c.track IS NOT DISTINCT FROM new.track {_MEMBERS}"
)


def _tracklets(connection: Connection, unit: str, batch: list[Label]) -> Iterator[tuple[Ints, Ints]]:
    """(which label (k,), tracklet id (k,) or 0 for none) of those whose crop is of the unit."""
    kinds = {"label": "int8", "tracklet": "int8"}
    keyed = [i for i, label in enumerate(batch) if label.crop is not None]
    placed = [i for i, label in enumerate(batch) if label.crop is None and is_within(label.camera, unit)]
    if keyed:
        rows = copy_out(connection, _BY_KEY, {"unit": unit, "key": [batch[i].crop for i in keyed]}, kinds)
        yield np.array(keyed)[np.asarray(rows["label"])], np.asarray(rows["tracklet"])
    if placed:
        columns = {name: [getattr(batch[i], name) for i in placed] for name in ("camera", "captured_at", "track")}
        rows = copy_out(connection, _BY_PLACE, {"unit": unit, **columns}, kinds)
        yield np.array(placed)[np.asarray(rows["label"])], np.asarray(rows["tracklet"])


# ---- the file


def _label(row: dict[str, Any]) -> Label | None:
    truth = _text(row, "truth")
    if not truth:
        return None
    if len(truth) > MAX_TRUTH:
        raise ValueError(f"truth: longer than {MAX_TRUTH} characters")
    crop, camera, time = _text(row, "crop"), _text(row, "camera"), _text(row, "time")
    if crop:
        if not re.fullmatch(r"[0-9a-f]{64}", crop):
            raise ValueError(f"crop {crop[:80]!r}: is no key of 64 hex digits")
        return Label(bytes.fromhex(crop), camera, None, None, truth)
    if not camera or not time:
        raise ValueError("says neither which `crop` nor which `camera` and `time`")
    return Label(None, camera, parse_time(time), _text(row, "track") or None, truth)


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{name}: is no text")
    if "\x00" in str(value):
        raise ValueError(f"{name}: holds a NUL character")
    return str(value).strip()


def _json(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}: line {number}: is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number}: is no JSON object")
        yield number, row


def _csv(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(lines, strict=True)
    try:
        names = set(reader.fieldnames or ())
        if "truth" not in names or not ("crop" in names or {"camera", "time"} <= names):
            raise InputError(f"{path}: line 1: needs the columns truth and crop, or truth, camera, time and track")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: is no CSV: {error}") from None


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            number = 0
            while data := file.readline(MAX_LINE_BYTES):
                number += 1
                if len(data) == MAX_LINE_BYTES:
                    raise InputError(f"{path}: line {number}: longer than {MAX_LINE_BYTES} bytes")
                yield data.removeprefix(b"\xef\xbb\xbf").decode() if number == 1 else data.decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: line {number}: is not UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
