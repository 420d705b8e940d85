"""Attended test distances per second: the fast form against the module's `forward`, and its rounding error.

    python -m benchmarks.pairs [--dims 2048] [--reduction 4] [--threads 2] [--gate 1.0] [--rounds 5]

`forward` computes and L2-normalizes x' and y' in float32, in batches of the size that is fastest for it. All forms take
turns, and the best round of each counts. With `--threads 1` the clock is the thread's processor time, which other
programs disturb least. `--gate` is the standard deviation of the gate's logits; with 1 the gates are 0.5 +- 0.2. The
features are random people with enough noise for a middling mAP, so that changes in the ranking show.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reid_core.diff_attention import DiffAttention
from reid_core.evaluation.pairs import ByteWeights, attended_distances, shortlist_distances
from reid_core.evaluation.ranking import RankingMetrics
from reid_core.serving.devices import choose_device
from reid_core.speed.kept import processor_name
from schemas.cards import DiffAttentionSettings
from schemas.settings import Settings

PEOPLE, QUERIES, GALLERY, SHORTLIST = 150, 128, 2048, 100
PLAIN_BATCHES = (128, 256, 1024, 8192)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, default=2048)
    parser.add_argument("--reduction", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gate", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = choose_device(Settings())
    rates = product_rates(device)
    where = processor_name() if device.type == "cpu" else device
    print(f"{where}, {given.threads} threads; matrix products, 10^9 operations a second: ", end="")
    print(", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))
    numbers, (left, right), (query_people, gallery_people) = np.random.default_rng(0), *people(given.dims, device)
    cameras = [numbers.integers(0, 6, len(side)) for side in (query_people, gallery_people)]
    for transform in ("sub", "sub_abs", "sub_squ"):
        module = module_of(transform, given.dims, given.reduction, given.gate, left, right).to(device)
        with torch.inference_mode():
            gates = module.gate(left[:64], right[:64])
        print(f"\n{transform}: D {given.dims}, r {given.reduction}, gates {gates.mean():.2f} +- {gates.std():.2f}")
        times = race(module, left, right, given.rounds)
        plain = max(rate for name, rate in times.items() if name.startswith("plain"))
        needed = operations(transform, given.dims, given.reduction)
        print(f"  {'form':<24} {'pairs/s':>9} {'to plain':>8}   share of the machine's rate")
        for name, rate in times.items():
            shares = ", ".join(f"{kind} {rate * needed / 1e9 / of:.0%}" for kind, of in rates.items())
            print(f"  {name:<24} {rate:>9,.0f} {rate / plain:>8.1f}   {shares}")
        exact, fast = exact_distances(module, left, right), all_pairs(module, left, right)
        error = (exact - fast).abs()
        print(f"  distances {exact.min():.2f} to {exact.max():.2f}, error at most {error.max():.1e}")
        for name, distances in (("float64", exact), ("fast", fast)):
            metrics = RankingMetrics(gallery_people, cameras[1])
            metrics.update(distances.cpu().numpy(), query_people, cameras[0])
            scores = metrics.compute()
            print(f"  {name:<8} mAP {scores.mAP:.3f}  Rank-1 {scores.rank1:.3f}  mINP {scores.mINP:.3f}")


def operations(transform: str, dims: int, reduction: int) -> int:
    """Operations that a pair needs at least: `sub` has no first layer per pair."""
    return 2 * dims * (dims // reduction) * (1 if transform == "sub" else 2)


def people(
    dims: int, device: torch.device, counts: tuple[int, int] = (QUERIES, GALLERY)
) -> tuple[tuple[Tensor, Tensor], tuple[np.ndarray, np.ndarray]]:
    """Features of queries and gallery with unit variance, as after a BatchNorm, and their people."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(PEOPLE, dims, generator=generator)
    sides, labels = [], []
    for count in counts:
        whose = torch.arange(count) % PEOPLE
        share = 0.3 * torch.rand(count, 1, generator=generator)  # of a feature's variance that is the person's
        noise = torch.randn(count, dims, generator=generator)
        sides.append((share.sqrt() * centers[whose] + (1 - share).sqrt() * noise).to(device))
        labels.append(whose.numpy())
    return (sides[0], sides[1]), (labels[0], labels[1])


def module_of(transform: str, dims: int, reduction: int, gate: float, left: Tensor, right: Tensor) -> DiffAttention:
    torch.manual_seed(0)
    module = DiffAttention(dims, DiffAttentionSettings.model_validate({"transform": transform, "reduction": reduction}))
    with torch.inference_mode():
        module.mix.copy_(torch.tensor([0.8, 0.3, -0.2]))
        module.bias.fill_(0.1)
        found = module.to(left.device).gate(left[:64], right[:64]).logit().std().item()
        module.excite.weight.mul_(gate / found)
    return module.eval()


@torch.inference_mode()
def plain_distances(module: DiffAttention, x: Tensor, y: Tensor) -> Tensor:
    attended_x, attended_y = module(x, y)
    found: Tensor = torch.linalg.vector_norm(F.normalize(attended_x) - F.normalize(attended_y), dim=1)
    return found


@torch.inference_mode()
def exact_distances(module: DiffAttention, left: Tensor, right: Tensor) -> Tensor:
    double = module.double()
    blocks = [double.distance_matrix(x.double(), right.double(), normalize=True) for x in torch.split(left, 16)]
    module.float()
    return torch.cat(blocks)


def all_pairs(module: DiffAttention, left: Tensor, right: Tensor) -> Tensor:
    return torch.cat([found for _, found in attended_distances(module, left, right)])


def race(module: DiffAttention, left: Tensor, right: Tensor, rounds: int) -> dict[str, float]:
    """Pairs per second of each form, the best of all rounds."""
    pair = torch.arange(8192)
    x, y = left[pair // 64 % len(left)], right[pair % len(right)]
    forms: dict[str, tuple[int, Callable[[], object]]] = {}
    for size in PLAIN_BATCHES:
        count = max(size, 1024)
        batches = list(zip(torch.split(x[:count], size), torch.split(y[:count], size), strict=True))
        forms[f"plain, batches of {size}"] = count, lambda b=batches: [plain_distances(module, *pair) for pair in b]  # type: ignore[misc]
    shortlists = torch.randint(len(right), (len(left), SHORTLIST), device=left.device)
    forms["fast, all pairs"] = len(left) * len(right), lambda: all_pairs(module, left, right)
    forms["fast, shortlists of 100"] = shortlists.numel(), lambda: shortlist_distances(module, left, right, shortlists)
    best = dict.fromkeys(forms, 0.0)
    for _ in range(rounds):
        for name, (count, form) in forms.items():
            best[name] = max(best[name], count / seconds(form))
    return best


def product_rates(device: torch.device, size: int | None = None) -> dict[str, float]:
    """10^9 operations per second in a square matrix product, large without a size, by type; int8 as `pairs` has it."""
    size = size or (2048 if device.type == "cpu" else 8192)
    left, right = torch.randn(2, size, size, device=device)
    forms: dict[str, Callable[[], object]] = {"float32": lambda: left @ right}
    half = left.bfloat16(), right.bfloat16()
    forms["bfloat16"] = lambda: half[0] @ half[1]
    if device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_vnni", False):
        weights, zeros = ByteWeights.of(right, torch.zeros(size)), torch.zeros(size)
        rows = torch.randint(0, 255, (size, size), dtype=torch.uint8)
        forms["int8"] = lambda: weights.product(rows, zeros, "none")
    return {name: 2 * size**3 / min(seconds(form) for _ in range(5)) / 1e9 for name, form in forms.items()}


def seconds(form: Callable[[], object]) -> float:
    cuda = torch.cuda.is_available()
    clock = time.thread_time if torch.get_num_threads() == 1 and not cuda else time.perf_counter
    if cuda:
        torch.cuda.synchronize()
    started = clock()
    form()
    if cuda:
        torch.cuda.synchronize()
    return clock() - started


if __name__ == "__main__":
    main()
