"""Distances of queries to a gallery as a stream of blocks of queries, so that memory never holds them all.

Features are raw post-BN ones, `left` (Q, D) of the queries and `right` (G, D) of the gallery, on one device.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reid_core.diff_attention import DiffAttention
from reid_core.evaluation.pairs import attended_distances, shortlist_distances
from reid_core.evaluation.rerank import ReciprocalCodes, ReRanking
from schemas.arrays import Floats, Ints

#: Distances held at a time.
BLOCK_DISTANCES = 2**21
#: What the distances of pictures beyond the nearest are raised by: more than any distance.
_BEHIND = 3.0
#: Re-ranking with diff attention looks for a picture's neighbors among so many by plain distance.
CANDIDATES = 100

#: Some queries, and their distances to the whole gallery, (q, G), small = alike.
Stream = Iterator[tuple[slice, Tensor]]


def plain(left: Tensor, right: Tensor) -> Stream:
    """Euclidean distances, 0..2, float64, of L2-normalized features: the order is the cosine's."""
    right = _unit(right)
    for rows in _blocks(len(left), len(right)):
        yield rows, (_unit(left[rows]) @ right.T).mul_(-2).add_(2).clamp_(min=0).sqrt_()


def attended(attention: DiffAttention, left: Tensor, right: Tensor, top: int | None = None) -> Stream:
    """The test distances, 0..2, query first (paper, 'Diff attention module'): of every pair, or of each query's `top`
    nearest by plain distance, behind whom the others keep their order.
    """
    if top is None:
        yield from attended_distances(attention, left, right)
        return
    nearest = torch.cat([found.topk(min(top, len(right)), largest=False).indices for _, found in plain(left, right)])
    first = shortlist_distances(attention, left, right, nearest)  # (Q, top)
    for rows, found in plain(left, right):
        yield rows, (found + _BEHIND).scatter_(1, nearest[rows], first[rows].to(found.dtype))


@torch.inference_mode()
def reciprocal_codes(
    attention: DiffAttention | None, left: Tensor, right: Tensor, settings: ReRanking
) -> ReciprocalCodes:
    """What k-reciprocal re-ranking knows of queries and gallery.

    Whose neighbors pictures are is decided among all of them, by plain distances or, with diff attention, by attended
    ones among the nearest `CANDIDATES` by plain distance; whoever looks for neighbors is the query.
    """
    pictures = torch.cat([left, right])
    needed = min(len(pictures), max(settings.k1 + 1, settings.k2))
    if attention is None:
        return ReciprocalCodes(_nearest(pictures, needed), partial(_halved_squares, pictures), len(left), settings)
    candidates = _nearest(pictures, min(len(pictures), max(needed, CANDIDATES)))
    found = shortlist_distances(attention, pictures, pictures, torch.from_numpy(candidates).to(pictures.device))
    found[:, 0] = -1  # itself
    order = found.argsort(dim=1, stable=True)[:, :needed].cpu().numpy()
    neighbors = np.take_along_axis(candidates, order, axis=1)
    return ReciprocalCodes(neighbors, partial(_attended_halved_squares, attention, pictures), len(left), settings)


def _unit(features: Tensor) -> Tensor:
    """L2-normalized rows in float64, with no other copy of all of them on the way."""
    found = torch.empty(features.shape, dtype=torch.float64, device=features.device)
    for whole, part in zip(torch.split(found, 1024), torch.split(features, 1024), strict=True):
        F.normalize(part.double(), out=whole)
    return found


def _blocks(queries: int, gallery: int) -> list[slice]:
    rows = max(1, BLOCK_DISTANCES // max(1, gallery))
    return [slice(start, min(start + rows, queries)) for start in range(0, queries, rows)]


def _nearest(pictures: Tensor, many: int) -> Ints:
    """(N, many): the nearest of each picture by plain distance, itself first."""
    found = []
    for rows, distances in plain(pictures, pictures):
        own = torch.arange(rows.start, rows.stop, device=distances.device)
        distances[own - rows.start, own] = -1  # whatever else is just as near
        found.append(distances.topk(many, largest=False).indices.cpu().numpy())
    return np.concatenate(found)


def _halved_squares(pictures: Tensor, rows: Ints, columns: Ints) -> Floats:
    """d of the row pairs with these numbers, (n,): 1 - cosine of their features."""
    found = np.empty(len(rows))
    step = max(1, BLOCK_DISTANCES // pictures.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        left, right = (pictures[torch.from_numpy(side[part]).to(pictures.device)].double() for side in (rows, columns))
        found[part] = (1 - F.cosine_similarity(left, right)).cpu().numpy()
    return found


def _attended_halved_squares(attention: DiffAttention, pictures: Tensor, rows: Ints, columns: Ints) -> Floats:
    """As `_halved_squares`, of attended features: the pairs of each picture, which lie together, are its shortlist."""
    many = np.bincount(rows, minlength=len(pictures))
    filled = np.arange(many.max(initial=0)) < many[:, None]  # (N, longest)
    shortlists = np.zeros(filled.shape, np.int64)
    shortlists[filled] = columns
    found = shortlist_distances(attention, pictures, pictures, torch.from_numpy(shortlists).to(pictures.device))
    return (found.double().square() / 2).cpu().numpy()[filled]
