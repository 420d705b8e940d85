"""A label file: the operator's own labels, which say which person each crop shows.

CSV with a header line, or JSON Lines. A label has `truth`, and names its crop either by `crop`, the crop's key in hex,
or by `camera`, `time` (with a zone) and `track` (left out for a crop without one). Other columns are ignored, so that a
manifest, or an export of assignments, is a label file too. A label with empty `truth` is skipped.
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

from pipeline.accuracy.labeled import TrackletLabels
from pipeline.store.copy import copy_out
from schemas.arrays import Ints
from schemas.errors import InputError
from schemas.levels import is_within
from schemas.times import parse_time

MAX_LINE_BYTES = 65_536
MAX_TRUTH = 200
#: Labels sent to the database at a time.
_BATCH = 20_000


@dataclass(frozen=True)
class Label:
    line: int  # of the file
    crop: bytes | None  # the key; None: camera, captured_at and track name the crop
    camera: str
    captured_at: datetime | None
    track: str | None
    truth: str


@dataclass(frozen=True)
class Matched:
    """How many of the file's labels name a crop of the unit."""

    labels: int
    matched: int


def read_labels(path: Path) -> Iterator[Label]:
    """The file's labels, one by one. Raises InputError with the line at fault."""
    lines = _lines(path)
    blank, first = 0, ""
    for line in lines:
        if line.strip():
            first = line
            break
        blank += 1
    rows = (_json if first.lstrip().startswith("{") else _csv)(path, blank, chain([first], lines))
    for number, row in rows:
        try:
            label = _label(number, row)
        except (ValueError, InputError) as error:
            raise InputError(f"{path}: line {number}: {error}") from None
        if label is not None:
            yield label


def label_reader(
    path: Path, unit: str, on_matched: Callable[[Matched], None] = lambda _: None
) -> Callable[[Connection], TrackletLabels]:
    """The `read_labels` argument of `labeled_tracklets`: reads the file's labels of the unit's crops.

    on_matched: called with the number of labels that name a crop of the unit. The reader raises InputError if none
    does, if two labels give one crop different truths, and where `read_labels` does.
    """

    def read(connection: Connection) -> TrackletLabels:
        numbers: dict[str, int] = {}  # of people, in order of appearance
        labels = matched = 0
        parts: list[_MatchedLabels] = []
        remaining = read_labels(path)
        while batch := list(islice(remaining, _BATCH)):
            labels += len(batch)
            line = np.array([label.line for label in batch], dtype=np.int64)
            person = np.array([numbers.setdefault(label.truth, len(numbers)) for label in batch], dtype=np.int64)
            for row, crop, tracklet in _match(connection, unit, batch):
                matched += len(np.unique(row))
                parts.append((crop, tracklet, person[row], line[row]))
        if not matched:
            raise InputError(
                f"{path}: none of its {labels} labels names a crop of {unit}; a label names a crop by its key `crop`, "
                "or by `camera`, `time` and `track`, as they were ingested"
            )
        crop, tracklet, person, line = (np.concatenate(column) for column in zip(*parts, strict=True))
        names = list(numbers)
        _check_contradictions(path, names, crop, person, line)
        once = np.unique(np.stack([crop, tracklet]), axis=1, return_index=True)[1]  # a label may be repeated
        on_matched(Matched(labels, matched))
        people = sorted(names)
        index = np.empty(len(people), dtype=np.int64)
        index[[numbers[name] for name in people]] = np.arange(len(people))
        return TrackletLabels(tracklet[once], index[person[once]], np.ones(len(once), dtype=np.int64), tuple(people))

    return read


#: (k,) each: crop id, tracklet id or 0, number of the person, line of the label.
_MatchedLabels = tuple[Ints, Ints, Ints, Ints]


def _check_contradictions(path: Path, names: list[str], crop: Ints, person: Ints, line: Ints) -> None:
    """Raises InputError with the first line that gives a crop another truth than an earlier line."""
    order = np.lexsort((line, crop))
    crop, person, line = crop[order], person[order], line[order]
    wrong = np.flatnonzero((crop[1:] == crop[:-1]) & (person[1:] != person[:-1])) + 1
    if len(wrong):
        at = int(wrong[np.argmin(line[wrong])])
        one, other = (names[int(person[i])][:80] for i in (at, at - 1))
        raise InputError(
            f"{path}: line {line[at]}: {one!r} contradicts line {line[at - 1]}, which says {other!r} of the same crop; "
            "give each crop one truth, and name it by its key `crop` where several share camera, time and track"
        )


_MEMBERS = (
    "LEFT JOIN identity_member m ON m.crop_id = c.id WHERE c.withdrawn_at IS NULL "
    "AND (c.camera = :unit OR starts_with(c.camera, :unit || '/'))"
)
_BY_KEY = (
    "SELECT new.n - 1, c.id, coalesce(m.identity_id, 0) "
    "FROM unnest(CAST(:key AS bytea[])) WITH ORDINALITY AS new (key, n) "
    f"JOIN crop c ON c.key = new.key {_MEMBERS}"
)
_BY_PLACE = (
    "SELECT new.n - 1, c.id, coalesce(m.identity_id, 0) FROM unnest(CAST(:camera AS text[]), "
    "CAST(:captured_at AS timestamptz[]), CAST(:track AS text[])) WITH ORDINALITY "
    "AS new (camera, captured_at, track, n) JOIN crop c ON c.camera = new.camera AND c.captured_at = new.captured_at "
    f"AND c.track IS NOT DISTINCT FROM new.track {_MEMBERS}"
)


def _match(connection: Connection, unit: str, batch: list[Label]) -> Iterator[tuple[Ints, Ints, Ints]]:
    """(row of the batch (k,), crop id (k,), tracklet id (k,) or 0 for none) of the labels that name a unit's crop."""
    kinds = {"label": "int8", "crop": "int8", "tracklet": "int8"}
    by_key = [i for i, label in enumerate(batch) if label.crop is not None]
    by_place = [i for i, label in enumerate(batch) if label.crop is None and is_within(label.camera, unit)]
    if by_key:
        rows = copy_out(connection, _BY_KEY, {"unit": unit, "key": [batch[i].crop for i in by_key]}, kinds)
        yield np.array(by_key)[np.asarray(rows["label"])], np.asarray(rows["crop"]), np.asarray(rows["tracklet"])
    if by_place:
        columns = {name: [getattr(batch[i], name) for i in by_place] for name in ("camera", "captured_at", "track")}
        rows = copy_out(connection, _BY_PLACE, {"unit": unit, **columns}, kinds)
        yield np.array(by_place)[np.asarray(rows["label"])], np.asarray(rows["crop"]), np.asarray(rows["tracklet"])


# ---- the file


def _label(line: int, row: dict[str, Any]) -> Label | None:
    truth = _text(row, "truth")
    if not truth:
        return None
    if len(truth) > MAX_TRUTH:
        raise ValueError(f"truth: longer than {MAX_TRUTH} characters")
    crop, camera, time = _text(row, "crop"), _text(row, "camera"), _text(row, "time")
    if crop:
        if not re.fullmatch(r"[0-9a-f]{64}", crop):
            raise ValueError(f"crop {crop[:80]!r}: not a key of 64 hex digits")
        return Label(line, bytes.fromhex(crop), camera, None, None, truth)
    if not camera or not time:
        raise ValueError("names no crop: give `crop`, or `camera` and `time`")
    return Label(line, None, camera, parse_time(time), _text(row, "track") or None, truth)


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{name}: not a text")
    if "\x00" in str(value):
        raise ValueError(f"{name}: contains a NUL character")
    return str(value).strip()


def _json(path: Path, blank: int, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and content of each row, after `blank` lines that were skipped."""
    for number, line in enumerate(lines, blank + 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # RecursionError: nested too deep
            raise InputError(f"{path}: line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number}: not a JSON object")
        yield number, row


def _csv(path: Path, blank: int, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `_json`."""
    reader = csv.DictReader(lines, strict=True)
    try:
        names = set(reader.fieldnames or ())
        if "truth" not in names or not ("crop" in names or {"camera", "time"} <= names):
            raise InputError(
                f"{path}: line {blank + 1}: needs the columns truth and crop, or truth, camera, time and track"
            )
        for row in reader:
            yield blank + reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}: line {blank + reader.reader.line_num}: not CSV: {error}") from None


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
        raise InputError(f"{path}: line {number}: not UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
