"""The best one-to-one matching of a sparse graph: who is whom, where each may be matched once."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from schemas.arrays import Bools, Ints


def best_matching(left: Ints, right: Ints, gain: NDArray[np.int64] | NDArray[np.float64]) -> Bools:
    """(k,) Which edges are in the matching of largest total gain.

    `left` and `right` (k,) name the ends of each edge by any number, no pair of ends twice; `gain` (k,) is positive.
    Whoever gains nothing stays alone. The sparse Jonker-Volgenant algorithm (LAPJVsp of scipy) on the edges that are
    there, so time and memory follow these and not the product of the sides.
    """
    chosen = np.zeros(len(left), dtype=bool)
    if not len(left):
        return chosen
    assert gain.min() > 0, "an edge that gains nothing is no edge"
    rows, row = np.unique(left, return_inverse=True)
    columns, column = np.unique(right, return_inverse=True)
    sole = (np.bincount(row)[row] == 1) & (np.bincount(column)[column] == 1)  # nobody else wants either end
    chosen[sole] = True
    rest = np.flatnonzero(~sole)
    if not len(rest):
        return chosen
    if len(rows) > len(columns):  # the algorithm goes row by row
        row, column = column, row
    row, column = np.unique(row[rest], return_inverse=True)[1], np.unique(column[rest], return_inverse=True)[1]
    n, m = int(row.max()) + 1, int(column.max()) + 1
    # Each row also has a column of its own that costs what the dearest edge would not, so a full matching exists.
    alone = float(gain[rest].max()) + 1.0
    cost = np.concatenate([alone - gain[rest], np.full(n, alone)])
    every = np.arange(n)
    graph = csr_matrix((cost, (np.concatenate([row, every]), np.concatenate([column, m + every]))), shape=(n, m + n))
    matched = np.empty(n, dtype=np.int64)
    at, to = min_weight_full_bipartite_matching(graph)
    matched[at] = to
    chosen[rest] = matched[row] == column
    return chosen
