"""Recorded files of a camera: which are finished, which are taken in, and taking in one.

A file is finished when neither its size nor its time of change has moved for SETTLED_S; a file that is written again is
another one. What is done stands in `camera_file`: a file is taken in once, whatever happens between. One that was
interrupted is taken in again from its beginning, which writes nothing twice.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from pipeline.cameras.start_times import Start, start_of
from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.batches import Source, path_text, same_content
from pipeline.ingest.crop_writer import Progress
from pipeline.ingest.looks import Seen, View
from pipeline.ingest.undo import undo
from pipeline.ingest.video import ingest_frames, source_of
from pipeline.ingest.video_file import VideoFile
from pipeline.store import Store
from reid_core.detection import Detector
from schemas.errors import InputError, PictureError
from schemas.feeds import Feed

SETTLED_S = 5.0
#: A file that ended the process so often is refused.
MOST_ATTEMPTS = 3
SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("3gp", "264", "265", "asf", "avi", "dav", "flv", "h264", "h265", "hevc", "m2ts", "m4v", "mjpeg", "mjpg"),
        *("mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ps", "ts", "webm", "wmv"),
    )
)


@dataclass(frozen=True)
class Recording:
    """A file as it is now. `path` as the store has it, see path_text."""

    file: Path
    path: str
    bytes: int
    modified_ns: int


class Watch:
    """The files of a feed, a file or a folder with all folders below it."""

    def __init__(self, address: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._address, self._clock = address, clock
        self._since: dict[Recording, float] = {}  # when it was first seen as it is now

    def finished(self) -> list[Recording]:
        """The files that are finished, by name. Raises InputError if the file or folder is not there."""
        now = self._clock()
        found = list(self._found())
        self._since = {recording: self._since.get(recording, now) for recording in found}
        return sorted(
            (recording for recording, since in self._since.items() if now - since >= SETTLED_S),
            key=lambda recording: recording.path,
        )

    def _found(self) -> Iterator[Recording]:
        if self._address.is_file():
            yield from self._recording(self._address)
            return
        if not self._address.is_dir():
            raise InputError(f"{self._address}: no such file or folder")

        def refuse(error: OSError) -> None:
            raise InputError(f"{error.filename}: cannot be read: {error.strerror}")

        for folder, folders, names in os.walk(self._address, onerror=refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                    yield from self._recording(Path(folder, name))

    @staticmethod
    def _recording(file: Path) -> Iterator[Recording]:
        try:
            stat = file.stat()
        except OSError:
            return  # removed meanwhile
        yield Recording(file, path_text(file), stat.st_size, stat.st_mtime_ns)


def done(store: Store, camera: str) -> set[tuple[str, int, int]]:
    """Path, bytes and time of change of the files of a camera that are taken in or refused."""
    with store.begin() as connection:
        rows = connection.execute(
            text("SELECT path, bytes, modified_ns FROM camera_file WHERE camera = :camera AND state <> 'begun'"),
            {"camera": camera},
        )
        return {(row.path, row.bytes, row.modified_ns) for row in rows}


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
    open_file: Callable[..., VideoFile] = VideoFile,
) -> str:
    """Takes in a file, or refuses it for good; returns a line that says which, and notes it.

    `open_file` opens a video as VideoFile does. What `progress` raises interrupts the file, which is taken in again
    then.
    """
    attempts = _begin(store, feed, recording)
    start: Start | None = None
    try:
        if attempts > MOST_ATTEMPTS:
            raise InputError(f"reading it ended the program {MOST_ATTEMPTS} times")
        zone = ZoneInfo(read_city(store).timezone)
        start = Start(feed.start, "the feed") if feed.start else start_of(recording.file, zone, feed.fps)
        fps = start.fps or feed.fps
        frames = open_file(recording.file, start.at, fps)
        source = source_of(frames, view, detector, start.at, fps)
        _settle(store, crops, feed.camera, source)
        report = ingest_frames(store, crops, frames, source, view, detector, again="add", seen=seen, progress=progress)
    except (InputError, PictureError) as error:
        note = str(error)
        _end(store, feed, recording, "refused", start, None, note)
        return f"{recording.path} is refused: {note.removeprefix(f'{recording.file}: ')}"
    _end(store, feed, recording, "taken", start, report.batch, "; ".join(report.notes))
    return f"{recording.path}: {report.written} crops from {start.at:%Y-%m-%d %H:%M:%S} UTC, by {start.known_from}"


def _settle(store: Store, crops: CropStore, camera: str, source: Source) -> None:
    """Makes way for a file that was taken in as this camera's before, with other options; as another's it may be.

    What was interrupted is undone. Raises InputError if it is whole.
    """
    with store.begin() as connection:
        earlier = same_content(connection, source)
    for batch in earlier:
        if batch.options.get("camera") != camera or not batch.crops:
            continue
        if batch.ended_at is not None:
            raise InputError(
                f"was taken in before with other options ({batch.with_options()}); `urban-reid ingest undo {batch.id}` "
                "takes that back, and `touch` makes it a new file"
            )
        undo(store, crops, batch.id, operator=store.settings.operator, reason="interrupted, and its options changed")


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
    """Notes that reading the file was stopped, which is no fault of the file's."""
    connection.execute(text(f"UPDATE camera_file SET attempts = 0 WHERE {_KEY}"), _key(feed, recording))


def _end(
    store: Store, feed: Feed, recording: Recording, state: str, start: Start | None, batch: int | None, note: str
) -> None:
    with store.begin() as connection:
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
