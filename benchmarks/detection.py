"""Detectors: how well they find people, how alike they are, and what detection through the core process costs.

    python -m benchmarks.detection accuracy [--frames 300] NAME=FILE...
    python -m benchmarks.detection agreement --video FILE [--every 10] NAME=FILE...
    python -m benchmarks.detection precision [--frames 300] [--rounds 7] NAME=FILE...
    python -m benchmarks.detection served --detector FILE --embedder FILE [--video FILE]

accuracy: average precision (COCO, pycocotools) on rendered frames with 0 to 8 people each; people of whom less than
30 % is visible count neither way. agreement: of the boxes that a detector is sure of, the share that another one finds
too (intersection over union of 0.5 or more), on every n-th frame of a video. precision: of each detector in float32, in
bfloat16 and as it runs by itself (auto), by turns on one thread, processor time a frame, how many times less than in
float32 (least and most of the rounds), and accuracy. served: pictures a second and processor
time a picture in process and through the core process, with one camera and with four; how many answers each of 64
cameras gets that ask at once; and how long a picture waits while another program embeds as fast as it can. HOG is
always among the detectors.
"""

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from benchmarks.home import home
from pipeline.ingest.tracking import overlaps
from pipeline.registry.folders import copied_model
from reid_core.detection import Boxes, Detector, Frame, open_detector
from reid_core.detection.files import keep_detector
from reid_core.serving.factory import open_core
from schemas.settings import Settings
from synthetic.frames import LabeledFrame, labeled_frames
from synthetic.training import training_set

SEED = 7
#: People of whom less is visible count neither as found nor as missed.
LEAST_VISIBLE = 0.3
#: Pictures of one measurement of the rate.
PICTURES = 128
PICTURES_A_ROUND = 32  # of the measurement of precisions
CAMERAS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    accuracy = commands.add_parser("accuracy")
    accuracy.add_argument("--frames", type=int, default=300)
    agreement = commands.add_parser("agreement")
    agreement.add_argument("--video", type=Path, required=True)
    agreement.add_argument("--every", type=int, default=10)
    precision = commands.add_parser("precision")
    precision.add_argument("--frames", type=int, default=300)
    precision.add_argument("--rounds", type=int, default=7)
    for command in (accuracy, agreement, precision):
        command.add_argument("detectors", nargs="*", metavar="NAME=FILE")
    served = commands.add_parser("served")
    served.add_argument("--detector", type=Path, required=True)
    served.add_argument("--embedder", type=Path, required=True)
    served.add_argument("--video", type=Path)
    arguments = parser.parse_args()
    with home() as folder:
        settings = Settings(home=folder)
        if arguments.command == "served":
            measure_served(settings, arguments.detector, arguments.embedder, frames_of(arguments.video, 1, 32))
            return
        named = [text.split("=", 1) for text in arguments.detectors]
        if arguments.command == "precision":
            labeled = list(labeled_frames(SEED, arguments.frames))
            for name, file in named:
                measure_precision(name, opened_in_each_precision(folder, Path(file)), labeled, arguments.rounds)
            return
        detectors = {"hog": open_detector(settings, "hog")}
        detectors |= {name: open_detector(settings, Path(file)) for name, file in named}
        if arguments.command == "accuracy":
            measure_accuracy(detectors, list(labeled_frames(SEED, arguments.frames)))
        else:
            measure_agreement(detectors, frames_of(arguments.video, arguments.every, None))


def opened_in_each_precision(folder: Path, file: Path) -> dict[str, Detector]:
    precisions: tuple[Literal["float32", "bfloat16", "auto"], ...] = ("float32", "bfloat16", "auto")
    return {each: open_detector(Settings(home=folder, precision=each, threads=1), file) for each in precisions}


def measure_precision(name: str, detectors: dict[str, Detector], labeled: Sequence[LabeledFrame], rounds: int) -> None:
    frames = [frame.frame for frame in labeled[:PICTURES_A_ROUND]]
    spent_ms: dict[str, list[float]] = {precision: [] for precision in detectors}
    for number in range(rounds + 1):
        for precision, detector in detectors.items():
            begun = time.process_time()
            detector.detect(frames)
            if number:  # the first warms up
                spent_ms[precision].append(1000 * (time.process_time() - begun) / len(frames))
    for precision, spent in spent_ms.items():
        ratios = [base / own for base, own in zip(spent_ms["float32"], spent, strict=True)]
        span = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{name} in {precision}: {statistics.median(spent):.1f} ms a frame, {span} times as fast", flush=True)
    measure_accuracy({f"{name} {precision}": detector for precision, detector in detectors.items()}, labeled)


def measure_accuracy(detectors: dict[str, Detector], labeled: Sequence[LabeledFrame]) -> None:
    counted = sum(int((frame.visible >= LEAST_VISIBLE).sum()) for frame in labeled)
    print(f"{len(labeled)} frames, {counted} people")
    print(f"{'detector':<18} {'AP':>6} {'AP 0.5':>7} {'AP 0.75':>8}   precision and recall of what it is sure of")
    for name, detector in detectors.items():
        found = [boxes for frame in labeled for boxes in detector.detect([frame.frame])]
        ap, ap50, ap75 = average_precision(labeled, found)
        sure = [boxes[boxes[:, 4] >= detector.sure] for boxes in found]
        right = sum(matched(boxes[:, :4], frame.boxes).sum() for boxes, frame in zip(sure, labeled, strict=True))
        hit = sum(
            (matched(frame.boxes, boxes[:, :4]) & (frame.visible >= LEAST_VISIBLE)).sum()
            for boxes, frame in zip(sure, labeled, strict=True)
        )
        shares = f"{right / max(1, sum(map(len, sure))):.3f} {hit / counted:.3f}"
        print(f"{name:<18} {ap:>6.3f} {ap50:>7.3f} {ap75:>8.3f}   {shares}", flush=True)


def average_precision(labeled: Sequence[LabeledFrame], found: Sequence[Boxes]) -> tuple[float, float, float]:
    """AP over overlaps of 0.50 to 0.95, and at 0.50 and at 0.75, 0..1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    people: list[dict[str, Any]] = []
    for image, frame in enumerate(labeled):
        for box, visible in zip(frame.boxes.tolist(), frame.visible.tolist(), strict=True):
            ignored = int(visible < LEAST_VISIBLE)
            person = {"id": len(people) + 1, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3]}
            people.append({**person, "iscrowd": ignored, "ignore": ignored})
    boxes = [
        {"image_id": image, "category_id": 1, "bbox": box[:4], "score": box[4]}
        for image, rows in enumerate(found)
        for box in rows.tolist()
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        truth = COCO()
        truth.dataset = {
            "images": [{"id": image} for image in range(len(labeled))],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": people,
        }
        truth.createIndex()
        if not boxes:
            return 0.0, 0.0, 0.0
        judged = COCOeval(truth, truth.loadRes(boxes), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0]), float(judged.stats[1]), float(judged.stats[2])


def measure_agreement(detectors: dict[str, Detector], frames: Sequence[Frame]) -> None:
    found = {name: [detector.detect([frame])[0] for frame in frames] for name, detector in detectors.items()}
    sure = {name: [boxes[boxes[:, 4] >= detectors[name].sure][:, :4] for boxes in rows] for name, rows in found.items()}
    print(f"{len(frames)} frames; share of the boxes of a row that a column finds too")
    print(f"{'':<12} {'boxes':>6} " + " ".join(f"{name:>10}" for name in detectors))
    for name, rows in sure.items():
        total = sum(map(len, rows))
        shares = [
            sum(matched(mine, theirs[:, :4]).sum() for mine, theirs in zip(rows, found[other], strict=True))
            / max(1, total)
            for other in detectors
        ]
        print(f"{name:<12} {total:>6} " + " ".join(f"{share:>10.3f}" for share in shares), flush=True)


def matched(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the boxes (n, 4) have a partner of their own among the others, with an overlap of 0.5 or more."""
    shared = overlaps(boxes, others)
    rows, columns = linear_sum_assignment(-shared * (shared >= 0.5))
    hit = np.zeros(len(boxes), np.bool_)
    hit[rows[shared[rows, columns] >= 0.5]] = True
    return hit


def measure_served(settings: Settings, detector: Path, embedder: Path, frames: Sequence[Frame]) -> None:
    keep_detector(settings, "it", [file for file in (detector, detector.with_suffix(".bin")) if file.is_file()])
    with copied_model(settings, embedder, "embedder", None) as (folder, _):
        folder.rename(settings.models_dir / "embedder")
        inside = open_detector(settings, "it")
        with core_process(settings) as process:
            outside, core = open_detector(settings, "it"), psutil.Process(process.pid)
            for each in (inside, outside):
                each.detect(frames[:1])
            ways = {"in process": (inside, 1), "core, one camera": (outside, 1), "core, four cameras": (outside, 4)}
            measured: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for _ in range(5):  # by turns, so that what else the machine does falls on all
                for way, (one, cameras) in ways.items():
                    measured[way].append(rate(one, frames, cameras, core))
            print(f"{'':<20} {'pictures/s':>10} {'best':>6} {'processor ms/picture':>21}")
            for way, rows in measured.items():
                rates, costs = zip(*rows, strict=True)
                print(f"{way:<20} {statistics.median(rates):>10.1f} {max(rates):>6.1f} {min(costs):>21.1f}")
            answers = asked_at_once(settings, frames)
            print(f"{CAMERAS} cameras at once for 10 s: {min(answers)} to {max(answers)} answers each")
            alone = waits(outside, frames)
            stop = threading.Event()
            busy = threading.Thread(target=embed_until, args=(settings, stop))
            busy.start()
            time.sleep(3)
            together = waits(outside, frames)
            stop.set()
            busy.join()
    for name, seconds in (("alone", alone), ("while embedding", together)):
        p50, p95 = np.percentile(seconds, [50, 95]) * 1000
        print(f"a picture's answer, {name}: p50 {p50:.0f} ms, p95 {p95:.0f} ms, longest {max(seconds) * 1000:.0f} ms")


@contextlib.contextmanager
def core_process(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """The core process of a home, once its socket is there."""
    environment = os.environ | {"URBAN_REID_HOME": str(settings.home)}
    process = subprocess.Popen([sys.executable, "-P", "-m", "reid_core.core_process.service"], env=environment)
    try:
        while not settings.core_socket.exists():
            assert process.poll() is None
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def rate(detector: Detector, frames: Sequence[Frame], cameras: int, core: psutil.Process) -> tuple[float, float]:
    """Pictures a second, and milliseconds of the processor for each, here and in the core process."""

    def camera(number: int) -> None:
        for row in range(number, PICTURES, cameras):
            detector.detect([frames[row % len(frames)]])

    threads = [threading.Thread(target=camera, args=(number,)) for number in range(cameras)]
    before, began = spent(core), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    return PICTURES / seconds, (spent(core) - before) / PICTURES * 1000


def asked_at_once(settings: Settings, frames: Sequence[Frame]) -> list[int]:
    """How many answers each of many cameras gets in ten seconds, from opening its detector on."""
    answers = [0] * CAMERAS
    end = time.monotonic() + 10

    def camera(number: int) -> None:
        detector = open_detector(settings, "it")
        while time.monotonic() < end:
            detector.detect([frames[number % len(frames)]])
            answers[number] += 1

    threads = [threading.Thread(target=camera, args=(number,)) for number in range(CAMERAS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def spent(core: psutil.Process) -> float:
    return float(sum(sum(process.cpu_times()[:2]) for process in (core, psutil.Process())))


def waits(detector: Detector, frames: Sequence[Frame]) -> list[float]:
    found = []
    for row in range(100):
        began = time.perf_counter()
        detector.detect([frames[row % len(frames)]])
        found.append(time.perf_counter() - began)
    return found


def embed_until(settings: Settings, stop: threading.Event) -> None:
    core = open_core(settings, settings.models_dir / "embedder")
    pictures = training_set(1, 64, 2, (core.card.input.height, core.card.input.width)).pictures
    while not stop.is_set():
        core.embed(np.asarray(pictures))


def frames_of(video: Path | None, every: int, most: int | None) -> list[Frame]:
    """Each `every`-th frame of a video, or rendered ones without it."""
    if video is None:
        return [frame.frame for frame in labeled_frames(SEED, most or 100)]
    return [frame for number, frame in enumerate(_read(video)) if number % every == 0][:most]


def _read(video: Path) -> Iterator[Frame]:
    capture = cv2.VideoCapture(str(video))
    while True:
        read, frame = capture.read()
        if not read:
            return
        yield np.asarray(frame, np.uint8)


if __name__ == "__main__":
    main()
