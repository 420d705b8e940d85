"""Time and peak memory of each way of ranking, on random features of the size of Market-1501.

    python -m benchmarks.evaluate [--queries 3400] [--gallery 16000] [--dims 2048] [--ways plain reranked top100]

Each way runs in its own process, whose peak resident memory includes torch and the features. `top100` is diff attention
(Sub+Abs, r = 4) for the 100 nearest by plain distance; `all` is for every pair, which takes hours at this size on a
processor: use it with smaller --queries and --gallery.
"""

import argparse
import resource
import subprocess
import sys
import time

WAYS = ("plain", "reranked", "top100", "all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3400)
    parser.add_argument("--gallery", type=int, default=16_000)
    parser.add_argument("--dims", type=int, default=2048)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["plain", "reranked"])
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        seconds, computing, text = measure(given.one, given.queries, given.gallery, given.dims)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kilobytes on Linux
        print(f"{given.one:>9} {seconds:>9.1f} {computing:>12.1f} {peak:>9.2f}   {text}", flush=True)
        return
    print(f"{given.queries} queries x {given.gallery} pictures, {given.dims} dims")
    print(f"{'way':>9} {'seconds':>9} {'core seconds':>12} {'peak, GB':>9}")
    for way in given.ways:
        sizes = [str(size) for size in (given.queries, given.gallery, given.dims)]
        flags = [part for pair in zip(("--queries", "--gallery", "--dims"), sizes, strict=True) for part in pair]
        subprocess.run([sys.executable, __file__, "--one", way, *flags], check=True)


def measure(way: str, queries: int, gallery: int, dims: int) -> tuple[float, float, str]:
    """Seconds from float32 features to scores, processor seconds of all cores, and the scores as text."""
    import numpy as np
    import torch

    from reid_core.datasets.person_pictures import PersonPictures
    from reid_core.diff_attention import DiffAttention
    from reid_core.evaluation.evaluate import rank_features
    from schemas.cards import DiffAttentionSettings

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    people = max(2, queries * 750 // 3400)
    directions = rng.standard_normal((people, dims), np.float32)

    def side(count: int) -> tuple[np.ndarray, PersonPictures]:
        identities = rng.integers(0, people, count)
        blurred = directions[identities]
        blurred += 5 * rng.standard_normal((count, dims), np.float32)
        nothing = np.zeros((count, 1, 1, 3), np.uint8)
        return blurred, PersonPictures(nothing, identities, rng.integers(0, 6, count))

    (left, query), (right, pictures) = side(queries), side(gallery)
    attention = DiffAttention(dims, DiffAttentionSettings()) if way in ("top100", "all") else None
    started, computed = time.perf_counter(), time.process_time()
    scores = rank_features(
        torch.from_numpy(left),
        torch.from_numpy(right),
        attention,
        query,
        pictures,
        top=100 if way == "top100" else None,
        rerank=way == "reranked",
    )
    return time.perf_counter() - started, time.process_time() - computed, str(list(scores.values())[-1])


if __name__ == "__main__":
    main()
