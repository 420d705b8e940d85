"""Distances of queries to a gallery as a stream of blocks of queries, so that memory never holds all of them.

Features are raw post-BN ones, `left` (Q, D) of the queries and `right` (G, D) of the gallery, on one device. Blocks
become smaller where the device's memory is not enough; OutOfDeviceMemory is raised where even one query is too many.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reid_core.device_memory import Blocks
from reid_core.diff_attention import DiffAttention
from reid_core.evaluation.pairs import attended_distances, shortlist_distances
from reid_core.evaluation.rerank import ReciprocalCodes, ReRanking
from reid_core.progress import Progress
from schemas.arrays import Floats, Ints

#: Distances held at a time.
BLOCK_DISTANCES = 2**21
#: Added to the distances of pictures outside the shortlist, which ranks them last; larger than any distance.
_BEHIND = 3.0
#: Re-ranking with diff attention chooses a picture's neighbors among this many nearest by plain distance.
CANDIDATES = 100

#: Blocks of queries, each with its distances to the whole gallery, (q, G), small = alike.
Stream = Iterator[tuple[slice, Tensor]]


def plain(left: Tensor, right: Tensor) -> Stream:
    """Euclidean distances of L2-normalized features, 0..2, float64; they rank as the cosine does."""
    right = _unit(right)
    blocks = Blocks(max(1, BLOCK_DISTANCES // max(1, len(right))), "query")
    yield from blocks(len(left), lambda rows: (_unit(left[rows]) @ right.T).mul_(-2).add_(2).clamp_(min=0).sqrt_())


def attended(
    attention: DiffAttention, left: Tensor, right: Tensor, top: int | None = None, progress: Progress | None = None
) -> Stream:
    """The test distances, 0..2, query first (paper, 'Diff attention module').

    With `top`, only for each query's `top` nearest by plain distance; the others follow in the order of their plain
    distances, which are raised above 2. Those are found, and reported to `progress`, before the first block.
    """
    if top is None:
        yield from attended_distances(attention, left, right)
        return
    found = []
    for rows, distances in plain(left, right):
        found.append(distances.topk(min(top, len(right)), largest=False).indices)
        if progress is not None:
            progress(f"finding the {top} nearest", rows.stop, len(left))
    nearest = torch.cat(found)
    step = None if progress is None else partial(progress, f"attended distances to the {top} nearest")
    first = shortlist_distances(attention, left, right, nearest, step)  # (Q, top)
    for rows, distances in plain(left, right):
        yield rows, (distances + _BEHIND).scatter_(1, nearest[rows], first[rows].to(distances.dtype))


@torch.inference_mode()
def reciprocal_codes(
    attention: DiffAttention | None,
    left: Tensor,
    right: Tensor,
    settings: ReRanking,
    progress: Progress | None = None,
) -> ReciprocalCodes:
    """The codes that k-reciprocal re-ranking compares, of queries and gallery.

    Each picture's neighbors are its nearest among all queries and gallery pictures: by plain distance or, with diff
    attention, by attended distance among the `CANDIDATES` nearest by plain distance, with the picture as the query.
    """
    pictures = torch.cat([left, right])
    needed = min(len(pictures), max(settings.k1 + 1, settings.k2))
    if attention is None:
        neighbors = _nearest(pictures, needed, progress)
        return ReciprocalCodes(neighbors, partial(_halved_squares, pictures), len(left), settings)
    candidates = _nearest(pictures, min(len(pictures), max(needed, CANDIDATES)), progress)
    step = None if progress is None else partial(progress, "attended distances to neighbors")
    rows = torch.from_numpy(candidates).to(pictures.device)
    found = shortlist_distances(attention, pictures, pictures, rows, step)
    found[:, 0] = -1  # the picture itself
    order = found.argsort(dim=1, stable=True)[:, :needed].cpu().numpy()
    neighbors = np.take_along_axis(candidates, order, axis=1)
    distances = partial(_attended_halved_squares, attention, pictures, progress)
    return ReciprocalCodes(neighbors, distances, len(left), settings)


def _unit(features: Tensor) -> Tensor:
    """L2-normalized rows in float64, with no other copy of all of them on the way."""
    found = torch.empty(features.shape, dtype=torch.float64, device=features.device)
    for whole, part in zip(torch.split(found, 1024), torch.split(features, 1024), strict=True):
        F.normalize(part.double(), out=whole)
    return found


def _nearest(pictures: Tensor, many: int, progress: Progress | None) -> Ints:
    """(N, many): rows of the nearest pictures of each picture by plain distance, the picture itself first."""
    found = []
    for rows, distances in plain(pictures, pictures):
        own = torch.arange(rows.start, rows.stop, device=distances.device)
        distances[own - rows.start, own] = -1  # ahead of equal pictures
        found.append(distances.topk(many, largest=False).indices.cpu().numpy())
        if progress is not None:
            progress("finding neighbors", rows.stop, len(pictures))
    return np.concatenate(found)


def _halved_squares(pictures: Tensor, rows: Ints, columns: Ints) -> Floats:
    """d of the row pairs with these numbers, (n,): 1 - cosine of their features."""
    found = np.empty(len(rows))

    def compute(part: slice) -> Floats:
        left, right = (pictures[torch.from_numpy(side[part]).to(pictures.device)].double() for side in (rows, columns))
        distances: Floats = (1 - F.cosine_similarity(left, right)).cpu().numpy()
        return distances

    for part, distances in Blocks(max(1, BLOCK_DISTANCES // pictures.shape[1]), "pair")(len(rows), compute):
        found[part] = distances
    return found


def _attended_halved_squares(
    attention: DiffAttention, pictures: Tensor, progress: Progress | None, rows: Ints, columns: Ints
) -> Floats:
    """d of the row pairs, (n,), from attended distances. The pairs of each row lie together: they are its shortlist."""
    many = np.bincount(rows, minlength=len(pictures))
    filled = np.arange(many.max(initial=0)) < many[:, None]  # (N, longest)
    shortlists = np.zeros(filled.shape, np.int64)
    shortlists[filled] = columns
    step = None if progress is None else partial(progress, "attended distances of reciprocal neighbors")
    found = shortlist_distances(attention, pictures, pictures, torch.from_numpy(shortlists).to(pictures.device), step)
    return (found.double().square() / 2).cpu().numpy()[filled]
