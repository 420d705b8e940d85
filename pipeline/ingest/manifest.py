"""The manifest door: crops that somebody else has cut out, one a line of JSON Lines or a row of Parquet.

The whole manifest is checked before anything is written: a line that does not parse, a unit that the city does not
have, a time without a zone or in the future, a path that leads outside. Then the pictures are read; one that cannot be
used is skipped and reported. Both passes stream, so memory does not grow with the manifest.

A track's crops may stand in any order. Where one's times go back from line to line, a camera's clock may have been set
back; that is kept as it stands and reported in a note, once a camera.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.crop_writer import Candidate, Progress, take_in
from pipeline.ingest.picture_roots import Places
from pipeline.store import Store
from schemas.city_file import nearest
from schemas.crops import IngestReport, ManifestLine
from schemas.errors import InputError
from schemas.times import parse_time

#: Enters the crops' keys; the same for all manifests, so that a crop's key does not depend on how they are split.
SOURCE = "manifest"
#: A camera's clock may run ahead of ours by this much before its times count as in the future.
CLOCK_SLACK = timedelta(seconds=60)
MAX_LINE_BYTES = 65_536
LISTED = 10

#: A line's number, from 1, and its value or what is wrong with it.
Numbered = tuple[int, ManifestLine | str]


def ingest_manifest(
    store: Store, crops: CropStore, path: Path, progress: Progress | None = None, *, now: datetime | None = None
) -> IngestReport:
    """Writes the crops that a manifest lists. Run again, it writes nothing.

    `now` (UTC) is what counts as the present; the machine's clock unless given. Raises InputError listing the first ten
    faults by line, with nothing written; CityError while no city is loaded.
    """
    cameras = {unit.code for unit in read_city(store).cameras()}
    places = Places(path.parent, store.settings.crop_roots)
    latest = (now or datetime.now(UTC)) + CLOCK_SLACK
    faults: list[str] = []
    fault_count = total = 0
    clocks = _Clocks()
    for number, line in _lines(path):
        total += 1
        fault = line if isinstance(line, str) else _fault(line, cameras, places, latest)
        if fault:
            fault_count += 1
            if len(faults) < LISTED:
                faults.append(f"line {number}: {fault}")
        elif isinstance(line, ManifestLine):
            clocks.see(number, line)
    if faults:
        more = f"; and {fault_count - len(faults)} more" if fault_count > len(faults) else ""
        raise InputError(f"{path}: nothing was written. {'; '.join(faults)}{more}")
    if not total:
        raise InputError(f"{path}: holds no line")
    report = take_in(store, crops, SOURCE, _candidates(path, places), total=total, progress=progress)
    return report.model_copy(update={"notes": tuple(clocks.notes.values())})


def _fault(line: ManifestLine, cameras: set[str], places: Places, latest: datetime) -> str:
    """What is wrong with a line that parsed; empty when nothing is."""
    if line.camera not in cameras:
        return nearest(line.camera, cameras).replace("no unit", "no camera", 1)
    if parse_time(line.time) > latest:
        return f"time {line.time} lies in the future"
    if line.box is not None and min(line.box[2:]) <= 0:
        return "the box has no area; it is written x, y, width, height"
    try:
        places.find(line.path)
    except InputError as error:
        return str(error)
    return ""


def _candidates(path: Path, places: Places) -> Iterator[Candidate]:
    for number, line in _lines(path):
        if isinstance(line, str):
            raise InputError(f"{path}: changed while it was read, at line {number}; the batches before it are written")
        place = places.find(line.path)
        yield Candidate(
            name=f"line {number}, {line.path[:100]!r}",
            read=place.read,
            camera=line.camera,
            captured_at=parse_time(line.time),
            track=line.track,
            box=line.box,
            truth=line.truth,
        )


class _Clocks:
    """Notes the first time that each camera's clock seems set back: within one track, from one line to the next."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self._last: dict[str, tuple[str, datetime]] = {}

    def see(self, number: int, line: ManifestLine) -> None:
        if line.track is None:
            return
        moment = parse_time(line.time)
        track, before = self._last.get(line.camera, (None, moment))
        if track == line.track and moment < before:
            self.notes.setdefault(
                line.camera,
                f"camera {line.camera}: times of track {line.track!r} go back at line {number}, from "
                f"{before.isoformat()} to {moment.isoformat()}; was its clock set back? Kept as written",
            )
        self._last[line.camera] = (line.track, moment)


def _lines(path: Path) -> Iterator[Numbered]:
    """The manifest's lines, each parsed or with its fault in words. Raises InputError when it cannot be read at all."""
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        yield from _parquet_rows(path) if parquet else _json_lines(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _json_lines(path: Path) -> Iterator[Numbered]:
    with path.open("rb") as file:
        number = 0
        while data := file.readline(MAX_LINE_BYTES):
            number += 1
            if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
                yield number, f"longer than {MAX_LINE_BYTES} bytes; is this a manifest of JSON Lines?"
                return
            data = data.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else data.strip()
            if data:
                yield number, _parse(data)


def _parquet_rows(path: Path) -> Iterator[Numbered]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in _to_microseconds(batch).to_pylist():
                    number += 1
                    yield number, _parse({name: value for name, value in row.items() if value is not None})
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{path}: is no usable Parquet file: {' '.join(str(error).split())[:200]}") from None


def _to_microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its column `time`, where that is a timestamp, as ISO 8601 text in the zone that it has."""
    index = batch.schema.get_field_index("time")
    if index < 0 or not pa.types.is_timestamp(batch.schema.field(index).type):
        return batch
    zone = batch.schema.field(index).type.tz
    moments = batch.column(index).cast(pa.timestamp("us", zone), safe=False).to_pylist()
    texts = [None if moment is None else moment.isoformat() for moment in moments]
    return batch.set_column(index, "time", pa.array(texts, pa.string()))


def _parse(line: bytes | dict[str, Any]) -> ManifestLine | str:
    try:
        return ManifestLine.model_validate_json(line) if isinstance(line, bytes) else ManifestLine.model_validate(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return (f"{where}: " if where else "") + first["msg"].removeprefix("Value error, ")
    except InputError as error:
        return f"time: {error}"
