"""How many cameras this machine looks at, what they cost, and whether memory stays flat.

    python -m benchmarks.cameras streams --video vtest.avi --models DIR [--cameras 2] [--looks 5] [--size 1920x1080]
    python -m benchmarks.cameras memory --video vtest.avi --models DIR [--minutes 30] [--pace 20]
    python -m benchmarks.cameras looks --video vtest.avi --models DIR
    python -m benchmarks.cameras gate --video people.264 --fps 12 --models DIR

`streams` serves the video as H.264 over RTSP (GStreamer's server, tests/helpers/rtsp_server.py) to as many cameras. The
core process and the cameras' process of `urban-reid up` look at them with person-detection-retail-0013 and embed with
person-reidentification-retail-0286. It prints how often the cameras were looked at, and how much processor time each
part took, in seconds a second and camera; two cores have two. Decoding, detection and embedding are measured by
themselves, in one process with one thread; the rest of the processes' time is what following, cutting, sending and
waiting cost. Long runs (`--seconds 1800`) show whether the memory of these processes stays flat. `memory` takes in so
many minutes of the video, played again and again, and prints the process's memory.
`looks` takes the video in at several rates. `gate` compares the motion gate with none.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import psutil
from sqlalchemy import Row, text

from benchmarks.home import home
from pipeline.cameras.pacing import PacedFile
from pipeline.cameras.rows import write_feed
from pipeline.cameras.secrets import FILE, address_with_secret, write_secret
from pipeline.city.units import store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.looks import Seen, View
from pipeline.ingest.video import ingest_frames, source_of
from pipeline.ingest.video_file import VideoFile
from pipeline.registry import register_model, use_model
from pipeline.store import Store
from reid_core.detection import open_detector
from reid_core.detection.files import detector_file, keep_detector, make_default
from reid_core.detection.opening import open_model
from reid_core.serving.factory import open_core
from schemas.city_file import City
from schemas.feeds import Feed
from schemas.settings import Settings
from tests.helpers.rtsp_server import PASSWORD, USER, serving

DETECTOR, EMBEDDER = "person-detection-retail-0013", "person-reidentification-retail-0286"
WARM_S = 20.0
#: Crops are written every 5 s; shorter intervals would tell of that alone.
INTERVAL_S = 5.0


def city(cameras: int) -> City:
    units = [{"code": code} for code in ("d1", "d1/s1", "d1/s1/b1")]
    return City.model_validate({"units": [*units, *({"code": f"d1/s1/b1/c{n}"} for n in range(cameras))]})


@contextmanager
def store_of(settings: Settings, cameras: int) -> Iterator[Store]:
    with Store.open(settings, "benchmark") as store:
        store_city(store, city(cameras))
        yield store


def mjpeg(video: Path, folder: Path, size: str, seconds: int, rate: int) -> Path:
    """Part of the video as MJPEG, from which the server makes H.264."""
    width, height = map(int, size.split("x"))
    path = folder / "served.avi"
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer, capture = (
        cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, rate, (width, height)),
        cv2.VideoCapture(str(video)),
    )
    for _ in range(seconds * rate):
        done, frame = capture.read()
        if not done:
            break
        writer.write(cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC))
    writer.release()
    return path


def processor_s(process: psutil.Process) -> dict[int, float]:
    """Processor seconds of a process and all below it, by process id."""
    found = {}
    for each in (process, *process.children(recursive=True)):
        try:
            used = each.cpu_times()
            found[each.pid] = used.user + used.system
        except psutil.NoSuchProcess:
            continue
    return found


def held_mb(process: psutil.Process) -> float:
    """Memory of a process without what it shares; 0 for one that has just ended."""
    try:
        return float(process.memory_full_info().uss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def used_s(work: Callable[[], object], times: int) -> float:
    """Processor seconds of one of so many calls, after a first one."""
    work()
    before = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - before) / times


def decoding_s(address: str) -> tuple[float, float]:
    """Processor seconds of decoding one frame of a stream, and its mean size in bytes."""
    with av.open(address, options={"rtsp_transport": "tcp", "fpsprobesize": "0"}) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        sizes: list[int] = []

        def frames() -> Iterator[object]:
            for packet in container.demux(video):
                sizes.append(packet.size)
                yield from packet.decode()

        decoded = frames()
        return used_s(lambda: next(decoded), 100), float(np.mean(sizes))


@dataclass
class Alone:
    """Parts by themselves, in processor seconds, and what they take, in bytes."""

    decoding_s: float  # a second of the stream
    detection_s: float  # a look
    embedding_s: float  # a crop
    stream_bytes_per_s: float
    detector_picture_bytes: int
    model_picture_bytes: int


@dataclass
class Watched:
    """What cameras did while they were looked at. Lists: of each interval, for a second and camera."""

    cameras: int
    alone: Alone
    crop_file_bytes: float = 0.0  # the mean of all; 0 without any
    looks: list[float] = field(default_factory=list)
    crops: list[float] = field(default_factory=list)
    features: list[float] = field(default_factory=list)
    used: dict[str, list[float]] = field(default_factory=dict)  # cores: core, cameras, database
    memory_mb: list[list[float]] = field(default_factory=list)  # of the core process and of the cameras' processes


def streams(arguments: argparse.Namespace) -> None:
    watched = watch(arguments)
    show(arguments, watched)


def watch(arguments: argparse.Namespace) -> Watched:
    """What `streams` prints, as figures."""
    with home() as folder, tempfile.TemporaryDirectory() as scratch:
        settings = Settings(home=folder, threads=1)
        served = mjpeg(arguments.video, Path(scratch), arguments.size, 20, arguments.rate)
        keep_detector(settings, DETECTOR, [*(arguments.models / DETECTOR).glob(f"{DETECTOR}.*")])
        make_default(settings, DETECTOR)
        write_secret(folder / FILE, "all", USER, PASSWORD)
        with store_of(settings, arguments.cameras) as store, serving({"a": [str(served)]}, arguments.rate) as server:
            register_model(store, settings, arguments.models / EMBEDDER / f"{EMBEDDER}.xml", EMBEDDER)
            model = use_model(store, EMBEDDER)
            with store.begin() as connection:
                for number in range(arguments.cameras):
                    feed = {"camera": f"d1/s1/b1/c{number}", "address": server.address("a"), "secret": "all"}  # nosec B105
                    made = Feed.model_validate(feed | {"looks_per_s": arguments.looks})
                    write_feed(connection, made)
            frame_s, frame_bytes = decoding_s(address_with_secret(made, settings))
            frame = np.asarray(cv2.VideoCapture(str(served)).read()[1], np.uint8)
            detector = open_detector(settings)
            network = open_model(detector_file(settings.detectors_dir / DETECTOR), settings)
            core = open_core(settings, model.directory(settings))
            shape = 16, model.card.input.height, model.card.input.width, 3
            pictures = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
            alone = Alone(
                decoding_s=frame_s * arguments.rate,
                detection_s=used_s(lambda: detector.detect([frame]), 100),
                embedding_s=used_s(lambda: core.embed(pictures), 5) / 16,
                stream_bytes_per_s=frame_bytes * arguments.rate,
                detector_picture_bytes=network.input.picture(frame).nbytes,
                model_picture_bytes=pictures[0].nbytes,
            )
            environment = {**os.environ, "URBAN_REID_HOME": str(folder)}
            started = []
            for module in ("reid_core.core_process.service", "pipeline.cameras.service"):
                command = [sys.executable, "-P", "-m", module]
                started.append(subprocess.Popen(command, env=environment, cwd=folder))
                while not settings.core_socket.exists():
                    time.sleep(0.1)
            try:
                return measure(arguments, store, [psutil.Process(each.pid) for each in started], alone)
            finally:
                for each in reversed(started):
                    each.terminate()
                    each.wait()


def measure(arguments: argparse.Namespace, store: Store, processes: list[psutil.Process], alone: Alone) -> Watched:
    counted = text(
        "SELECT (SELECT count(*) FROM camera_health WHERE state = 'up') AS up, "
        "(SELECT avg(looks_per_s) FROM camera_health) AS looks, (SELECT count(*) FROM crop) AS crops, "
        "(SELECT count(*) FROM crop_embedding) AS features"
    )

    def now() -> tuple[float, Row[Any], list[dict[int, float]]]:
        with store.begin() as connection:
            row = connection.execute(counted).one()
        return time.monotonic(), row, [processor_s(each) for each in parts]

    pid_file = next(store.settings.home.rglob("postmaster.pid"))
    parts = [*processes, psutil.Process(int(pid_file.read_text().split()[0]))]
    while now()[1].up < arguments.cameras:
        time.sleep(0.5)
    time.sleep(WARM_S)
    watched = Watched(arguments.cameras, alone, used={name: [] for name in ("core", "cameras", "database")})
    began, was = time.monotonic(), now()
    while time.monotonic() - began < arguments.seconds:
        time.sleep(min(INTERVAL_S, arguments.seconds))
        watched.memory_mb.append([sum(map(held_mb, (each, *each.children(recursive=True)))) for each in processes])
        ends = now()
        per = arguments.cameras * (ends[0] - was[0])
        watched.looks.append(float(ends[1].looks or 0))
        watched.crops.append((ends[1].crops - was[1].crops) / per)
        watched.features.append((ends[1].features - was[1].features) / per)
        for used, start, end in zip(watched.used.values(), was[2], ends[2], strict=True):
            used.append(sum(seconds - start.get(pid, 0.0) for pid, seconds in end.items()) / per)
        was = ends
    sizes = [file.stat().st_size for file in store.settings.crops_dir.rglob("*") if file.is_file()]
    watched.crop_file_bytes = float(np.mean(sizes)) if sizes else 0.0
    return watched


def show(arguments: argparse.Namespace, watched: Watched) -> None:
    alone = watched.alone
    core, cameras, database = (float(np.mean(used)) for used in watched.used.values())
    looks, crops, features = (float(np.mean(each)) for each in (watched.looks, watched.crops, watched.features))
    detection, embedding = looks * alone.detection_s, features * alone.embedding_s
    print(
        f"{arguments.cameras} cameras, {arguments.size} at {arguments.rate} frames/s: {looks:.2f} of "
        f"{arguments.looks:g} looks/s, {crops:.2f} crops/s, {features:.2f} features/s"
    )
    shares = {
        "decoding": alone.decoding_s,
        "the rest of the cameras' processes": cameras - alone.decoding_s,
        "detection": detection,
        "embedding": embedding,
        "the rest of the core process": core - detection - embedding,
        "database": database,
    }
    print("processor seconds a second and camera: " + ", ".join(f"{name} {used:.3f}" for name, used in shares.items()))
    minutes = max(len(watched.memory_mb) // 12, 1)
    for name, held in zip(("core process", "cameras' processes"), np.transpose(watched.memory_mb), strict=True):
        said = ", ".join(f"{np.mean(part):.0f}" for part in np.array_split(held, min(minutes, 10)))
        print(f"memory of the {name}, MB, over equal parts of the time: {said}")
    used, cores = sum(shares.values()), os.cpu_count() or 1
    print(f"in all {used:.3f}, so {cores} cores have room for {cores / used:.1f}")


def looped(video: Path, path: Path, minutes: float) -> Path:
    """The video again and again, not encoded anew, until it is so long."""
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copied, interval = target.add_stream_from_template(stream), 1 / float(stream.average_rate or 10)
        count = 0
        while count * interval < 60 * minutes:
            source.seek(0)
            for packet in source.demux(stream):
                if packet.size:
                    packet.stream = copied
                    packet.pts = packet.dts = round(count * interval / float(packet.time_base or 1))
                    target.mux(packet)
                    count += 1
    return path


def memory(arguments: argparse.Namespace) -> None:
    """The memory of one process while it takes in a long file at some times its pace."""
    with home() as folder, tempfile.TemporaryDirectory() as scratch:
        settings = Settings(home=folder)
        detector = open_detector(settings, arguments.models / DETECTOR / f"{DETECTOR}.xml")
        video, process = looped(arguments.video, Path(scratch) / "long.mkv", arguments.minutes), psutil.Process()
        frames = PacedFile(video, None, pace=arguments.pace)
        view = View("d1/s1/b1/c0", looks_per_s=arguments.looks)
        source, began = source_of(frames, view, detector), time.monotonic()

        def tell(read: int, _: int) -> None:
            if read % 1200 == 1:
                print(f"{read / 600:.0f} min of video, {process.memory_info().rss / 1e6:.0f} MB", flush=True)

        with store_of(settings, 1) as store:
            ingest_frames(store, CropStore(settings), frames, source, view, detector, progress=tell)
        took = time.monotonic() - began
        print(f"{process.memory_info().rss / 1e6:.0f} MB; {frames.read / 10 / took:.1f} times its pace")


def taken(arguments: argparse.Namespace, looks: float, gate: bool) -> tuple[int, int, int, float]:
    """Looks, tracks and crops of the video, and processor seconds."""
    with home() as folder:
        settings = Settings(home=folder)
        detector = open_detector(settings, arguments.models / DETECTOR / f"{DETECTOR}.xml")
        view = View("d1/s1/b1/c0", looks_per_s=looks, motion_gate=gate)
        with store_of(settings, 1) as store:
            seen, before = Seen(), time.process_time()
            frames = VideoFile(arguments.video, None, arguments.fps)
            source = source_of(frames, view, detector, None, arguments.fps)
            ingest_frames(store, CropStore(settings), frames, source, view, detector, seen=seen)
            with store.begin() as connection:
                tracks, crops = connection.execute(text("SELECT count(DISTINCT track), count(*) FROM crop")).one()
        return seen.looks, int(tracks), int(crops), time.process_time() - before


def looks(arguments: argparse.Namespace) -> None:
    for rate in (10, 5, 3, 2, 1):
        looked, tracks, crops, used = taken(arguments, rate, False)
        print(f"{rate} looks/s: {looked} looks, {tracks} tracks, {crops} crops, {used:.0f} s of processor")


def gate(arguments: argparse.Namespace) -> None:
    for closed in (False, True):
        looked, tracks, crops, used = taken(arguments, arguments.looks, closed)
        print(f"motion gate {closed}: {looked} looks, {tracks} tracks, {crops} crops, {used:.0f} s of processor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("streams", "memory", "looks", "gate"))
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--looks", type=float, default=5.0)
    parser.add_argument("--size", default="768x576")
    parser.add_argument("--rate", type=int, default=10, help="frames a second of the streams")
    parser.add_argument("--fps", type=float)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pace", type=float, default=20.0)
    arguments = parser.parse_args()
    {"streams": streams, "memory": memory, "looks": looks, "gate": gate}[arguments.what](arguments)


if __name__ == "__main__":
    main()
