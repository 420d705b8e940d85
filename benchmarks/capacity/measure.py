"""Measures each stage of this machine, one after another, in some ten minutes."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from benchmarks import cameras, embedding
from benchmarks.capacity.cities import measure_city
from benchmarks.capacity.day import measure_day
from benchmarks.capacity.figures import Flows, Idle, Measured, Searches, Streams
from benchmarks.home import home
from benchmarks.overhead import PROGRAM
from benchmarks.search_engine import Arms, simulated_people
from pipeline.search.fast_distances import FastDistances
from pipeline.simulation import WEIGHTS
from reid_core.files import load_diff_attention, read_card
from reid_core.serving.local import LocalCore
from reid_core.speed.kept import processor_name
from schemas.settings import Settings

#: Engines of a ResNet-50 at 256x128 with random weights, which are as fast as others.
ENGINES = ("torch float32", "torch bfloat16", "openvino f32", "openvino bf16", "openvino int8")
#: A plaza where somebody always walks, and a corridor where few do; the second's frames have other rates.
VIDEOS = ("vtest.avi", "people-detection.264")
#: At two rates, which tell what a look costs from what a camera costs.
LOOKS, SIZE, RATE, STREAMS = (1.0, 5.0), "1920x1080", 10, 2
#: A machine that makes fewer of the looks is too busy to be measured.
MADE = 0.9
PROBES, SETTLED_S = 20, 10.0


def measure(
    data: Path,
    models: Path,
    *,
    sizes: Sequence[int],
    day: int,
    seconds: float,
    runs: int,
    prototypes: Sequence[int],
) -> Measured:
    """data: the folder with `VIDEOS`; models: that with the models of `benchmarks.cameras`."""
    began, load = time.monotonic(), os.getloadavg()[0]

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s: {what}", file=sys.stderr, flush=True)

    tell("urban-reid up, idle")
    idle = measure_idle(SETTLED_S)
    streams = []
    for video in VIDEOS:
        for looks in LOOKS:
            tell(f"{STREAMS} cameras, {video}, {looks:g} looks/s")
            streams.append(measure_streams(data / video, models, looks, seconds))
    cities = []
    for size in sizes:
        tell(f"a city of {size} cameras and an hour")
        cities.append(measure_city(size))
    tell(f"a city of {day} cameras and a day")
    of_day = measure_day(day)
    tell("searches")
    searches = measure_searches(prototypes)
    tell("Prefect's runs")
    flows = measure_flows(runs)
    tell("embedding by each engine")
    engines = measure_embedding()
    tell("done")
    return Measured(
        date=datetime.now(UTC).date(),
        processor=processor_name(),
        cores=os.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        load=load,
        seconds=time.monotonic() - began,
        idle=idle,
        streams=streams,
        embedding=engines,
        cities=cities,
        day=of_day,
        searches=searches,
        flows=flows,
    )


def measure_streams(video: Path, models: Path, looks: float, seconds: float) -> Streams:
    given = {"video": video, "models": models, "cameras": STREAMS, "looks": looks, "size": SIZE, "rate": RATE}
    watched = cameras.watch(argparse.Namespace(**given, seconds=seconds))
    made = sum(watched.looks) / len(watched.looks)
    if made < MADE * looks:
        raise SystemExit(f"{made:.2f} of {looks:g} looks/s were made: measure when the machine does nothing else")
    return Streams(
        video=video.name,
        size=SIZE,
        cameras=STREAMS,
        frames_per_s=RATE,
        asked_looks_per_s=looks,
        **vars(watched.alone),
        crop_file_bytes=watched.crop_file_bytes,
        looks_per_s=watched.looks,
        crops_per_s=watched.crops,
        features_per_s=watched.features,
        used_cores=[sum(parts) for parts in zip(*watched.used.values(), strict=True)],
    )


def measure_embedding() -> dict[str, list[float]]:
    """Seconds of a processor for a crop: JPEG decoded, resized, normalized, embedded."""
    found = embedding.measured("resnet50", "256x128", ENGINES, pictures=16, rounds=3, threads=1)
    return {f"ResNet-50, {name}": [1 / rate for rate in found[name][1]] for name in ENGINES}


def measure_searches(prototypes: Sequence[int]) -> Searches:
    """Among the simulated people of `benchmarks.search_engine`, by its way `index`."""
    torch.set_num_threads(1)  # FastDistances has threads of its own
    fast = FastDistances(load_diff_attention(WEIGHTS, read_card(WEIGHTS)))
    core = LocalCore.open(Settings(home=Path("/nonexistent"), threads=1), WEIGHTS)
    counts, used = [], []
    for wanted in prototypes:
        people = simulated_people(wanted, PROBES)
        arms = Arms(people, fast)
        arms.index(core, people.probes[0])
        began = time.process_time()
        for probe in people.probes:
            arms.index(core, probe)
        used.append((time.process_time() - began) / PROBES)
        counts.append(len(people.v))
    return Searches(prototypes=counts, processor_s=used)


def measure_flows(runs: int) -> Flows:
    command = [sys.executable, "-m", "benchmarks.prefect_growth", "--runs", str(runs), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Flows.model_validate(json.loads(done.stdout.splitlines()[-1]))


def measure_idle(seconds: float) -> Idle:
    """`urban-reid up` in an empty home, after it has settled for as long as it is measured."""
    with home() as folder:
        environment = os.environ | {"URBAN_REID_HOME": str(folder / "home")}
        up = subprocess.Popen([*PROGRAM, "up", "--json"], stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert up.stdout is not None
            if not up.stdout.readline():
                raise SystemExit("`urban-reid up` does not start")
            time.sleep(seconds)
            postmaster = (folder / "home" / "postgres" / "postmaster.pid").read_text().splitlines()[0]
            roots = [psutil.Process(up.pid), psutil.Process(int(postmaster))]
            began, before = time.monotonic(), _used(roots)
            time.sleep(seconds)
            cores = (_used(roots) - before) / (time.monotonic() - began)
            memory = sum(cameras.held_mb(one) for one in _family(roots))
            return Idle(cores=max(cores, 0.0), memory_mb=memory)
        finally:
            up.send_signal(signal.SIGINT)
            up.wait()


def _family(roots: Sequence[psutil.Process]) -> list[psutil.Process]:
    return list({one.pid: one for root in roots for one in (root, *root.children(recursive=True))}.values())


def _used(roots: Sequence[psutil.Process]) -> float:
    """Seconds of a processor of those that have not ended."""
    return sum({pid: used for root in roots for pid, used in cameras.processor_s(root).items()}.values())
