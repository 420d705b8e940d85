"""Maximum-weight one-to-one matching of a sparse bipartite graph."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from schemas.arrays import Bools, Ints


def best_matching(left: Ints, right: Ints, gain: NDArray[np.int64] | NDArray[np.float64]) -> Bools:
    """(k,) Which of k edges are in the matching with the largest total gain.

    left, right: (k,) ends of the edges, any integers; no pair of ends twice. gain: (k,) positive. An end may stay
    unmatched. Uses the sparse Jonker-Volgenant algorithm (LAPJVsp of scipy), whose time and memory follow the number of
    edges and not the product of the sides.
    """
    chosen = np.zeros(len(left), dtype=bool)
    if not len(left):
        return chosen
    assert gain.min() > 0, "edges without gain must be left out"
    rows, row = np.unique(left, return_inverse=True)
    columns, column = np.unique(right, return_inverse=True)
    isolated = (np.bincount(row)[row] == 1) & (np.bincount(column)[column] == 1)  # no other edge at either end
    chosen[isolated] = True
    rest = np.flatnonzero(~isolated)
    if not len(rest):
        return chosen
    if len(rows) > len(columns):  # the algorithm iterates over rows
        row, column = column, row
    row, column = np.unique(row[rest], return_inverse=True)[1], np.unique(column[rest], return_inverse=True)[1]
    n, m = int(row.max()) + 1, int(column.max()) + 1
    # Each row gets a dummy column, so that a full matching exists; it costs more than any edge.
    unmatched = float(gain[rest].max()) + 1.0
    cost = np.concatenate([unmatched - gain[rest], np.full(n, unmatched)])
    dummy = np.arange(n)
    graph = csr_matrix((cost, (np.concatenate([row, dummy]), np.concatenate([column, m + dummy]))), shape=(n, m + n))
    matched_column = np.empty(n, dtype=np.int64)
    matched_rows, matched_columns = min_weight_full_bipartite_matching(graph)
    matched_column[matched_rows] = matched_columns
    chosen[rest] = matched_column[row] == column
    return chosen
