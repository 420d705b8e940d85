"""A day of a simulated city: what the history costs its district, what a search keeps of it, and a backup."""

import tempfile
import time
import tracemalloc
from datetime import timedelta
from pathlib import Path

from benchmarks.capacity.cities import DISTRICT, City, taken_in
from benchmarks.capacity.figures import LEVELS, DayFigures
from pipeline.backup.write import backup
from pipeline.registry import ModelRow
from pipeline.search.fast_distances import FastDistances
from pipeline.search.index import Index
from reid_core.files import load_diff_attention
from synthetic.embedding_city.generator import START

#: After the city's start at 06:00: windows of the district in the morning and in the evening, as many passing then.
EARLY, LATE = timedelta(hours=2), timedelta(hours=12)
WINDOWS = 9


def measure_day(cameras: int) -> DayFigures:
    """Everything below the district is resolved at once; the district in between, and twice window by window."""
    with taken_in(cameras, 24.0) as city:
        city.resolve(None, LEVELS[:-1])
        early_known, early_s = _window_by_window(city, EARLY)
        late_known, late_s = _window_by_window(city, LATE)
        city.resolve(None, LEVELS[-1:])
        prototypes, search_bytes = _kept_by_searches(city)
        database = city.bytes()[2]
        seconds, written = _backed_up(city)
        return DayFigures(
            cameras=cameras,
            passages=city.drawn.passages(),
            early_known=early_known,
            early_window_s=early_s,
            late_known=late_known,
            late_window_s=late_s,
            identities=city.known(),
            prototypes=prototypes,
            search_bytes=search_bytes,
            backup_s=seconds,
            backup_bytes=written,
            database_bytes=database,
        )


def _window_by_window(city: City, after: timedelta) -> tuple[int, list[float]]:
    """Identities before, and seconds of a processor of each window of the district."""
    begin, window = START + after, timedelta(seconds=city.store.settings.association.window_s)
    city.resolve(begin, LEVELS[-1:])
    city.analyze()
    known = city.known()
    return known, [city.resolve(begin + (one + 1) * window, LEVELS[-1:])["district"] for one in range(WINDOWS)]


def _kept_by_searches(city: City) -> tuple[int, float]:
    """Prototypes of the district, and bytes that the search process keeps of them."""

    def fast(model: ModelRow) -> FastDistances:
        return module

    module = FastDistances(load_diff_attention(city.model.directory(city.store.settings), city.model.card))
    index = Index(city.store, fast)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with index.held(city.model, DISTRICT) as held:
            kept = tracemalloc.get_traced_memory()[0] - before
            prototypes = sum(len(rows["v"]) for rows in held.rows.values())
    finally:
        tracemalloc.stop()
    return prototypes, float(kept)


def _backed_up(city: City) -> tuple[float, float]:
    """Seconds by the clock, and bytes of the dump."""
    with tempfile.TemporaryDirectory(prefix="urban-reid-backup-") as folder:
        began = time.perf_counter()
        backup(city.store.settings, Path(folder))
        seconds = time.perf_counter() - began
        return seconds, float(sum(file.stat().st_size for file in Path(folder).glob("*.dump*")))
