"""Batches of P identities x K pictures, as arrays of indices."""

import numpy as np
from numpy.typing import NDArray

from schemas.errors import InputError


def identity_batches(
    identities: NDArray[np.int64], identities_per_batch: int, pictures_per_identity: int, seed: tuple[int, ...]
) -> list[NDArray[np.int64]]:
    """The batches of one epoch: index arrays (P * K,) of P different identities with K consecutive pictures each.

    Each identity's pictures are shuffled and cut into groups of K; a remainder of fewer than K is left out of this
    epoch. An identity with fewer than K pictures has one group, with repetitions. Each round takes one group of each
    identity that has one left. The last batch of the first round is filled up, so that each epoch has every identity;
    incomplete batches of later rounds are dropped. The same `seed` (such as the run's seed and the epoch) gives the
    same batches on any machine. Raises InputError with fewer than P identities.
    """
    names, labels = np.unique(identities, return_inverse=True)
    if len(names) < identities_per_batch:
        raise InputError(
            f"{len(names)} identities cannot fill a batch of {identities_per_batch}: "
            "give more people, or a smaller identities_per_batch"
        )
    rng = np.random.default_rng(seed)
    by_identity = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    groups = [_groups(members, pictures_per_identity, rng) for members in by_identity]

    batches: list[NDArray[np.int64]] = []
    for turn in range(max(len(its) for its in groups)):
        order = rng.permutation([label for label, its in enumerate(groups) if turn < len(its)])
        rest = len(order) % identities_per_batch
        if turn == 0 and rest:
            order = np.append(order, rng.permutation(order[:-rest])[: identities_per_batch - rest])
        for start in range(0, len(order) - identities_per_batch + 1, identities_per_batch):
            chosen = order[start : start + identities_per_batch]
            batches.append(np.concatenate([groups[label][turn] for label in chosen]))
    return [batches[i] for i in rng.permutation(len(batches))]


def _groups(members: NDArray[np.int64], size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    if len(members) < size:
        return [np.concatenate([members, rng.choice(members, size - len(members))])]
    return list(rng.permutation(members)[: len(members) // size * size].reshape(-1, size))
