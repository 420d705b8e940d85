"""Pictures embedded per second by each engine, compared with eager torch (float32, contiguous), in one run.

    python -m benchmarks.embedding [--architecture resnet50] [--size 256x128] [--threads 1] [--engines "openvino int8"]

The network has random weights, which are as fast as others. It is exported as `urban-reid models export` does it, and
each engine is opened as in the city, with padded batches. "features" is the network alone, on normalized pictures;
"crops" is everything: JPEG decoded, resized, normalized, embedded. Engines take turns for `--rounds` rounds, so that a
slow minute of the machine affects all of them; medians are shown, and of the ratios within a round. With `--threads 1`
the clock is the processor time of the process, which other programs disturb least.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from reid_core.decoding import decode
from reid_core.export.export import write_openvino
from reid_core.files import load_model, save_model
from reid_core.models import ReIDModel, build_model
from reid_core.preprocessing import normalized, prepare
from reid_core.serving.core import CPU_BATCH_SIZE
from reid_core.serving.devices import choose_device
from reid_core.serving.foreign import ForeignEmbedder
from reid_core.serving.local import Embedder, TorchEmbedder
from reid_core.speed.kept import processor_name
from schemas.cards import InputConvention, ModelConfig
from schemas.settings import Settings
from synthetic.training import training_set

#: Height and width of the crops before they are resized.
CROP = (220, 96)
BATCH = CPU_BATCH_SIZE
EAGER = "eager float32"
Pictures = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--size", default="256x128", help="height x width of the model's input")
    parser.add_argument("--engines", default="", help="names of engines, separated by commas; all if not given")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as the processor has cores")
    options = parser.parse_args()
    clock = time.process_time if options.threads == 1 else time.perf_counter
    names = [name for name in options.engines.split(",") if name]
    rates = measured(options.architecture, options.size, names, options.pictures, options.rounds, options.threads)
    print(f"{processor_name()}; {options.architecture} {options.size}, {options.pictures} pictures, ", end="")
    print(f"{torch.get_num_threads()} threads, {clock.__name__}")
    print(f"{'engine':<24}{'features/s':>12}{'':>8}{'crops/s':>12}")
    for name, (features, crops) in rates.items():
        ratios = [_ratio(own, eager) for own, eager in zip((features, crops), rates[EAGER], strict=True)]
        both = zip((features, crops), ratios, strict=True)
        print(f"{name:<24}" + "".join(f"{statistics.median(rate):>12.1f}{ratio:>7.2f}x" for rate, ratio in both))


def measured(
    architecture: str, size: str, names: Sequence[str], pictures: int, rounds: int, threads: int
) -> dict[str, tuple[list[float], list[float]]]:
    """(features/s, crops/s) in each round, of eager torch and of each engine of `names`, or of all without names."""
    if threads:
        torch.set_num_threads(threads)
    height, width = (int(side) for side in size.split("x"))
    convention = InputConvention(height=height, width=width)
    encoded = [_jpeg(picture) for picture in training_set(1, -(-pictures // 4), 4, CROP).pictures][:pictures]
    clock = time.process_time if threads == 1 else time.perf_counter
    with tempfile.TemporaryDirectory(prefix="urban-reid-embedding-") as folder:
        engines = _engines(ModelConfig(architecture=architecture, input=convention), Path(folder), threads)
        opened = {name: engines[name]() for name in dict.fromkeys([EAGER, *(names or engines)])}
        return _rates(opened, encoded, convention, rounds, clock)


def _ratio(rates: list[float], others: list[float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(rate / other for rate, other in zip(rates, others, strict=True))


def _engines(config: ModelConfig, folder: Path, threads: int) -> dict[str, Callable[[], Embedder]]:
    """Functions that open each engine, by its name."""
    torch.manual_seed(0)
    card = save_model(_lively(config), folder / "torch", name="random")
    pictures = training_set(2, 8, 4, (config.input.height, config.input.width)).pictures

    def eager() -> Embedder:
        model = load_model(folder / "torch")

        @torch.inference_mode()
        def embed(batch: Pictures) -> NDArray[np.float32]:
            features: NDArray[np.float32] = model(normalized(torch.from_numpy(batch), card.input).contiguous()).numpy()
            return features

        return embed

    def as_torch(**settings: str) -> Embedder:
        return TorchEmbedder(load_model(folder / "torch"), card, Settings(threads=threads, **settings))  # type: ignore[arg-type]

    def as_openvino(precision: str) -> Embedder:
        file = folder / f"{precision}.xml"
        write_openvino(load_model(folder / "torch"), card.input, file, precision, pictures)  # type: ignore[arg-type]
        return ForeignEmbedder.open(file, card.input, Settings(threads=threads))

    engines: dict[str, Callable[[], Embedder]] = {
        EAGER: eager,
        "torch float32": lambda: as_torch(device="cpu", precision="float32"),
        "torch bfloat16": lambda: as_torch(device="cpu", precision="bfloat16"),
        "torch float32 compiled": lambda: as_torch(device="cpu", precision="float32", compile="on"),
        "openvino f32": lambda: as_openvino("f32"),
        "openvino bf16": lambda: as_openvino("bf16"),
        "openvino int8": lambda: as_openvino("int8"),
    }
    if choose_device(Settings()).type == "cuda":
        engines["torch cuda"] = lambda: as_torch(device="cuda")
        engines["torch cuda compiled"] = lambda: as_torch(device="cuda", compile="on")
    return engines


def _lively(config: ModelConfig) -> ReIDModel:
    """A model with random weights whose features neither vanish nor explode over many layers."""
    model = build_model(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 1.5)
    return model


def _rates(
    engines: dict[str, Embedder],
    encoded: list[bytes],
    convention: InputConvention,
    rounds: int,
    clock: Callable[[], float],
) -> dict[str, tuple[list[float], list[float]]]:
    """(features/s, crops/s) of each engine in each round, in which engines take turns."""
    prepared = np.stack([prepare(decode(data), convention) for data in encoded])
    for embed in engines.values():
        _in_batches(embed, prepared)
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in engines}
    for _ in range(rounds):
        for name, embed in engines.items():
            started = clock()
            pictures = np.stack([prepare(decode(data), convention) for data in encoded])
            decoded = clock()
            for start in range(0, len(pictures), BATCH):
                normalized(torch.from_numpy(pictures[start : start + BATCH]), convention).contiguous()
            normal = clock()
            _in_batches(embed, pictures)  # normalizes again, as in the city
            ended = clock()
            features_s = (ended - normal) - (normal - decoded)
            found[name][0].append(len(encoded) / features_s)
            found[name][1].append(len(encoded) / (decoded - started + ended - normal))
    return found


def _in_batches(embed: Embedder, pictures: Pictures) -> None:
    found = [torch.as_tensor(embed(pictures[start : start + BATCH])) for start in range(0, len(pictures), BATCH)]
    found[-1].cpu()  # a batch on CUDA may still be computed when it is returned


def _jpeg(picture: Pictures) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
