"""Plain pgvector beside the search engine: a table of an embedded server, scanned in full or through HNSW."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from os import sysconf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.home import home
from pipeline.store import Store, embedded, roles
from pipeline.store.copy import Columns, copy_in
from schemas.arrays import Floats, Ints
from schemas.settings import Settings

#: One row of so many lies in the part of the table that a filter asks for.
PARTS = 1000
_AT_ONCE = 50_000
_ITERATIVE = {"no iterative scan": "off", "iterative scan": "strict_order"}
_TABLE = "CREATE UNLOGGED TABLE public.vectors (id integer, part integer, v halfvec({dims}))"
_INDEX = (
    "CREATE INDEX ON public.vectors USING hnsw (v halfvec_cosine_ops) WITH (m = {links}, ef_construction = {build})"
)
_NEAREST = "SELECT id FROM public.vectors {where} ORDER BY v <=> %s::halfvec LIMIT %s"


@dataclass
class Vectors:
    """The table, filled. One session asks, and its server process alone answers."""

    cursor: Any
    process: int

    def exact(self, probe: Floats, count: int, part: int | None = None) -> Ints:
        """Rows of the nearest by cosine; every vector is compared."""
        self.cursor.execute("SET enable_indexscan = off; SET enable_seqscan = on; SET enable_sort = on")
        return self._near(probe, count, part)

    def hnsw(self, probe: Floats, count: int, part: int | None = None, iterative: str = "strict_order") -> Ints:
        """The same through the graph."""
        self.cursor.execute("SET enable_indexscan = on; SET enable_seqscan = off; SET enable_sort = off")
        self.cursor.execute(f"SET hnsw.iterative_scan = {iterative}")
        return self._near(probe, count, part)

    def build(self, links: int, width: int, search: int, threads: int) -> float:
        """Builds the graph; returns the seconds that it took."""
        began = time.perf_counter()
        self.cursor.execute(f"SET maintenance_work_mem = '4GB'; SET max_parallel_maintenance_workers = {threads - 1}")
        self.cursor.execute(_INDEX.format(links=links, build=width))
        self.cursor.execute(f"SET hnsw.ef_search = {search}")
        return time.perf_counter() - began

    def bytes(self) -> tuple[int, int]:
        """Of the table and of its index."""
        self.cursor.execute("SELECT pg_table_size('public.vectors'), pg_indexes_size('public.vectors')")
        return tuple(self.cursor.fetchone())

    def processor_s(self) -> float:
        """Processor time of the session's server process."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / sysconf("SC_CLK_TCK")

    def rows_found(self, probes: Floats, count: int) -> dict[str, float]:
        """Mean number of rows that a filter by part leaves of so many that are asked for, by kind of scan."""
        ways: dict[str, Callable[..., Ints]] = {"exact": self.exact}
        ways |= {name: partial(self.hnsw, iterative=how) for name, how in _ITERATIVE.items()}
        return {name: float(np.mean([len(way(one, count, 0)) for one in probes])) for name, way in ways.items()}

    def _near(self, probe: Floats, count: int, part: int | None) -> Ints:
        where = "" if part is None else f"WHERE part = {part}"
        said = f"[{','.join(map(repr, np.asarray(probe, np.float32).tolist()))}]"
        self.cursor.execute(_NEAREST.format(where=where), (said, count))
        return np.array([row[0] for row in self.cursor.fetchall()], np.int64)


@contextmanager
def stored(v: NDArray[np.float16]) -> Iterator[Vectors]:
    """A server of its own with these vectors (p, D), which is gone afterwards."""
    with (
        home() as path,
        Store.open(Settings(home=path, database_url=None), "benchmark") as store,
        embedded.hold(path) as server,
        closing(server.connect(roles.SUPERUSER)) as session,
    ):
        session.autocommit = True
        cursor = session.cursor()
        cursor.execute(_TABLE.format(dims=v.shape[1]))
        cursor.execute("GRANT INSERT ON public.vectors TO urban_reid_worker")
        for start in range(0, len(v), _AT_ONCE):
            ids = np.arange(start, min(start + _AT_ONCE, len(v)))
            rows: Columns = {"id": ("int4", ids), "part": ("int4", ids % PARTS), "v": ("halfvec", v[ids])}
            with store.begin() as connection:
                copy_in(connection, "public.vectors", rows)
        cursor.execute("VACUUM ANALYZE public.vectors")
        cursor.execute("SET max_parallel_workers_per_gather = 0; SET jit = off; SELECT pg_backend_pid()")
        yield Vectors(cursor, int(cursor.fetchone()[0]))
