"""Distances of queries to a gallery, a block of queries at a time, so that memory never holds them all.

`Rows` is the one form they come in, whatever they are: plain, attended, re-ranked. Features are raw post-BN ones,
`left` (Q, D) of the queries and `right` (G, D) of the gallery, of one dtype on one device.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reid_core.diff_attention import DiffAttention
from reid_core.rerank import Floats, Ints, ReciprocalCodes, ReRanking

#: Distances held at a time.
BLOCK_DISTANCES = 2**22
#: What the distances of pictures beyond the nearest are raised by: more than any distance.
_BEHIND = 3.0
#: Re-ranking with diff attention looks for a picture's neighbours among so many by plain distance.
CANDIDATES = 100

#: Some queries to their distances to the whole gallery, (q, G), small = alike.
Rows = Callable[[slice], Tensor]


def blocks(queries: int, gallery: int) -> list[slice]:
    """All queries in blocks of bounded memory."""
    rows = max(1, BLOCK_DISTANCES // max(1, gallery))
    return [slice(start, min(start + rows, queries)) for start in range(0, queries, rows)]


def plain(left: Tensor, right: Tensor) -> Rows:
    """Euclidean distances, 0..2, of L2-normalised features: the order is the cosine's."""
    left, right = F.normalize(left), F.normalize(right)
    return lambda rows: (2 - 2 * left[rows] @ right.T).clamp(min=0).sqrt()


def attended(attention: DiffAttention, left: Tensor, right: Tensor) -> Rows:
    """The test distances, 0..2, of every pair, query first (paper, 'Diff attention module')."""
    return lambda rows: attention.distance_matrix(left[rows], right, normalize=True)


def attended_nearest(attention: DiffAttention, left: Tensor, right: Tensor, top: int) -> Rows:
    """Attended distances of each query's `top` nearest by plain distance; the rest keep their order behind them."""
    nearest = plain(left, right)
    top = min(top, len(right))

    def distances(rows: slice) -> Tensor:
        found = nearest(rows) + _BEHIND
        columns = found.topk(top, largest=False).indices  # (q, top)
        for row, x, gallery in zip(found, left[rows], columns, strict=True):
            row[gallery] = attention.distance_matrix(x[None], right[gallery], normalize=True)[0]
        return found

    return distances


def reranked(original: Rows, attention: DiffAttention | None, left: Tensor, right: Tensor, settings: ReRanking) -> Rows:
    """k-reciprocal re-ranking of `original`, whose half squares are the distances d(query, gallery) that it mixes in.

    Whose neighbours pictures are is decided among queries and gallery together, by plain distances or, with diff
    attention, by attended ones among the nearest `CANDIDATES` by plain distance. Between two neighbours no side is the
    query: theirs is the mean of the attended distances in both orders.
    """
    pictures = torch.cat([left, right])
    needed = min(len(pictures), max(settings.k1 + 1, settings.k2))
    if attention is None:
        neighbours = _nearest(pictures, needed)
    else:
        neighbours = _nearest(pictures, min(len(pictures), max(needed, CANDIDATES)))
        neighbours = _reordered(attention, pictures, neighbours)[:, :needed]
    codes = ReciprocalCodes(
        neighbours, lambda rows, columns: _halved_squares(attention, pictures, rows, columns), len(left), settings
    )

    def distances(rows: slice) -> Tensor:
        found = original(rows)
        halved = (found.square() / 2).double().cpu().numpy()
        return torch.from_numpy(codes.distances(rows, halved)).to(found.device)

    return distances


def _nearest(pictures: Tensor, many: int) -> Ints:
    """(N, many): the nearest of each picture by plain distance, itself first."""
    rows_of = plain(pictures, pictures)
    found = []
    for rows in blocks(len(pictures), len(pictures)):
        distances = rows_of(rows)
        own = torch.arange(rows.start, rows.stop, device=distances.device)
        distances[torch.arange(len(own), device=own.device), own] = -1  # whatever else is just as near
        found.append(distances.topk(many, largest=False).indices.cpu().numpy())
    return np.concatenate(found)


def _reordered(attention: DiffAttention, pictures: Tensor, neighbours: Ints) -> Ints:
    """Each picture's neighbours in the order of their attended distances, itself first."""
    count, many = neighbours.shape
    rows = np.repeat(np.arange(count), many)
    distances = _halved_squares(attention, pictures, rows, neighbours.ravel()).reshape(count, many)
    distances[:, 0] = -1
    return np.take_along_axis(neighbours, distances.argsort(axis=1, kind="stable"), axis=1)


def _halved_squares(attention: DiffAttention | None, pictures: Tensor, rows: Ints, columns: Ints) -> Floats:
    """d of the row pairs with these numbers, (n,): 1 - cosine of their features, attended where there is attention."""
    found = np.empty(len(rows))
    step = max(1, 4 * BLOCK_DISTANCES // pictures.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        left, right = (
            pictures[torch.from_numpy(numbers[part].astype(np.int64)).to(pictures.device)]
            for numbers in (rows, columns)
        )
        if attention is None:
            halved = 1 - F.cosine_similarity(left, right)
        else:
            both = (
                attention.pair_distances(left, right, normalize=True),
                attention.pair_distances(right, left, normalize=True),
            )
            halved = ((both[0] + both[1]) / 2).square() / 2
        found[part] = halved.double().cpu().numpy()
    return found
