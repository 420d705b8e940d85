"""k-reciprocal re-ranking (Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with k-reciprocal Encoding,
CVPR 2017, sections 3.2 to 3.4), in memory proportional to the number of pictures, not to its square.

    R(p, k)   = {g : g among p's k nearest, and p among g's k nearest}
    R*(p)     = R(p, k1), and R(q, k1/2) of each q in it of which at least two thirds lie in R(p, k1)
    V(p)[g]   = exp(-d(p, g)) for g in R*(p), else 0; then the mean over p's k2 nearest
    dJ(p, g)  = 1 - sum(min(V(p), V(g))) / sum(max(V(p), V(g)))
    d*(p, g)  = (1 - weight) dJ(p, g) + weight d(p, g)

Notable: sets and vectors are rows of sparse matrices, so each line above is a matrix product. Where the paper does not
say: neighbors are taken from queries and gallery together; a picture is its own nearest neighbor, which counts towards
k2 but not towards k1; d is half the squared Euclidean distance of L2-normalized features, that is 1 - cosine.
The authors' published code differs: it asks for more than two thirds, scales V to the sum 1, and divides d by its
largest value per picture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from schemas.arrays import Floats, Ints

#: d(p, g), (n,), of the pairs of pictures with these two arrays of row numbers, (n,) each.
PairDistances = Callable[[Ints, Ints], Floats]


@dataclass(frozen=True)
class ReRanking:
    """The settings; the defaults are those that the paper recommends."""

    k1: int = 20
    k2: int = 6
    weight: float = 0.3  # of d beside dJ: the paper's lambda

    def __post_init__(self) -> None:
        assert self.k1 >= 1 and self.k2 >= 1 and 0 <= self.weight <= 1


class ReciprocalCodes:
    """V of all pictures, of which the first `queries` are the queries and the others the gallery."""

    def __init__(self, neighbors: Ints, distances: PairDistances, queries: int, settings: ReRanking) -> None:
        """neighbors: (N, k), rows of each picture's nearest, itself first; k is at least k1 + 1 and k2, or is N."""
        count = len(neighbors)
        assert (neighbors[:, 0] == np.arange(count)).all()
        assert neighbors.shape[1] >= min(count, max(settings.k1 + 1, settings.k2))
        self.settings = settings
        sets = _reciprocal_sets(neighbors, settings.k1)
        rows, columns = sets.nonzero()
        weights = np.exp(-distances(rows.astype(np.int64), columns.astype(np.int64)))
        codes = sparse.csr_array((weights, (rows, columns)), (count, count))
        nearest = neighbors[:, : settings.k2]
        codes = _members(nearest) @ codes / nearest.shape[1]
        self._queries = codes[:queries]
        self._gallery = codes[queries:].tocsc()
        self._sums = self._gallery.sum(1)  # (G,)

    def distances(self, rows: slice, distances: Floats) -> Floats:
        """d* (q, G) of the queries `rows` and the gallery, from their d (q, G)."""
        codes = self._queries[rows]
        jaccard = np.stack(
            [
                self._jaccard(codes.indices[start:end], codes.data[start:end])
                for start, end in zip(codes.indptr[:-1], codes.indptr[1:], strict=True)
            ]
        )
        return (1 - self.settings.weight) * jaccard + self.settings.weight * distances

    def _jaccard(self, members: Ints, weights: Floats) -> Floats:
        """dJ (G,) of a query; reads only the gallery's non-zero values in the columns of the query's members."""
        starts, ends = self._gallery.indptr[members], self._gallery.indptr[members + 1]
        many = (ends - starts).astype(np.int64)
        at = np.repeat(starts - (many.cumsum() - many), many) + np.arange(many.sum())
        least = np.minimum(np.repeat(weights, many), self._gallery.data[at])
        shared = np.bincount(self._gallery.indices[at], least, self._gallery.shape[0])
        total: Floats = weights.sum() + self._sums  # of a pair's minima and maxima
        return 1 - shared / (total - shared)


def _reciprocal_sets(neighbors: Ints, k1: int) -> sparse.csr_array:
    """R* of each picture: the columns of the non-zero values of its row."""
    wide, narrow = (_reciprocal(neighbors[:, : k + 1]) for k in (k1, round(k1 / 2)))
    overlap = sparse.coo_array((wide @ narrow.T).multiply(wide))  # of R(p, k1) and R(q, k1/2), for q in R(p, k1)
    taken = 3 * overlap.data >= 2 * narrow.sum(1)[overlap.col]
    chosen = sparse.csr_array((overlap.data[taken], (overlap.row[taken], overlap.col[taken])), wide.shape)
    return wide + chosen @ narrow


def _reciprocal(neighbors: Ints) -> sparse.csr_array:
    members = _members(neighbors)
    return members.multiply(members.T).tocsr()


def _members(neighbors: Ints) -> sparse.csr_array:
    """(N, N): 1 where the column is one of the row's neighbors."""
    count, many = neighbors.shape
    starts = np.arange(count + 1) * many
    return sparse.csr_array((np.ones(count * many), neighbors.ravel(), starts), (count, count))
