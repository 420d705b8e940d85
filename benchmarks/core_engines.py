"""Embedding through the core process and through `urban-reid core` on Ray Serve with 1 and 2 replicas, in one run.

    python -m benchmarks.core_engines [--architecture resnet50] [--size 256x128] [--threads 2] [--rounds 7]

The network has random weights, which are as fast as others. The engine is that of URBAN_REID_ENGINE and
URBAN_REID_PRECISION. Two replicas have half of the threads each. All cores are up at once; they take turns in each
round, so that a slow minute of the machine affects all of them, and medians are shown, of the ratios within a round.

A call is a request of one caller, and the overhead what it takes longer than in the core process. "4 callers" is
pictures a second while four embed at once. "processor" is the processor time of a call in the processes that answer and
compute, which other programs disturb least; Ray's own are left out, which work all the time. The environment with Ray
is made in build/ray at the first run.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from benchmarks.home import home
from reid_core.files import save_model
from reid_core.models import build_model
from reid_core.serving.factory import open_core
from reid_core.serving.remote import RemoteCore
from reid_core.speed.kept import processor_name
from schemas.cards import InputConvention, ModelConfig
from schemas.settings import Settings
from tests.helpers.core_process import core_process
from tests.helpers.ray_core import ray_core

PROCESS, ONE, TWO = "core process", "Ray, 1 replica", "Ray, 2 replicas"
CALLERS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--size", default="256x128", help="height x width of the model's input")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    chunk = max(1, 8 * 2**20 // (height * width * 3 * 16)) * 16
    many = np.random.default_rng(0).integers(0, 256, (chunk, height, width, 3), dtype=np.uint8)
    with home() as folder, ExitStack() as ends:
        settings = Settings(home=folder)
        torch.manual_seed(0)
        config = ModelConfig(architecture=options.architecture, input=InputConvention(height=height, width=width))
        save_model(build_model(config), settings.models_dir / "it", name="it")
        threads = {"URBAN_REID_THREADS": str(options.threads)}
        halves = {
            "URBAN_REID_THREADS": str(max(1, options.threads // 2)),
            "URBAN_REID_RAY_MIN_REPLICAS": "2",
            "URBAN_REID_RAY_MAX_REPLICAS": "2",
        }
        process = psutil.Process(ends.enter_context(core_process(settings, **threads)).pid)
        one, two = (ends.enter_context(ray_core(settings, **variables)) for variables in (threads, halves))
        cores = {
            PROCESS: Measured(opened(settings), lambda: [process]),
            ONE: Measured(opened(one.settings), one.computing),
            TWO: Measured(opened(two.settings), two.computing),
        }
        for core in cores.values():
            core.call(many[:32])
        print(f"{processor_name()}; {options.architecture} {options.size}, {options.threads} threads")
        print(f"{'':<32}" + "".join(f"{way:>28}" for way in cores))
        for count in (1, 16, chunk):
            found = rounds(cores, options.rounds, partial(Measured.call, pictures=many[:count]))
            show(f"a call of {count} pictures, ms", found, 0)
            show(f"a call of {count}, processor ms", found, 1)
        found = rounds(cores, options.rounds, partial(Measured.together, pictures=many))
        show(f"{CALLERS} callers, pictures/s", found, 0, more=True)


@dataclass(frozen=True)
class Measured:
    """A core, and the processes that it consists of."""

    core: RemoteCore
    family: Callable[[], list[psutil.Process]]

    def call(self, pictures: NDArray[np.uint8]) -> tuple[float, float]:
        """Milliseconds of a call by the clock and by the processor."""
        processes = self.family()
        before, began = processor_ms(processes), time.perf_counter()
        self.core.embed(pictures)
        clock = (time.perf_counter() - began) * 1000
        return clock, processor_ms(processes) - before

    def together(self, pictures: NDArray[np.uint8]) -> tuple[float, float]:
        """Pictures a second while several callers embed, and nothing else."""
        began = time.perf_counter()
        with ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(self.core.embed, [pictures] * CALLERS))
        return CALLERS * len(pictures) / (time.perf_counter() - began), 0.0


def processor_ms(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes if process.is_running()]
    return 1000 * float(sum(each.user + each.system for each in times))


def opened(settings: Settings) -> RemoteCore:
    core = open_core(settings, settings.models_dir / "it")
    assert isinstance(core, RemoteCore)
    return core


def rounds(
    cores: dict[str, Measured], count: int, measure: Callable[[Measured], tuple[float, float]]
) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in cores}
    for turn in range(count):
        for way in list(cores) if turn % 2 == 0 else list(cores)[::-1]:
            found[way].append(measure(cores[way]))
    return found


def show(what: str, found: dict[str, list[tuple[float, float]]], column: int, *, more: bool = False) -> None:
    """A line: medians, and what each differs from the core process within a round. more: more is better."""
    line = f"{what:<32}"
    for way, rows in found.items():
        values, others = ([row[column] for row in each] for each in (rows, found[PROCESS]))
        ratio = statistics.median(value / max(other, 1e-9) for value, other in zip(values, others, strict=True))
        against = f"({ratio:.2f}x)" if more else f"({ratio - 1:+.1%})"
        line += f"{statistics.median(values):>16.1f} {'' if way == PROCESS else against:>11}"
    print(line, flush=True)


if __name__ == "__main__":
    main()
