"""Ingest of a manifest: crops that another program has cut out, one a line of JSON Lines or a row of Parquet.

The whole manifest is checked before anything is written: each line must parse, its camera must be in the city, its time
must have a zone and not lie in the future, its path must not leave the allowed folders. Then the pictures are
read; one that cannot be used is skipped and reported. Both passes stream, so memory does not grow with the manifest.

The crops of a track may come in any order. If the times of a track go back from one line to the next, the camera's
clock may have been set back; the times are stored as written, and a note says so once per camera.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.batches import Source, ended, file_digest, path_text
from pipeline.ingest.crop_writer import Candidate, Progress, is_future, take_in
from pipeline.ingest.parquet_rows import parquet_rows
from pipeline.ingest.picture_roots import Places
from pipeline.store import Store
from schemas.city_file import nearest
from schemas.crops import IngestReport, ManifestLine
from schemas.errors import InputError
from schemas.times import parse_time
from schemas.validation import fault_line

#: Part of each crop's key; the same for all manifests, so that the key does not depend on how they are split.
SOURCE = "manifest"
MAX_LINE_BYTES = 65_536
LISTED = 10
#: A line's number, from 1, and and the parsed line or its fault.
Numbered = tuple[int, ManifestLine | str]


def ingest_manifest(
    store: Store,
    crops: CropStore,
    path: Path,
    progress: Progress | None = None,
    *,
    operator: str | None = None,
    now: datetime | None = None,
    synthetic: bool = False,
) -> IngestReport:
    """Stores the crops that a manifest lists. The same manifest again stores nothing.

    `operator`: as for `take_in`. `now`: the present, UTC; by default the machine's clock.
    `synthetic`: all its people are rendered.

    Raises InputError with the first ten faults by line, and then stores nothing; CityError if no city is loaded.
    """
    cameras = {unit.code for unit in read_city(store).cameras()}
    places = Places(path.parent, store.settings.crop_roots)
    faults: list[str] = []
    fault_count = total = 0
    clocks = _Clocks()
    for number, line in manifest_lines(path):
        total += 1
        fault = line if isinstance(line, str) else _fault(line, cameras, places, now)
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
    source = Source(SOURCE, path_text(path), file_digest(path), synthetic=synthetic)
    report = take_in(
        store, crops, source, _candidates(path, places), total=total, operator=operator, progress=progress, now=now
    )
    return ended(store, report.model_copy(update={"notes": tuple(clocks.notes.values())}))


def _fault(line: ManifestLine, cameras: set[str], places: Places, now: datetime | None) -> str:
    """The fault of a line that parsed; empty if it has none."""
    if line.camera not in cameras:
        return nearest(line.camera, cameras).replace("no unit", "no camera", 1)
    if is_future(parse_time(line.time), now):
        return f"time {line.time} lies in the future"
    if line.box is not None and min(line.box[2:]) <= 0:
        return "the box has no area; it is written x, y, width, height"
    try:
        places.find(line.path)
    except InputError as error:
        return str(error)
    return ""


def _candidates(path: Path, places: Places) -> Iterator[Candidate]:
    for number, line in manifest_lines(path):
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
    """Notes, once per camera, where the times of a track go back from one line to the next."""

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


def manifest_lines(path: Path) -> Iterator[Numbered]:
    """The lines of the manifest, each parsed or as a description of its fault. Raises InputError if unreadable."""
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        if not parquet:
            yield from _json_lines(path)
            return
        for number, row in enumerate(parquet_rows(path, ManifestLine.model_fields), 1):
            yield number, _parse(row)
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


def _parse(line: bytes | dict[str, Any]) -> ManifestLine | str:
    try:
        return ManifestLine.model_validate_json(line) if isinstance(line, bytes) else ManifestLine.model_validate(line)
    except ValidationError as error:
        return fault_line(error, ManifestLine)
