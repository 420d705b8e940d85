"""Recorded files of a camera: which are finished, which are taken in, and taking in one.

A file is finished when neither its size nor its time of change has moved for SETTLED_S; a file that is written again is
another one. What is done stands in `camera_file`: a file is taken in once, whatever happens between. One that was
interrupted is taken in again from its beginning, which writes nothing twice.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from pipeline.cameras import seams
from pipeline.cameras.rows import read_feeds
from pipeline.cameras.start_times import Start, start_of, time_named
from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.batches import Source, path_text, same_content
from pipeline.ingest.crop_writer import Progress, WaitOut
from pipeline.ingest.look_state import Seam
from pipeline.ingest.looks import Seen, View, look_options
from pipeline.ingest.undo import remove_pictures, undo
from pipeline.ingest.video import ingest_frames, source_of
from pipeline.ingest.video_file import VideoFile
from pipeline.store import Store
from reid_core.detection import Detector
from schemas.errors import HomeError, InputError
from schemas.feeds import Feed

SETTLED_S = 5.0
#: A file that ended the process so often is refused.
MOST_ATTEMPTS = 3
SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("263", "264", "265", "3gp", "asf", "avi", "dav", "flv", "h263", "h264", "h265", "hevc", "m1v", "m2ts"),
        *("m2v", "m4v", "mjpeg", "mjpg", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ps", "ts", "webm", "wmv"),
    )
)


Key = tuple[str, int, int]


@dataclass(frozen=True)
class Recording:
    """A file as it is now. `path` as the store has it, see path_text."""

    file: Path
    path: str
    bytes: int
    modified_ns: int

    @property
    def key(self) -> Key:
        return self.path, self.bytes, self.modified_ns


@dataclass(frozen=True)
class Outcome:
    """What became of a file: a line for the log, and why it is refused, None if it is not.

    `again`: files that are to be taken in again, because this one, which they follow, came later.
    """

    line: str
    refused: str | None = None
    again: tuple[Key, ...] = ()


class Watch:
    """The files of a feed, a file or a folder with all folders below it."""

    def __init__(self, address: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._address, self._clock = address, clock
        self._since: dict[Recording, float] = {}  # when it was first seen as it is now

    def finished(self) -> list[Recording]:
        """The finished files, the oldest first by their names. Raises InputError if the file or folder is not there."""
        now = self._clock()
        found = list(recordings_at(self._address))
        self._since = {recording: self._since.get(recording, now) for recording in found}
        return sorted(
            (recording for recording, since in self._since.items() if now - since >= SETTLED_S), key=_when_and_path
        )


def _when_and_path(recording: Recording) -> tuple[datetime, str]:
    """By when its name says that it begins, or else by its last change."""
    named = time_named(recording.file, ZoneInfo("UTC"))  # of any zone: the order is the same, but for an hour a year
    return named or datetime.fromtimestamp(recording.modified_ns / 1e9, UTC), recording.path


def recordings_at(address: Path) -> Iterator[Recording]:
    """The file, or the videos in the folder and all folders below it. Raises InputError if it is not there."""
    if address.is_file():
        yield from _recording(address)
        return
    if not address.is_dir():
        raise InputError(f"{address}: no such file or folder")

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}")

    for folder, folders, names in os.walk(address, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield from _recording(Path(folder, name))


def _recording(file: Path) -> Iterator[Recording]:
    try:
        stat = file.stat()
    except OSError:
        return  # removed meanwhile
    yield Recording(file, path_text(file), stat.st_size, stat.st_mtime_ns)


def done(store: Store, camera: str) -> dict[Key, str | None]:
    """The files of a camera that are taken in, None, or refused, why."""
    with store.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT path, bytes, modified_ns, CASE state WHEN 'refused' THEN note END AS why FROM camera_file "
                "WHERE camera = :camera AND state <> 'begun'"
            ),
            {"camera": camera},
        )
        return {(row.path, row.bytes, row.modified_ns): row.why for row in rows}


def try_again(connection: Connection, camera: str) -> None:
    """Has refused files of a camera tried again, because its feed is another now.

    To be called after the feed was written: a worker that refuses a file at this moment then waits for the row.
    """
    connection.execute(text("DELETE FROM camera_file WHERE camera = :camera AND state = 'refused'"), {"camera": camera})
    connection.execute(
        text("DELETE FROM camera_health WHERE camera = :camera AND state = 'refused'"), {"camera": camera}
    )


def take(
    store: Store,
    crops: CropStore,
    feed: Feed,
    recording: Recording,
    view: View,
    detector: Detector,
    *,
    seen: Seen | None = None,
    progress: Progress | None = None,
    wait_out: WaitOut = lambda _: False,
    open_file: Callable[..., VideoFile] = VideoFile,
) -> Outcome:
    """Takes in a file, or refuses it until its feed is changed, and notes which.

    `open_file` opens a video as VideoFile does, `wait_out` as for `take_in` of crops. What `progress` raises interrupts
    the file, which is taken in again then; as what is raised here, and is no fault of the file's, does. Raises
    StoreError, PicturesUnavailable, HomeError, CoreError.
    """
    attempts = _begin(store, feed, recording)
    start: Start | None = None
    try:
        if attempts > MOST_ATTEMPTS:
            raise InputError(f"reading it ended the program {MOST_ATTEMPTS} times")
        start = start_of_feed(feed, recording.file, ZoneInfo(read_city(store).timezone))
        fps = start.fps or feed.fps
        before = seams.before(store, feed.camera, start.at, look_options(view, detector))
        at = start.at if before is None else max(start.at, before.ends)
        frames = open_file(recording.file, at, fps, rate_by=rate_by(feed))
        source = source_of(frames, view, detector, at, fps)
        if before is not None:
            source = replace(source, options={**source.options, _FOLLOWS: before.name[:8]})
        _settle(store, crops, feed.camera, source)
        seam = Seam(None if before is None else before.state)
        report = ingest_frames(
            store,
            crops,
            frames,
            source,
            view,
            detector,
            again="add",
            seen=seen,
            seam=seam,
            progress=progress,
            wait_out=wait_out,
        )
    except InputError as error:
        if not any(each == recording for each in _recording(recording.file)):
            raise HomeError(f"{recording.path} went away or was changed while it was read: {error}") from None
        why = str(error).removeprefix(f"{recording.file}: ")
        _refuse(store, feed, recording, start, why)
        return Outcome(f"{recording.path} is refused: {why}", why)
    assert seam.left is not None
    leaves = seams.keep(store.settings, feed.camera, seam.left, seam.ends)
    with store.begin() as connection:
        _end(connection, feed, recording, "taken", start, report.batch, "; ".join(report.notes))
        replaced = seams.withdraw_replaced(store, connection, feed.camera, seam)
        connection.execute(
            text(f"UPDATE camera_file SET ends = :ends, leaves = :leaves, follows = :follows WHERE {_KEY}"),
            _key(feed, recording) | {"ends": seam.ends, "leaves": leaves, "follows": before and before.name},
        )
        again = seams.take_again(connection, feed.camera, start.at, seam.ends, leaves)
    for batch in replaced:
        remove_pictures(store, crops, batch)
    when = f"{start.at:%Y-%m-%d %H:%M:%S} UTC, by {start.known_from}"
    on = ", going on from the file before" if before is not None else ""
    return Outcome(f"{recording.path}: {report.written} crops from {when}{on}", again=tuple(again))


def start_of_feed(feed: Feed, file: Path, zone: ZoneInfo) -> Start:
    """When a file of the feed begins. Raises as start_of."""
    return Start(feed.start, "the feed") if feed.start else start_of(file, zone, feed.fps)


def rate_by(feed: Feed) -> str:
    """How the frame rate of the feed's files is given."""
    return f"urban-reid cameras set {feed.camera} --fps 25"


def _settle(store: Store, crops: CropStore, camera: str, source: Source) -> None:
    """Makes way for a file that was taken in as this camera's before, with other options; as another's it may be.

    What was interrupted is undone, and what began without the file that it follows. Raises InputError if it is whole.
    """
    with store.begin() as connection:
        earlier = same_content(connection, source)
    for batch in earlier:
        if batch.options.get("camera") != camera or not batch.crops:
            continue
        joined = _differ_in_seam(batch.options, source.options)
        if batch.ended_at is not None and not joined:
            raise InputError(
                f"was taken in before with other options ({batch.with_options()})",
                do=f"`urban-reid ingest undo {batch.id}` takes that back, and `touch` makes it a new file",
            )
        reason = "taken in anew after the file before it" if joined else "interrupted, and its options changed"
        undo(store, crops, batch.id, operator=store.settings.operator, reason=reason, is_replaced=True)


#: The option of a batch that names the file before.
_FOLLOWS = "follows"


def _differ_in_seam(left: Mapping[str, str], right: Mapping[str, str]) -> bool:
    """Whether the options of two batches of a file differ in the file before alone, which may move its start."""
    seam = {_FOLLOWS, "start"}
    same = {k: v for k, v in left.items() if k not in seam} == {k: v for k, v in right.items() if k not in seam}
    starts = [datetime.fromisoformat(options["start"]) for options in (left, right)]
    return same and abs(starts[0] - starts[1]) <= seams.WITHIN


_KEY = "camera = :camera AND path = :path AND bytes = :bytes AND modified_ns = :modified_ns"


def _key(feed: Feed, recording: Recording) -> dict[str, object]:
    return {
        "camera": feed.camera,
        "path": recording.path,
        "bytes": recording.bytes,
        "modified_ns": recording.modified_ns,
    }


def _begin(store: Store, feed: Feed, recording: Recording) -> int:
    """Notes that the file is begun; returns how often it was, this time included."""
    with store.begin() as connection:
        return int(
            connection.execute(
                text(
                    "INSERT INTO camera_file AS f (camera, path, bytes, modified_ns, state) "
                    "VALUES (:camera, :path, :bytes, :modified_ns, 'begun') "
                    "ON CONFLICT (camera, path, bytes, modified_ns) "
                    "DO UPDATE SET attempts = f.attempts + 1, at = now() RETURNING attempts"
                ),
                _key(feed, recording),
            ).scalar_one()
        )


def interrupted(connection: Connection, feed: Feed, recording: Recording) -> None:
    """Notes that reading the file was stopped or could not go on, which is no fault of the file's."""
    connection.execute(text(f"UPDATE camera_file SET attempts = 0 WHERE {_KEY}"), _key(feed, recording))


def _refuse(store: Store, feed: Feed, recording: Recording, start: Start | None, why: str) -> None:
    """Notes that the file is refused, unless its feed was changed meanwhile: it is tried again then."""
    with store.begin() as connection:
        connection.execute(text("SELECT FROM camera_feed WHERE camera = :camera FOR SHARE"), {"camera": feed.camera})
        now = next((each for each in read_feeds(connection) if each.camera == feed.camera), feed)
        if now.model_copy(update={"paused": feed.paused}) == feed:
            _end(connection, feed, recording, "refused", start, None, why)


def _end(
    connection: Connection,
    feed: Feed,
    recording: Recording,
    state: str,
    start: Start | None,
    batch: int | None,
    note: str,
) -> None:
    connection.execute(
        text(
            "UPDATE camera_file SET state = :state, start = :start, start_from = :start_from, batch_id = :batch, "
            f"note = :note, at = now() WHERE {_KEY}"
        ),
        _key(feed, recording)
        | {
            "state": state,
            "start": start and start.at,
            "start_from": start and start.known_from,
            "batch": batch,
            "note": note,
        },
    )
