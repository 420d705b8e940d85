"""What a card does for a city, in some minutes: pairs, embedding, detection, training, and the cameras that it serves.

    python -m benchmarks.device --out device.json
    python -m benchmarks.device --device cpu --tiny --out device.json

pairs: the attended distances of Market-1501's 3,368 queries and 15,913 gallery pictures (53.6 million pairs, D 2048,
r 4) for Sub and Sub+Abs, as a share of the card's own rate in matrix products, and `forward` beside them. embedding: a
ResNet-50 at 256x128 in float32, and in the precision that the program takes, eager and compiled. detection:
torchvision's SSDlite on 1920x1080 frames, one picture after another as the program gives them. training: plain
BagTricks of that ResNet-50, the second of two epochs, with the share of the time in which the card was busy
(nvidia-smi; on a processor the share of its cores). tests: those that need CUDA. cameras: how many one card serves at
the load of `benchmarks/capacity/load.json`; `benchmarks.capacity --device` reads the file. All networks have random
weights, which are as fast as others.

A part that fails is named in the file, the others go on, and the exit code is 1. --tiny has the same parts in seconds,
with small networks: it shows that the program runs, and its figures mean nothing.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import pairs
from benchmarks.capacity.figures import LOAD, Gpu, Load, read
from benchmarks.capacity.traffic import Traffic
from reid_core.datasets.person_pictures import PersonPictures
from reid_core.detection.opening import open_model
from reid_core.evaluation.pairs import attended_distances
from reid_core.files import load_model, save_model
from reid_core.models import build_model
from reid_core.serving.devices import choose_device
from reid_core.serving.local import TorchEmbedder
from reid_core.speed.kept import processor_name
from reid_core.training.plans import TrainSettings
from reid_core.training.train import train
from schemas.cards import InputConvention, ModelConfig
from schemas.settings import Settings
from synthetic.training import training_set

TESTS = ["tests/reid_core/evaluation/test_pairs.py", "-k", "on_cuda"]
DETECTOR = "ssdlite320_mobilenet_v3_large"
ROUNDS = 3


@dataclass(frozen=True)
class Size:
    """How large the parts are."""

    dims: int
    queries: int
    gallery: int
    architecture: str
    height: int
    width: int
    batch: int
    batches: int  # of one measurement of embedding
    people: int  # to train on, with eight pictures each
    frames: int
    frame: tuple[int, int]
    matrix: int  # side of the matrices whose products are timed


WHOLE = Size(2048, 3_368, 15_913, "resnet50", 256, 128, 256, 40, 512, 100, (1080, 1920), 8_192)
TINY = Size(64, 64, 256, "resnet10s", 64, 32, 8, 2, 32, 2, (120, 160), 256)


@dataclass(frozen=True)
class Bench:
    size: Size
    device: torch.device
    compiles: bool

    def settings(self, **changed: Any) -> Settings:
        return Settings(device=self.device.type, batch_size=self.size.batch, **changed)

    def model(self, **options: Any) -> ModelConfig:
        convention = InputConvention(height=self.size.height, width=self.size.width)
        return ModelConfig(architecture=self.size.architecture, input=convention, **options)

    def pairs(self) -> dict[str, Any]:
        size, rates = self.size, pairs.product_rates(self.device, self.size.matrix)
        found: dict[str, Any] = {"matrix_products_gflops": rates}
        (left, right), _ = pairs.people(size.dims, self.device, (size.queries, size.gallery))
        for transform in ("sub", "sub_abs"):
            module = pairs.module_of(transform, size.dims, 4, 1.0, left, right).to(self.device)
            every = min(pairs.seconds(lambda m=module: drained(m, left, right)) for _ in range(ROUNDS))  # type: ignore[misc]
            each = pairs.race(module, left[:128], right[:2048], ROUNDS)
            per_s = len(left) * len(right) / every
            needed = pairs.operations(transform, size.dims, 4)
            some = left[:16], right[:256]
            error = (pairs.exact_distances(module, *some) - pairs.all_pairs(module, *some)).abs().max()
            found[transform] = {
                "pairs": len(left) * len(right),
                "seconds": every,
                "pairs_per_s": per_s,
                "share_of_matrix_rate": {kind: per_s * needed / 1e9 / rate for kind, rate in rates.items()},
                "plain_pairs_per_s": max(rate for name, rate in each.items() if name.startswith("plain")),
                "largest_error": float(error),
            }
        return found

    def embedding(self) -> dict[str, Any]:
        """Crops a second, prepared on the host; the copy to the device counts."""
        size, found = self.size, {}
        forms = {"eager float32": ("float32", "off"), "eager": ("auto", "off")}
        forms |= {"compiled": ("auto", "on")} if self.compiles else {}
        pictures = np.random.default_rng(0).integers(0, 255, (size.batch, size.height, size.width, 3), np.uint8)
        with tempfile.TemporaryDirectory(prefix="urban-reid-device-") as folder:
            card = save_model(build_model(self.model()).eval(), Path(folder) / "model", name="random")
            for name, (precision, compiled) in forms.items():
                began = time.perf_counter()
                chosen = self.settings(precision=precision, compile=compiled)
                embed = TorchEmbedder(load_model(Path(folder) / "model"), card, chosen)
                embed(pictures).cpu()
                ready = time.perf_counter() - began
                took = min(pairs.seconds(lambda e=embed: repeated(e, pictures, size.batches)) for _ in range(ROUNDS))  # type: ignore[misc]
                rate = size.batch * size.batches / took
                found[name] = {"crops_per_s": rate, "precision": str(embed.dtype), "ready_s": ready}
        return found

    def detection(self) -> dict[str, Any]:
        from torchvision.models import get_model

        torch.manual_seed(0)
        network = get_model(DETECTOR, weights=None, weights_backbone=None, num_classes=91)
        with tempfile.TemporaryDirectory(prefix="urban-reid-device-") as folder:
            file = Path(folder) / "weights"
            torch.save(network.state_dict(), file)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
            detector = open_model(file.rename(file.with_name(f"{DETECTOR}_coco-{digest}.pth")), self.settings())
        shape = (self.size.frames, *self.size.frame, 3)
        frames = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
        detector.find(frames[:1])
        took = min(pairs.seconds(lambda: detector.find(frames)) for _ in range(ROUNDS))
        return {"detector": DETECTOR, "looks_per_s": len(frames) / took}

    def training(self) -> dict[str, Any]:
        size = self.size
        made = training_set(3, size.people, 8, (size.height, size.width))
        people = PersonPictures(made.pictures, made.identities, made.cameras)
        model = build_model(self.model(), num_classes=size.people)
        second, begun = threading.Event(), [0.0, 0.0]
        plan = TrainSettings(strategy="plain", epochs=2, validate_every=2)

        def tell(_: str, done: int, whole: int) -> None:
            if done > whole // 2 and not second.is_set():  # the first epoch compiles
                begun[:] = time.perf_counter(), time.process_time()
                second.set()

        with tempfile.TemporaryDirectory(prefix="urban-reid-device-") as folder, busy(self.device, second) as shares:
            compiled = "auto" if self.compiles else "off"
            first, last = train(model, people, plan, Path(folder), self.settings(compile=compiled), progress=tell)
            clock, used = (
                now - was for now, was in zip((time.perf_counter(), time.process_time()), begun, strict=True)
            )
        share = float(np.mean(shares)) if shares else used / clock / torch.get_num_threads()
        return {
            "pictures_per_s": last.pictures / last.seconds,
            "first_epoch_s": first.seconds,
            "busy_share": share,
            "busy_by": "nvidia-smi" if shares else "processor time",
        }

    def tests(self) -> dict[str, Any]:
        """The tests that need CUDA; skipped elsewhere."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
        said = done.stdout.strip().splitlines()[-1]
        if done.returncode:
            raise RuntimeError(f"{' '.join(TESTS)}: {said}")
        return {"said": said}


def drained(module: Any, left: torch.Tensor, right: torch.Tensor) -> None:
    for _ in attended_distances(module, left, right):
        pass


def repeated(embed: Callable[[Any], torch.Tensor], pictures: Any, times: int) -> None:
    for _ in range(times):
        embed(pictures)


@contextmanager
def busy(device: torch.device, begin: threading.Event) -> Iterator[list[float]]:
    """Shares of time, 0..1, in which the card computed, five a second since `begin`; none on a processor."""
    shares: list[float] = []
    if device.type != "cuda":
        yield shares
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200", "-i", "0"]
    watched = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def watch() -> None:
        assert watched.stdout is not None
        for line in watched.stdout:
            if begin.is_set():
                shares.append(float(line) / 100)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield shares
    finally:
        watched.terminate()
        watched.wait()
        thread.join()


def served(found: dict[str, Any], name: str, load: Load) -> tuple[Gpu, float]:
    """The card as the cost model takes it, and the cameras that it serves in the busiest hour."""
    crops = found["embedding"].get("compiled", found["embedding"]["eager"])["crops_per_s"]
    card = Gpu(
        name=name,
        measured=not found["tiny"],
        detections_per_s=found["detection"]["looks_per_s"],
        crops_per_s=crops,
        source=f"`python -m benchmarks.device{' --tiny' if found['tiny'] else ''}`, torch {torch.__version__}",
    )
    one = Traffic.of(load, 1)
    return card, load.most_busy / (one.looks_s / card.detections_per_s + one.crops_s / card.crops_per_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    device = choose_device(Settings(device=given.device))
    is_card = device.type == "cuda"
    name = torch.cuda.get_device_name() if is_card else processor_name()
    bench = Bench(TINY if given.tiny else WHOLE, device, compiles=is_card)
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "tiny": given.tiny, "failed": {}}
    parts = {"pairs": bench.pairs, "embedding": bench.embedding, "detection": bench.detection}
    parts |= {"training": bench.training} | ({"tests": bench.tests} if is_card else {})
    for part, measure in parts.items():
        began = time.perf_counter()
        try:
            found[part] = measure() | {"took_s": time.perf_counter() - began}
        except Exception as error:  # minutes of a card are dear: the other parts are measured all the same
            traceback.print_exc()
            found["failed"][part] = f"{type(error).__name__}: {error}"
        print(part, json.dumps(found.get(part, found["failed"].get(part)), indent=2), flush=True)
        if "embedding" in found and "detection" in found:
            card, cameras = served(found, name, read(Load, LOAD))
            found |= {"card": card.model_dump(), "cameras": cameras}
        given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"cameras that it serves: {found.get('cameras', 'not known')}")
    return int(bool(found["failed"]))


if __name__ == "__main__":
    sys.exit(main())
