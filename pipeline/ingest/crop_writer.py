"""From candidates to crops in the store: read, decode, store the picture, write the rows, batch by batch.

Some hundred crops are one transaction: the crops, their truth, and the watermark of each camera, which says from which
window on the camera has to be resolved again. An ingest that is killed leaves whole transactions, and at most pictures
without a row; run again, it writes the rest. A crop that was withdrawn comes back.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial

from sqlalchemy import Connection, text

from pipeline.city import watermarks
from pipeline.crops.context_frames import ContextFrame, context_store, write_frames
from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.crops.quality import decode, quality
from pipeline.governance.tombstones import erased_crops
from pipeline.ingest import clocks
from pipeline.ingest.batches import (
    Again,
    Source,
    check_open,
    count,
    end_batch,
    future_crops,
    open_batch,
    others,
)
from pipeline.ingest.undo import undo
from pipeline.store import Store
from pipeline.store.locks import share_crops
from schemas.crops import IngestReport, NewCrop
from schemas.errors import InputError, PictureError, PicturesUnavailable, StoreUnavailable
from schemas.keys import crop_key

BATCH = 500
LISTED = 100
#: A camera's clock may run ahead of ours by this much before its times count as in the future.
CLOCK_SLACK = timedelta(seconds=60)

Progress = Callable[[int, int], None]
#: Waits while the database or the object store does not answer; False: no longer.
WaitOut = Callable[[StoreUnavailable | PicturesUnavailable], bool]
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
    since: timedelta | None = None  # of a stream: when it was taken by the stream's steady clock
    truth: str | None = None
    context: bytes | None = None  # the whole frame as JPEG, of a track's first crop where the camera asks for it


def is_future(moment: datetime, now: datetime | None = None) -> bool:
    """Whether a capture time lies in the future. `now` (UTC) is the present; the machine's clock unless given."""
    return moment > (now or clocks.wall()) + CLOCK_SLACK


def take_in(
    store: Store,
    crops: CropStore,
    source: Source,
    candidates: Iterable[Candidate | None],
    *,
    total: int,
    operator: str | None = None,
    again: Again = "refuse",
    before_first: Callable[[Connection], object] = lambda _: None,
    stream: clocks.ArrivalClock | None = None,
    progress: Progress | None = None,
    wait_out: WaitOut = lambda _: False,
    now: datetime | None = None,
) -> IngestReport:
    """Writes all candidates whose picture can be used; read = written + already_there + skipped_count.

    `source.door` enters each crop's key. It names the kind of door and nothing that depends on where files lie or how
    they are split, so that the same pictures from another folder, or in several manifests, are the same crops. A None
    among the candidates ends a transaction early.

    `operator`: who takes them in; the settings' unless given. `again`: what happens if the same content was taken in
    with other options; `replace` undoes that when the first new candidate is there. `before_first` is called in the
    transaction of the first crops. `progress` gets (candidates done, `total`) after each transaction. `wait_out` is
    called where the database or the object store does not answer, and returns whether to write again what could not be
    written; meanwhile no candidate is asked for. `now` as for `is_future`.

    `stream`: the clock of the stream that is being read. When the wall clock jumps, and each day (UTC), another batch
    begins. Crops that were not written yet when it jumps and whose times then lie in the future get their times by the
    clock as it is now.

    Raises InputError for the same content with other options, when not one picture can be used, for a time in the
    future, for a crop with two truths, and when the batch is undone meanwhile. What was written before stays written;
    the message says how many crops.
    """
    contexts = context_store(store.settings)
    crops.sweep()
    contexts.sweep()
    operator = operator or store.settings.operator
    replaced = others(store, source, again)
    so_far = _Taken(source)
    for part in _parts(candidates, stream):
        while replaced:
            reason = f"replaced by another ingest of {source.name}"
            undo(store, crops, replaced.pop().id, operator=operator, reason=reason)
        if stream is not None:
            so_far = _patiently(partial(_begin_another, store, stream, so_far, part, now), wait_out)
        write = partial(_write, store, crops, contexts, so_far, part, operator, before_first, stream, now)
        try:
            so_far = _patiently(write, wait_out)
        except InputError as error:
            raise InputError(f"{error}; {so_far.written or 'no'} crops were written before this") from None
        if progress is not None:
            progress(so_far.read, total)
    if stream is not None and so_far.batch is not None:
        stream.notes += future_crops(store, so_far.batch, (now or clocks.wall()) + CLOCK_SLACK)
    if so_far.read and so_far.skipped_count == so_far.read:
        raise none_usable(so_far.read, so_far.skipped[0])
    return IngestReport(
        batch=so_far.batch,
        read=so_far.read,
        written=so_far.written,
        already_there=so_far.already_there,
        skipped=so_far.skipped,
        skipped_count=so_far.skipped_count,
    )


@dataclass(frozen=True)
class _Taken:
    """What was taken in so far. A part that could not be written leaves it as it was, and may be written again."""

    source: Source
    batch: int | None = None
    read: int = 0
    written: int = 0
    already_there: int = 0
    skipped: tuple[str, ...] = ()
    skipped_count: int = 0
    uncounted: tuple[int, int] = (0, 0)  # read and left out since the batch was written to last
    jumps: int = 0  # of the stream, as of the batch
    day: date | None = None


def _patiently(call: Callable[[], _Taken], wait_out: WaitOut) -> _Taken:
    while True:
        try:
            return call()
        except (StoreUnavailable, PicturesUnavailable) as error:
            if not wait_out(error):
                raise


def _begin_another(
    store: Store, stream: clocks.ArrivalClock, before: _Taken, part: Sequence[Candidate], now: datetime | None
) -> _Taken:
    """Ends the batch where the clock jumped or a day begins, so that what was written before can be undone alone."""
    today, jumps = part[-1].captured_at.date(), _jumps(part, stream)
    if jumps <= before.jumps and before.day is not None and today <= before.day:
        return before
    if before.batch is None:
        return replace(before, jumps=jumps, day=today)
    found = future_crops(store, before.batch, (now or clocks.wall()) + CLOCK_SLACK)
    end_batch(store, before.batch, [*stream.notes, *found])
    stream.notes += found
    return replace(before, jumps=jumps, day=today, batch=None, source=replace(before.source))


def _write(
    store: Store,
    crops: CropStore,
    contexts: CropStore,
    before: _Taken,
    part: Sequence[Candidate],
    operator: str,
    before_first: Callable[[Connection], object],
    stream: clocks.ArrivalClock | None,
    now: datetime | None,
) -> _Taken:
    """Writes a part in one transaction. Raises as take_in, after which nothing of it is written."""
    skipped = list(before.skipped)
    skipped_count, batch = before.skipped_count, before.batch

    def skip(why: str) -> None:
        nonlocal skipped_count
        skipped_count += 1
        if len(skipped) < LISTED:
            skipped.append(why)

    with store.begin() as connection:
        share_crops(connection)
        found: list[tuple[Candidate, NewCrop, bytes]] = []
        for candidate in part:
            if is_future(candidate.captured_at, now):
                if stream is None or candidate.since is None:
                    moment = candidate.captured_at.isoformat()
                    raise InputError(f"{candidate.name}: time {moment} lies in the future")
                candidate = replace(candidate, captured_at=stream.at(candidate.since))
            try:
                found.append((candidate, *_described(before.source.door, candidate)))
            except PictureError as error:
                skip(f"{candidate.name}: {error}")
        erased = erased_crops(connection, (crop.key for _, crop, _ in found))
        for candidate, crop, _ in found:
            if crop.key in erased:
                skip(f"{candidate.name}: it was erased, and is not taken in again")
        found = [one for one in found if one[1].key not in erased]
        for candidate, _, data in found:
            crops.put(place_of_crop(candidate.camera, candidate.captured_at), data)
        new = [crop for _, crop, _ in found]
        left_out = skipped_count - before.skipped_count
        uncounted = before.uncounted[0] + len(part), before.uncounted[1] + left_out
        if new and not before.written + before.already_there:
            before_first(connection)
        if batch is None and new:
            batch = open_batch(connection, before.source, operator)
        counts = write_crops(connection, new, store.settings.association.window_s, batch)
        if batch is not None:
            write_frames(connection, _keep_frames(contexts, [one for one, _, _ in found]), batch)
            count(connection, batch, *uncounted, written=counts[0])
            uncounted = 0, 0
    return replace(
        before,
        batch=batch,
        read=before.read + len(part),
        written=before.written + counts[0],
        already_there=before.already_there + counts[1],
        skipped=tuple(skipped),
        skipped_count=skipped_count,
        uncounted=uncounted,
    )


def none_usable(count: int, first: str) -> InputError:
    return InputError(f"none of the {count} pictures can be used; the first: {first}")


def _jumps(part: Sequence[Candidate], stream: clocks.ArrivalClock | None) -> int:
    """How often the stream's wall clock had jumped when the last of these was taken."""
    return 0 if stream is None else max((stream.jumps(c.since) for c in part if c.since is not None), default=0)


def _parts(candidates: Iterable[Candidate | None], stream: clocks.ArrivalClock | None) -> Iterator[list[Candidate]]:
    """What is written in one transaction each; a part holds nothing from before and after a jump of the clock."""
    part: list[Candidate] = []
    for candidate in candidates:
        if candidate is not None and part and _jumps([candidate], stream) > _jumps(part, stream):
            yield part
            part = []
        if candidate is not None:
            part.append(candidate)
        if part and (candidate is None or len(part) == BATCH):
            yield part
            part = []
    if part:
        yield part


def _described(source: str, candidate: Candidate) -> tuple[NewCrop, bytes]:
    """Reads and checks the candidate's picture: the crop, and its encoded picture. Raises PictureError."""
    data = candidate.read()
    picture = decode(data)
    sha256 = hashlib.sha256(data).digest()
    crop = NewCrop(
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
    return crop, data


def _keep_frames(contexts: CropStore, part: Sequence[Candidate]) -> Iterator[ContextFrame]:
    """Puts the context frames among the candidates into their store."""
    for candidate in part:
        if candidate.context is not None and candidate.track is not None:
            height, width = decode(candidate.context).shape[:2]
            picture = contexts.put(place_of_crop(candidate.camera, candidate.captured_at), candidate.context)
            yield ContextFrame(candidate.camera, candidate.track, candidate.captured_at, picture, width, height)


_NEW_CROPS = """
    unnest(CAST(:key AS bytea[]), CAST(:camera AS text[]), CAST(:captured_at AS timestamptz[]),
           CAST(:timed AS boolean[]), CAST(:source AS text[]), CAST(:track AS text[]), CAST(:x AS float8[]),
           CAST(:y AS float8[]), CAST(:w AS float8[]), CAST(:h AS float8[]), CAST(:picture AS bytea[]),
           CAST(:width_px AS int4[]), CAST(:height_px AS int4[]), CAST(:quality AS float4[]), CAST(:truth AS text[]))
    AS new (key, camera, captured_at, timed, source, track, x, y, w, h, picture, width_px, height_px, quality, truth)"""
_BOX = "CASE WHEN new.x IS NOT NULL THEN ARRAY[new.x, new.y, new.w, new.h] END"
_INSERT_CROPS = text(f"""
    INSERT INTO crop (key, camera, captured_at, timed, source, track, box, picture, width_px, height_px, quality,
                      batch_id)
    SELECT key, camera, captured_at, timed, source, track, {_BOX}, picture, width_px, height_px, quality, :batch
    FROM {_NEW_CROPS} ON CONFLICT (key) DO NOTHING RETURNING key, camera, captured_at""")
_BRING_BACK = text(f"""
    UPDATE crop SET batch_id = :batch, track = new.track, box = {_BOX}, withdrawn_at = NULL, picture_gone_at = NULL
    FROM {_NEW_CROPS} WHERE crop.key = new.key AND crop.withdrawn_at IS NOT NULL
    RETURNING crop.key, crop.camera, crop.captured_at""")
_CLAIM = text(f"""
    INSERT INTO crop_claim (batch_id, crop_id, track, box, truth)
    SELECT :batch, crop.id, new.track, {_BOX}, new.truth FROM {_NEW_CROPS}
    JOIN crop ON crop.key = new.key AND crop.batch_id <> :batch ON CONFLICT DO NOTHING""")
_INSERT_TRUTH = text("""
    INSERT INTO crop_truth (crop_id, truth, batch_id)
    SELECT crop.id, new.truth, :batch FROM unnest(CAST(:key AS bytea[]), CAST(:truth AS text[])) AS new (key, truth)
    JOIN crop USING (key) ON CONFLICT DO NOTHING""")
_READ_TRUTH = text("SELECT key, truth FROM crop JOIN crop_truth ON crop_id = id WHERE key = ANY(CAST(:key AS bytea[]))")


def write_crops(
    connection: Connection, crops: Sequence[NewCrop], window_s: int, batch: int | None = None
) -> tuple[int, int]:
    """Writes the crops of `batch` that are not there yet; returns how many were (written, already there).

    A crop that occurs twice among `crops` is written once, as it occurs first, and counts as already there after that.
    One that was withdrawn comes back and counts as written. A truth that comes later than its crop is added. Raises
    InputError for a crop with two truths, and for a batch that is undone; the transaction must then be rolled back.
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
    if batch is not None:
        check_open(connection, batch)
    columns = _columns(new, batch)
    columns["truth"] = [labeled[crop.key].truth if crop.key in labeled else None for crop in new]
    inserted = [*connection.execute(_INSERT_CROPS, columns).all()]
    if len(inserted) < len(new):
        inserted += connection.execute(_BRING_BACK, columns).all()
    if batch is not None and len(inserted) < len(new):
        connection.execute(_CLAIM, columns)
    if labeled:
        _write_truth(connection, labeled, batch)
    watermarks.mark_crops(connection, ((row.camera, row.captured_at) for row in inserted), window_s)
    return len(inserted), len(crops) - len(inserted)


def _columns(new: Sequence[NewCrop], batch: int | None) -> dict[str, object]:
    """The parameters of the statements above."""
    boxes = [crop.box or (None, None, None, None) for crop in new]
    names = ["key", "camera", "captured_at", "timed", "source", "track", "picture", "width_px", "height_px", "quality"]
    columns: dict[str, object] = {name: [getattr(crop, name) for crop in new] for name in names}
    return columns | {name: [box[i] for box in boxes] for i, name in enumerate("xywh")} | {"batch": batch}


def _write_truth(connection: Connection, labeled: Mapping[bytes, NewCrop], batch: int | None) -> None:
    """Writes the truth of stored crops by key. Raises InputError for a crop that has another truth already."""
    keys = sorted(labeled)
    truths = [labeled[key].truth for key in keys]
    connection.execute(_INSERT_TRUTH, {"key": keys, "truth": truths, "batch": batch})
    for key, stored in connection.execute(_READ_TRUTH, {"key": keys}):
        if stored != labeled[bytes(key)].truth:
            raise _two_truths(labeled[bytes(key)], stored, "in the store")


def _two_truths(crop: NewCrop, other: str | None, where: str) -> InputError:
    return InputError(f"{crop.name}: truth {crop.truth!r} contradicts {other!r}, the same crop's truth {where}")
