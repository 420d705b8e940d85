"""Where the head is in crops of people: what part of the upper crop must be blurred so that no face is seen.

    python -m benchmarks.head_region [--people 2000] [--seed 0]

Each person is rendered twice at the same moment, with the head once in green and once in magenta: where the two
pictures differ, the head is. Boxes have the errors of the rendered city's detector, which are larger than a network's.
Printed for each share of a crop's height: how many crops have the whole head above it, and how much of all heads lies
above.
"""

import argparse
import math
from dataclasses import replace

import numpy as np

from synthetic.camera_view import Picture, Walker, draw_camera, photograph
from synthetic.pedestrians import draw_person
from synthetic.rendered_city import CITY_DIFFICULTY
from synthetic.seeds import generator
from synthetic.textures import Looks, dress

_SHARES = (0.15, 0.2, 0.25, 0.3, 0.33, 0.36, 0.4)
_DIFFERS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    ends: list[float] = []
    rows: list[np.ndarray] = []
    for number in range(given.people):
        head = head_of(given.seed, number)
        if head is not None and head.any():
            found = np.flatnonzero(head.any(axis=1)) + 1
            ends.append(found[-1] / len(head))
            rows.append(np.repeat(np.arange(1, len(head) + 1) / len(head), head.sum(axis=1)))
    chins, pixels = np.array(ends), np.concatenate(rows)
    ends_at = ", ".join(f"{share:.3f}" for share in np.quantile(chins, [0.5, 0.95, 0.99, 1.0]))
    print(f"{len(chins)} crops with a head; shares of the height above the chin: {ends_at} (median, 95 %, 99 %, most)")
    for share in _SHARES:
        whole, part = float(np.mean(chins <= share)), float(np.mean(pixels <= share))
        print(f"upper {share:.2f}: whole head in {whole:.2%} of crops, {part:.2%} of all heads' pixels")


def head_of(seed: int, number: int) -> np.ndarray | None:
    """Where the head is in a rendered crop, bool (h, w); None where the person is mostly outside the frame."""
    rng = generator(seed, "heads", number)
    camera = draw_camera(rng, (0.0, 0.0), float(rng.uniform(-math.pi, math.pi)), CITY_DIFFICULTY)
    looks = dress(draw_person(rng))
    x, y, heading, phase = rng.uniform((-3, -3, -math.pi, 0), (3, 3, math.pi, 2 * math.pi)).tolist()
    taken: list[Picture] = []
    for color in ((0.0, 255.0, 0.0), (255.0, 0.0, 255.0)):
        walker = Walker(_painted(looks, color), x, y, heading, phase)
        crop = photograph(camera, walker, generator(seed, "photo", number), CITY_DIFFICULTY, exposure=1.0)
        if crop is None:
            return None
        taken.append(crop[0])
    return np.asarray(np.abs(taken[0].astype(int) - taken[1].astype(int)).max(axis=2) > _DIFFERS)


def _painted(looks: Looks, color: tuple[float, float, float]) -> Looks:
    texture = np.empty_like(looks.head)
    texture[..., :3], texture[..., 3] = color, 1.0
    return replace(looks, head=texture)


if __name__ == "__main__":
    main()
