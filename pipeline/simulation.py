"""A simulated city of embeddings in the store: ingested, resolved, scored, and compared with the baselines."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sqlalchemy import text

import reid_core
from pipeline.accuracy.baselines import BASELINES, Passages
from pipeline.accuracy.labeled import Labeled, labeled_tracklets
from pipeline.accuracy.metrics import Pairwise, idf1, pairwise
from pipeline.accuracy.scorecard import reviews, violations
from pipeline.association.geometry import Geometry, unit_geometry
from pipeline.city.units import find_city, read_city, store_city
from pipeline.ingest.features import take_in_features
from pipeline.registry import ModelRow, models, register_model, use_model
from pipeline.store import Store
from schemas.arrays import Ints
from schemas.disk import write_whole
from schemas.errors import HomeError
from schemas.levels import UPWARD, Level
from synthetic.embedding_city import EmbeddingCity

MODEL = "simulated"
#: The packaged model whose features simulated cities have; made by `python -m scripts.calibrate_simulated`.
WEIGHTS = Path(reid_core.__file__).parent / "weights" / MODEL

Progress = Callable[[int, int], None]


def ingest_simulated(
    store: Store, simulated: EmbeddingCity, weights: Path = WEIGHTS, progress: Progress | None = None
) -> ModelRow:
    """Stores the city, its model and all crops; returns the model in use. Does nothing if this very city is there.

    progress: called with (people done, people in all). Raises HomeError if the home holds another city, or only a part
    of this one.
    """
    marker = store.settings.home / "simulated.txt"
    is_there = marker.exists() and marker.read_text(encoding="utf-8") == repr(simulated.settings)
    if find_city(store) is not None and not is_there:
        raise HomeError(
            f"{store.settings.home} holds another city, or a part of this one; set URBAN_REID_HOME to an empty folder"
        )
    if MODEL not in {row.name for row in models(store)}:
        register_model(store, store.settings, weights, MODEL)
    model = next((row for row in models(store) if row.in_use), None) or use_model(store, MODEL)
    if is_there:
        return model
    store_city(store, simulated.city, is_demo=True)
    for batch in simulated.batches(progress):
        take_in_features(store, model, simulated.camera_codes, batch)
    write_whole(marker, repr(simulated.settings))
    return model


def count_tracklets(store: Store) -> int:
    """Number of tracklets among the crops, before anything is resolved."""
    with store.begin() as connection:
        return int(connection.scalar(text("SELECT count(DISTINCT (camera, track)) FROM crop")) or 0)


def database_bytes(store: Store) -> int:
    with store.begin() as connection:
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)


@dataclass(frozen=True)
class CityScore:
    """Scores over all districts; per level where they are mappings."""

    tracklets: int
    idf1: Mapping[str, float]
    pairwise_f1: Mapping[str, float]
    violations: int
    reviews: Mapping[str, int]
    baselines: Mapping[str, Mapping[str, Any]]  # per baseline: idf1 and pairwise_f1 per level, seconds

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def score_city(
    store: Store,
    model: ModelRow,
    baselines: Sequence[str] = (),
    on_step: Callable[[str], None] = lambda _: None,
) -> CityScore:
    """Scores every level against the truth, and the named baselines on each district.

    The baselines' thresholds are in the model's card; they were chosen on the cities that the model was calibrated on.
    """
    city = read_city(store)
    districts = [unit.code for unit in city.units if unit.level is Level.DISTRICT]
    thresholds = model.card.details.get("baseline_thresholds", {})
    levels = UPWARD[1:]
    counts: dict[str, list[dict[Level, _Counts]]] = {"urban-reid": [], **{name: [] for name in baselines}}
    seconds = dict.fromkeys(baselines, 0.0)
    tracklets = forbidden = 0
    review_counts = dict.fromkeys((level.value for level in levels), 0)
    for district in districts:
        labeled = labeled_tracklets(store, district, model.id)
        geometry = unit_geometry(city, district, store.settings.association)
        tracklets += len(labeled.truth)
        forbidden += violations(labeled, Level.DISTRICT, geometry)
        with store.begin() as connection:
            for level in levels:
                review_counts[level.value] += reviews(connection, district, level)
        counts["urban-reid"].append({level: _count(labeled.identity[level], labeled, level) for level in levels})
        on_step(f"{district}: scored")
        passages = passages_of(labeled, geometry)
        for name in baselines:
            began = time.perf_counter()
            (threshold,) = thresholds[name]
            groups = BASELINES[name](passages)(threshold)
            seconds[name] += time.perf_counter() - began
            counts[name].append({level: _count(groups, labeled, level) for level in levels})
            on_step(f"{district}: {name}")
    tables = {name: _totals(by_district, levels) for name, by_district in counts.items()}
    own = tables.pop("urban-reid")
    return CityScore(
        tracklets=tracklets,
        idf1=own["idf1"],
        pairwise_f1=own["pairwise_f1"],
        violations=forbidden,
        reviews=review_counts,
        baselines={name: {**tables[name], "seconds": round(seconds[name], 2)} for name in baselines},
    )


def passages_of(labeled: Labeled, geometry: Geometry) -> Passages:
    """The tracklets for the baselines: the same features, the same gates."""
    return Passages(
        labeled.mean.astype(np.float32),
        labeled.camera,
        labeled.start_us,
        labeled.end_us,
        geometry.min_gap,
    )


#: Pairs, IDF1, and the number of crops behind it.
_Counts = tuple[Pairwise, float, int]


def _count(groups: Ints, labeled: Labeled, level: Level) -> _Counts:
    unit = labeled.unit(level)
    predicted, truth = labeled.episodes(level, groups), labeled.episodes(level, labeled.truth)
    return pairwise(predicted, truth, unit), idf1(predicted, truth, unit, labeled.crops), int(labeled.crops.sum())


def _totals(districts: Sequence[Mapping[Level, _Counts]], levels: Sequence[Level]) -> dict[str, dict[str, float]]:
    """IDF1 (mean weighted by crops) and pairwise F1 (over all pairs) per level over the districts."""
    idf1_by_level: dict[str, float] = {}
    f1_by_level: dict[str, float] = {}
    for level in levels:
        counts = [district[level] for district in districts]
        f1_by_level[level.value] = round(sum((pairs for pairs, _, _ in counts), Pairwise(0, 0, 0)).f1, 4)
        crops = sum(weight for _, _, weight in counts)
        idf1_by_level[level.value] = round(sum(value * weight for _, value, weight in counts) / max(crops, 1), 4)
    return {"idf1": idf1_by_level, "pairwise_f1": f1_by_level}


class PeakMemory:
    """The largest memory that this process, its children and the embedded server held together, MB."""

    def __init__(self) -> None:
        self.mb = 0.0


@contextmanager
def peak_memory(store: Store, every_s: float = 0.5) -> Iterator[PeakMemory]:
    """Samples the memory in the background until exit; shared pages count once (proportional set size)."""
    peak, done = PeakMemory(), threading.Event()

    def sample() -> None:
        while True:
            peak.mb = max(peak.mb, sum(map(_pss_bytes, _processes(store))) / 2**20)
            if done.wait(every_s):
                return

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _processes(store: Store) -> list[psutil.Process]:
    """This process, the embedded server, and the children of both."""
    roots = [psutil.Process()]
    server = store.settings.home / "postgres" / "postmaster.pid"
    with suppress(OSError, ValueError, psutil.Error):
        roots.append(psutil.Process(int(server.read_text().splitlines()[0])))
    found = {process.pid: process for root in roots for process in (root, *root.children(recursive=True))}
    return list(found.values())


def _pss_bytes(process: psutil.Process) -> int:
    """Proportional set size; 0 for a process that has just ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
