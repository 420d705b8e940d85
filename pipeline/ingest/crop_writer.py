"""From candidates to crops in the store: read, decode, store the picture, write the rows, batch by batch.

A batch is one transaction: its crops, their truth, and the watermark of each camera, which says from which window on
the camera has to be resolved again. An ingest that is killed leaves whole batches, and at most pictures without a row;
run again, it writes the rest.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from pipeline.city import watermarks
from pipeline.crops.crop_store import CropStore
from pipeline.crops.quality import decode, quality
from pipeline.store import Store
from schemas.crops import IngestReport, NewCrop
from schemas.errors import InputError, PictureError
from schemas.keys import crop_key
from schemas.times import window_start

BATCH = 500
LISTED = 100
#: A camera's clock may run ahead of ours by this much before its times count as in the future.
CLOCK_SLACK = timedelta(seconds=60)

Progress = Callable[[int, int], None]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Candidate:
    """A picture that may become a crop. `read` gives its encoded bytes or raises PictureError."""

    name: str  # for messages: what a person finds it by
    read: Callable[[], bytes]
    camera: str
    captured_at: datetime
    timed: bool = True
    track: str | None = None
    box: Box | None = None  # x, y, width, height in the frame, pixels
    truth: str | None = None


def is_future(moment: datetime, now: datetime | None = None) -> bool:
    """Whether a capture time lies in the future. `now` (UTC) is the present; the machine's clock unless given."""
    return moment > (now or datetime.now(UTC)) + CLOCK_SLACK


def take_in(
    store: Store,
    crops: CropStore,
    source: str,
    candidates: Iterable[Candidate | None],
    *,
    total: int,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> IngestReport:
    """Writes all candidates whose picture can be used; read = written + already_there + skipped_count.

    `source` enters each crop's key. It names the kind of door and nothing that depends on where files lie or how they
    are split, so that the same pictures from another folder, or in several manifests, are the same crops. A None among
    the candidates ends a batch early. `progress` gets (candidates done, `total`) after each batch. `now` as for
    `is_future`.

    Raises InputError when not one picture can be used, for a time in the future, and for a crop with two truths. The
    batches before that one stay written; the message says how many crops.
    """
    read = written = already_there = skipped_count = 0
    skipped: list[str] = []
    for batch in _batches(candidates):
        new: list[NewCrop] = []
        try:
            for candidate in batch:
                read += 1
                if is_future(candidate.captured_at, now):
                    raise InputError(f"{candidate.name}: time {candidate.captured_at.isoformat()} lies in the future")
                try:
                    new.append(_keep(crops, source, candidate))
                except PictureError as error:
                    skipped_count += 1
                    if len(skipped) < LISTED:
                        skipped.append(f"{candidate.name}: {error}")
            counts = write_crops(store, new)
        except InputError as error:
            raise InputError(f"{error}; {written or 'no'} crops were written before this") from None
        written, already_there = written + counts[0], already_there + counts[1]
        if progress is not None:
            progress(read, total)
    if read and skipped_count == read:
        raise none_usable(read, skipped[0])
    return IngestReport(
        read=read, written=written, already_there=already_there, skipped=tuple(skipped), skipped_count=skipped_count
    )


def none_usable(count: int, first: str) -> InputError:
    return InputError(f"none of the {count} pictures can be used; the first: {first}")


def _batches(candidates: Iterable[Candidate | None]) -> Iterator[list[Candidate]]:
    batch: list[Candidate] = []
    for candidate in candidates:
        if candidate is not None:
            batch.append(candidate)
        if batch and (candidate is None or len(batch) == BATCH):
            yield batch
            batch = []
    if batch:
        yield batch


def _keep(crops: CropStore, source: str, candidate: Candidate) -> NewCrop:
    """Checks the candidate's picture and puts it into the crop store. Raises PictureError."""
    data = candidate.read()
    picture = decode(data)
    sha256 = crops.put(data)
    return NewCrop(
        name=candidate.name,
        key=crop_key(candidate.camera, candidate.captured_at, source, sha256),
        camera=candidate.camera,
        captured_at=candidate.captured_at,
        timed=candidate.timed,
        source=source,
        track=candidate.track,
        box=candidate.box,
        picture=sha256,
        width_px=picture.shape[1],
        height_px=picture.shape[0],
        quality=quality(picture),
        truth=candidate.truth,
    )


_INSERT_CROPS = text("""
    INSERT INTO crop (key, camera, captured_at, timed, source, track, box, picture, width_px, height_px, quality)
    SELECT key, camera, captured_at, timed, source, track, CASE WHEN x IS NOT NULL THEN ARRAY[x, y, w, h] END,
           picture, width_px, height_px, quality
    FROM unnest(CAST(:key AS bytea[]), CAST(:camera AS text[]), CAST(:captured_at AS timestamptz[]),
                CAST(:timed AS boolean[]), CAST(:source AS text[]), CAST(:track AS text[]), CAST(:x AS float8[]),
                CAST(:y AS float8[]), CAST(:w AS float8[]), CAST(:h AS float8[]), CAST(:picture AS bytea[]),
                CAST(:width_px AS int4[]), CAST(:height_px AS int4[]), CAST(:quality AS float4[]))
         AS new (key, camera, captured_at, timed, source, track, x, y, w, h, picture, width_px, height_px, quality)
    ON CONFLICT (key) DO NOTHING RETURNING camera, captured_at""")
_INSERT_TRUTH = text("""
    INSERT INTO crop_truth (crop_id, truth)
    SELECT crop.id, new.truth FROM unnest(CAST(:key AS bytea[]), CAST(:truth AS text[])) AS new (key, truth)
    JOIN crop USING (key) ON CONFLICT DO NOTHING""")
_READ_TRUTH = text("SELECT key, truth FROM crop JOIN crop_truth ON crop_id = id WHERE key = ANY(CAST(:key AS bytea[]))")


def write_crops(store: Store, crops: Sequence[NewCrop]) -> tuple[int, int]:
    """Writes the crops that are not there yet, in one transaction; returns how many were (written, already there).

    A crop that occurs twice among `crops` is written once, as it occurs first, and counts as already there after that.
    A truth that comes later than its crop is added. Raises InputError for a crop with two truths, with nothing written.
    """
    # Sorted by key, so that two ingests of the same crops wait for each other and do not deadlock.
    once: dict[bytes, NewCrop] = {}
    labeled: dict[bytes, NewCrop] = {}
    for crop in crops:
        once.setdefault(crop.key, crop)
        if crop.truth is not None:
            first = labeled.setdefault(crop.key, crop)
            if first.truth != crop.truth:
                raise _two_truths(crop, first.truth, f"in {first.name}")
    new = [once[key] for key in sorted(once)]
    if not new:
        return 0, 0
    boxes = [crop.box or (None, None, None, None) for crop in new]
    columns: dict[str, list[object]] = {
        name: [getattr(crop, name) for crop in new]
        for name in ("key", "camera", "captured_at", "timed", "source", "track", "picture", "width_px", "height_px")
    }
    columns["quality"] = [crop.quality for crop in new]
    columns |= {name: [box[i] for box in boxes] for i, name in enumerate("xywh")}
    with store.begin() as connection:
        inserted = connection.execute(_INSERT_CROPS, columns).all()
        if labeled:
            _write_truth(connection, labeled)
        window_s = store.settings.association.window_s
        watermarks.mark_all(
            connection, {camera: window_start(first, window_s) for camera, first in _earliest(inserted)}
        )
    return len(inserted), len(crops) - len(inserted)


def _write_truth(connection: Connection, labeled: Mapping[bytes, NewCrop]) -> None:
    """Writes the truth of stored crops by key. Raises InputError for a crop that has another truth already."""
    keys = sorted(labeled)
    connection.execute(_INSERT_TRUTH, {"key": keys, "truth": [labeled[key].truth for key in keys]})
    for key, stored in connection.execute(_READ_TRUTH, {"key": keys}):
        if stored != labeled[bytes(key)].truth:
            raise _two_truths(labeled[bytes(key)], stored, "in the store")


def _two_truths(crop: NewCrop, other: str | None, where: str) -> InputError:
    return InputError(f"{crop.name}: truth {crop.truth!r} contradicts {other!r}, the same crop's truth {where}")


def _earliest(rows: Iterable[Sequence[object]]) -> Iterator[tuple[str, datetime]]:
    """The cameras of the rows (camera, captured_at), each with its earliest time."""
    first: dict[str, datetime] = {}
    for camera, captured_at in rows:
        assert isinstance(camera, str) and isinstance(captured_at, datetime)
        first[camera] = min(captured_at, first.get(camera, captured_at))
    yield from first.items()
