"""Random generators by seed and purpose, so that the draws of different purposes are independent."""

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *parts: int) -> np.random.Generator:
    """A generator for (seed, purpose, parts). Purposes: "city", "training", "embedding city", "embedding city axes" and
    "embedding city kinds".

    The purpose is part of the entropy, so the people of a city and of a training set differ for every pair of seeds,
    equal seeds included.
    """
    tag = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([tag, seed, *parts])))
