"""Recorded files: one result at any pace, and over files that follow each other.

    python -m benchmarks.recordings paces --video people.264 --fps 12 --models DIR [--looks 2] [--pace 20]
    python -m benchmarks.recordings seams --video vtest.avi --models DIR [--looks 5] [--seconds 30]

`paces` takes a video in at its own pace, at some times that, and at once, each into a city of its own, resolves that,
and prints the pace that was reached and the decision digest. `seams` cuts so many seconds into four files that follow
each other, and compares their crops with those of one file.
"""

import argparse
import tempfile
import time
from datetime import datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av

from benchmarks.cameras import DETECTOR, EMBEDDER, mjpeg, store_of
from benchmarks.home import home
from pipeline.cameras.pacing import PacedFile
from pipeline.city.decision_digest import decision_digest
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.look_state import Seam, unpacked
from pipeline.ingest.looks import Looks, View
from pipeline.ingest.video import ingest_frames, source_of
from pipeline.ingest.video_file import START, VideoFile
from pipeline.registry import register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit, units_within
from reid_core.detection import open_detector
from reid_core.serving.factory import open_core
from schemas.settings import Settings

SIZE, RATE = "768x576", 10  # of the files that `seams` writes, and frames a second


def paces(arguments: argparse.Namespace) -> None:
    """One decision digest at any pace: a file blocks its reader and drops nothing."""
    for pace in (1.0, arguments.pace, None):
        with home() as folder, store_of(settings := Settings(home=folder), 1) as store:
            detector = open_detector(settings, arguments.models / DETECTOR / f"{DETECTOR}.xml")
            register_model(store, settings, arguments.models / EMBEDDER / f"{EMBEDDER}.xml", EMBEDDER)
            model = use_model(store, EMBEDDER)
            core, crops = open_core(settings, model.directory(settings)), CropStore(settings)
            frames = (
                VideoFile(arguments.video, None, arguments.fps)
                if pace is None
                else PacedFile(arguments.video, None, arguments.fps, pace=pace)
            )
            view = View("d1/s1/b1/c0", looks_per_s=arguments.looks)
            source = source_of(frames, view, detector, None, arguments.fps)
            last, began, used = timedelta(), time.monotonic(), time.process_time()

            def tell(read: int, _: int, rate: float = arguments.fps or 10) -> None:
                nonlocal last
                last = timedelta(seconds=read / rate)

            report = ingest_frames(store, crops, frames, source, view, detector, progress=tell)
            reached, used = last.total_seconds() / (time.monotonic() - began), time.process_time() - used
            most = last.total_seconds() / used
            embed_camera(store, core, crops, model, view.camera)
            for code in units_within(store, "d1"):
                resolve_unit(store, core, model, code, settings=settings.association)
            with store.begin() as connection:
                digest = decision_digest(connection)
        asked = "at once" if pace is None else f"at {pace:g} times its pace"
        print(
            f"{asked}: {reached:.1f} times ({most:.1f} on a processor of its own), {report.written} crops, decision "
            f"digest {digest}",
            flush=True,
        )


def cut(video: Path, path: Path, begin: int, end: int) -> Path:
    """So many frames of a video of key frames alone, not encoded anew."""
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        packets = (packet for packet in source.demux(stream) if packet.size)
        for number, packet in enumerate(islice(packets, begin, end)):
            packet.stream, packet.pts, packet.dts = copied, number, number
            target.mux(packet)
    return path


def seams(arguments: argparse.Namespace) -> None:
    """Crops of one file, of its parts that follow each other, and of its parts by themselves."""
    with home() as folder, tempfile.TemporaryDirectory() as scratch:
        settings = Settings(home=folder, threads=1)
        detector = open_detector(settings, arguments.models / DETECTOR / f"{DETECTOR}.xml")
        long = mjpeg(arguments.video, Path(scratch), SIZE, arguments.seconds, RATE)
        frames = arguments.seconds * RATE
        edges = [0, *(round(frames * share) for share in (0.23, 0.48, 0.73)), frames]
        parts = [cut(long, Path(scratch) / f"{begin}.avi", begin, end) for begin, end in pairwise(edges)]
        begins = [START + timedelta(seconds=begin / RATE) for begin in edges[:-1]]
        view = View("d1/s1/b1/c0", looks_per_s=arguments.looks)

        def crops(path: Path, begin: datetime, seam: Seam | None = None) -> set[tuple[object, ...]]:
            found = Looks(VideoFile(path, begin), view, detector, path.stem, seam=seam)
            return {(c.captured_at, c.track, c.box, c.read()) for c in found if c is not None}

        whole, joined, alone, seam = crops(long, START), set(), set(), Seam()
        for path, begin in zip(parts, begins, strict=True):
            joined |= crops(path, begin, seam)
            joined -= {(c.captured_at, c.track, c.box, c.read()) for c in seam.replaced}
            assert seam.left is not None
            seam = Seam(unpacked(seam.left))
            alone |= crops(path, begin)

    def without_tags(found: set[tuple[Any, ...]]) -> set[tuple[object, ...]]:
        return {(at, track.rpartition("-")[2], *rest) for at, track, *rest in found}

    print(f"crops of one file and of its parts are the same: {without_tags(whole) == without_tags(joined)}")
    for name, found in (("one file", whole), ("parts that follow", joined), ("parts by themselves", alone)):
        print(f"{name}: {len(found)} crops, {len({track for _, track, *_ in found})} tracks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("paces", "seams"))
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--looks", type=float, default=5.0)
    parser.add_argument("--fps", type=float)
    parser.add_argument("--pace", type=float, default=20.0)
    parser.add_argument("--seconds", type=int, default=30)
    arguments = parser.parse_args()
    {"paces": paces, "seams": seams}[arguments.what](arguments)


if __name__ == "__main__":
    main()
