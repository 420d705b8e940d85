"""The video door: takes in the people of a video file or a live camera.

A crop's track is the time of the first frame, the batch's digest and the tracker's number, so that two ingests share no
track unless they took in the same file in the same way.
"""

from datetime import datetime
from pathlib import Path

from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.batches import Again, Source, ended, file_digest, path_text
from pipeline.ingest.crop_writer import Progress, WaitOut, is_future, take_in
from pipeline.ingest.frames import Frames, open_frames
from pipeline.ingest.live_camera import LiveCamera
from pipeline.ingest.look_state import Seam
from pipeline.ingest.looks import LOOKS_PER_S, Looks, Polygon, Region, Seen, View, look_options
from pipeline.ingest.video_file import START, VideoFile
from pipeline.store import Store
from reid_core.detection import Detector
from schemas.city_file import unknown_unit
from schemas.crops import IngestReport
from schemas.errors import InputError
from schemas.times import from_us, to_us

SOURCE = "video"


def ingest_video(
    store: Store,
    crops: CropStore,
    source: str,
    camera: str,
    *,
    detector: Detector,
    start: datetime | None = None,
    fps: float | None = None,
    region: Region | None = None,
    masks: tuple[Polygon, ...] = (),
    looks_per_s: float = LOOKS_PER_S,
    motion_gate: bool = False,
    again: Again = "refuse",
    operator: str | None = None,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> IngestReport:
    """Detects and tracks the people in a video file or an RTSP stream, and writes their crops as those of `camera`.

    `start`: when a file's first frame was taken, with zone; video_file.START unless given. `fps`: the frame rate of a
    file that states no times, or whose times are wrong. `region`, `masks`, `looks_per_s`, `motion_gate`: as in View.
    `again`: what happens if the same file was taken in with other options. `operator`: as for `take_in`. `progress`
    gets (frames read, frames in the file or 0) for each frame. `now` as for `is_future`.

    A stream is read until the program is interrupted (Ctrl-C), and opened again when it is lost; what was seen until
    then is written. The same file with the same options gives the same crops. Raises InputError, also for a file that
    ends in the future, and for a stream that is gone for live_camera.PATIENCE_S; CityError for a camera that the city
    lacks.
    """
    if start is not None and is_future(from_us(to_us(start)), now):
        raise InputError(f"the start {start.isoformat()} lies in the future")
    view = View(camera, region, masks, looks_per_s, motion_gate)
    frames = open_frames(source, start, store.settings, fps, looks_per_s=looks_per_s)
    source_ = source_of(frames, view, detector, start, fps)
    report = ingest_frames(
        store, crops, frames, source_, view, detector, again=again, operator=operator, progress=progress, now=now
    )
    if isinstance(frames, LiveCamera) and frames.gone:
        raise InputError(
            f"{frames.name}: {frames.gone}, and did not come back; {report.written} crops were written. "
            "`urban-reid cameras add` makes it a camera that `urban-reid up` keeps up"
        )
    return report


def ingest_frames(
    store: Store,
    crops: CropStore,
    frames: Frames,
    source: Source,
    view: View,
    detector: Detector,
    *,
    again: Again = "refuse",
    operator: str | None = None,
    progress: Progress | None = None,
    seen: Seen | None = None,
    seam: Seam | None = None,
    wait_out: WaitOut = lambda _: False,
    now: datetime | None = None,
) -> IngestReport:
    """Takes in the people of frames, whose `source` is that of source_of; `seen` is kept up to date meanwhile.

    `seam` as for Looks, of a file; `wait_out` as for `take_in`. The rest as for ingest_video.
    """
    cameras = {unit.code for unit in read_city(store).cameras()}
    if view.camera not in cameras:
        raise unknown_unit(view.camera, cameras)
    last = frames.last_moment()
    if isinstance(frames, VideoFile) and last is not None and is_future(last, now):
        raise InputError(
            f"{frames.name}: begins at {frames.start:%Y-%m-%d %H:%M:%S %Z} and ends at {last:%Y-%m-%d %H:%M:%S %Z}, "
            "in the future; correct --start or --fps"
        )
    looks = Looks(frames, view, detector, source.digest.hex()[:8], progress, seen, seam)
    report = take_in(
        store,
        crops,
        source,
        looks,
        total=0,
        operator=operator,
        again=again,
        stream=frames.clock,
        wait_out=wait_out,
        now=now,
    )
    notes = [] if report.read else [f"no people were found in {frames.read} frames"]
    if frames.passed_over:
        came = frames.read + frames.passed_over
        notes.append(
            f"{frames.passed_over} of {came} frames came while an earlier one was looked at, and were left out; a "
            "faster detector or a smaller --region looks at more"
        )
    static = looks.static
    if static.first is not None:
        things = "1 track" if static.tracks == 1 else f"{static.tracks} tracks"
        notes.append(
            f"nothing moves in {things}, as in a chair that is taken for a person; their {static.crops} crops were "
            f"left out, the first: {static.first.name}, box {static.first.box}"
        )
    report = report.model_copy(update={"static_count": static.crops, "notes": (*notes, *frames.notes)})
    return ended(store, report, left_out=static.crops)


def source_of(
    frames: Frames, view: View, detector: Detector, start: datetime | None = None, fps: float | None = None
) -> Source:
    """What an ingest of these frames takes in."""
    options = look_options(view, detector)
    if not isinstance(frames, VideoFile):
        return Source(SOURCE, frames.name, options=options)
    options["start"] = from_us(to_us(start or START)).isoformat()
    if fps is not None:
        options["fps"] = f"{fps:g}"
    path = Path(frames.name)
    return Source(SOURCE, path_text(path), file_digest(path), options)
