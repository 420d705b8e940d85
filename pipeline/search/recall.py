"""Recall of searches that looked at a shortlist: of a sample of them, all prototypes are compared after the answer.

recall@10 is the share of the ten identities nearest by attended distance, among all, that the search had compared with
it. The figures name nobody. Of a search that compared all so, recall is 1 and nothing is measured.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
from sqlalchemy import Connection, text

from pipeline.search.nearest import Compared, Gallery
from pipeline.store import Store
from schemas.arrays import Floats

TOP = 10
#: One of so many searches of a process is measured, the first one too.
EACH = 50
#: Of so many measured ones, the newest, the figure is the mean.
NEWEST = 200
#: Identities that are compared before another search may take its turn.
_AT_ONCE = 10_000

_WRITE = text(
    "INSERT INTO search_recall (model_id, identities, wanted, found) VALUES (:model, :identities, :wanted, :found)"
)
_READ = text(
    "SELECT sum(found)::float8 / sum(wanted) FROM (SELECT found, wanted FROM search_recall "
    "WHERE CAST(:model AS integer) IS NULL OR model_id = :model ORDER BY id DESC LIMIT :newest) AS newest"
)


def measure(
    gallery: Gallery, feature: Floats, compared: Compared, turn: Callable[[], AbstractContextManager[bool]]
) -> tuple[int, int] | None:
    """How many were wanted, and how many of them found. None if the index changed meanwhile.

    gallery: in memory. turn: yields whether that is as it was at the search, and keeps it so.
    """
    n = len(gallery.ids)
    distance = np.empty(n)
    for start in range(0, n, _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, n))
        with turn() as is_as_it_was:
            if not is_as_it_was:
                return None
            distance[rows] = gallery.fast_distances(feature, rows)
    nearest = np.argsort(distance, kind="stable")[:TOP]
    return len(nearest), int(compared.exact[nearest].sum())


def write_recall(store: Store, model_id: int, identities: int, wanted: int, found: int) -> None:
    with store.begin() as connection:
        connection.execute(_WRITE, {"model": model_id, "identities": identities, "wanted": wanted, "found": found})


def read_recall(connection: Connection, model_id: int | None = None) -> float | None:
    """recall@10 of the newest searches that were measured; None if none was. model_id: of that one's alone."""
    found: float | None = connection.scalar(_READ, {"model": model_id, "newest": NEWEST})
    return found
