"""An embedding-level city in the store: taken in, resolved in processes, scored, and the baselines beside it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import reid_core
from pipeline.accuracy.baselines import BASELINES, Passages
from pipeline.accuracy.labeled import Labeled, labeled_tracklets
from pipeline.accuracy.metrics import Pairwise, idf1, pairwise
from pipeline.accuracy.scorecard import reviews, violations
from pipeline.association.geometry import Geometry, geometry
from pipeline.city.units import find_city, read_city, store_city
from pipeline.ingest.features import take_in_features
from pipeline.registry import ModelRow, models, register_model, use_model
from pipeline.store import Store
from schemas.arrays import Ints
from schemas.errors import HomeError
from schemas.levels import UPWARD, Level
from synthetic.embedding_city import EmbeddingCity

MODEL = "simulated"
#: The packaged model whose features simulated cities have; made by `python -m scripts.calibrate_simulated`.
WEIGHTS = Path(reid_core.__file__).parent / "weights" / MODEL

Progress = Callable[[int, int], None]


def take_in(
    store: Store, simulated: EmbeddingCity, weights: Path = WEIGHTS, progress: Progress | None = None
) -> ModelRow:
    """Stores the city, its model and all crops; a home that holds this very city already is left as it is.

    `progress` hears of (people done, people in all). Raises HomeError for a home that holds another city, or only a
    part of this one.
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
    codes = simulated.camera_codes
    for batch in simulated.batches(progress):
        take_in_features(store, model, codes, batch)
    marker.write_text(repr(simulated.settings), encoding="utf-8")
    return model


@dataclass(frozen=True)
class Scored:
    """Of all districts together: tracklets, then per level what was found and how far the baselines come."""

    tracklets: int
    idf1: Mapping[str, float]
    pairwise_f1: Mapping[str, float]
    violations: int
    reviews: Mapping[str, int]
    baselines: Mapping[str, Mapping[str, Any]]

    def said(self) -> dict[str, Any]:
        return dict(vars(self))


def score_city(
    store: Store,
    model: ModelRow,
    baselines: Sequence[str] = (),
    on_step: Callable[[str], None] = lambda _: None,
) -> Scored:
    """Every level against the truth, over all districts; and the named baselines, flat over each district.

    The baselines' thresholds are those that the model's card carries: found on other cities, as ours were.
    """
    city = read_city(store)
    districts = [unit.code for unit in city.units if unit.level is Level.DISTRICT]
    thresholds = model.card.details.get("baseline_thresholds", {})
    levels = UPWARD[1:]
    found: dict[str, list[dict[Level, _Counted]]] = {"ours": [], **{name: [] for name in baselines}}
    seconds = dict.fromkeys(baselines, 0.0)
    tracklets = forbidden = 0
    asked = dict.fromkeys((level.value for level in levels), 0)
    for district in districts:
        labeled = labeled_tracklets(store, district, model.id)
        world = geometry(city, district, store.settings.association)
        tracklets += len(labeled.truth)
        forbidden += violations(labeled, Level.DISTRICT, world)
        with store.begin() as connection:
            for level in levels:
                asked[level.value] += reviews(connection, district, level)
        found["ours"].append({level: _counted(labeled.identity[level], labeled, level) for level in levels})
        on_step(f"{district}: scored")
        passages = passages_of(labeled, world)
        for name in baselines:
            began = time.perf_counter()
            groups = BASELINES[name].prepare(passages)(*thresholds[name])
            seconds[name] += time.perf_counter() - began
            found[name].append({level: _counted(groups, labeled, level) for level in levels})
            on_step(f"{district}: {name}")
    tables = {name: _means(its, levels) for name, its in found.items()}
    ours = tables.pop("ours")
    return Scored(
        tracklets=tracklets,
        idf1=ours["idf1"],
        pairwise_f1=ours["pairwise_f1"],
        violations=forbidden,
        reviews=asked,
        baselines={name: {**tables[name], "seconds": round(seconds[name], 2)} for name in baselines},
    )


def passages_of(labeled: Labeled, world: Geometry) -> Passages:
    """The same features and the same gates for the baselines."""
    return Passages(
        labeled.mean.astype(np.float32),
        labeled.camera,
        labeled.start_us,
        labeled.end_us,
        world.slack,
    )


#: Pairs, IDF1, and the crops that it is of.
_Counted = tuple[Pairwise, float, int]


def _counted(groups: Ints, labeled: Labeled, level: Level) -> _Counted:
    unit = labeled.unit(level)
    found, truth = labeled.of_task(level, groups), labeled.of_task(level, labeled.truth)
    return pairwise(found, truth, unit), idf1(found, truth, unit, labeled.crops), int(labeled.crops.sum())


def _means(districts: Sequence[Mapping[Level, _Counted]], levels: Sequence[Level]) -> dict[str, Any]:
    idf: dict[str, float] = {}
    f1: dict[str, float] = {}
    for level in levels:
        its = [district[level] for district in districts]
        f1[level.value] = round(sum((pairs for pairs, _, _ in its), Pairwise(0, 0, 0)).f1, 4)
        crops = sum(many for _, _, many in its)
        idf[level.value] = round(sum(value * many for _, value, many in its) / max(crops, 1), 4)
    return {"idf1": idf, "pairwise_f1": f1}


class PeakMemory:
    """The most memory that this process, its children and the embedded server held at once, MB."""

    def __init__(self) -> None:
        self.mb = 0.0


@contextmanager
def peak_memory(store: Store, every_s: float = 0.5) -> Iterator[PeakMemory]:
    """Looks at it all the while; shared pages count once (proportional set size)."""
    found, done = PeakMemory(), threading.Event()

    def look() -> None:
        while True:
            found.mb = max(found.mb, sum(map(_pss, _family(store))) / 2**20)
            if done.wait(every_s):
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def _family(store: Store) -> list[psutil.Process]:
    """This process, the embedded server, and the children of both."""
    roots = [psutil.Process()]
    server = store.settings.home / "postgres" / "postmaster.pid"
    with suppress(OSError, ValueError, psutil.Error):
        roots.append(psutil.Process(int(server.read_text().splitlines()[0])))
    found = {process.pid: process for root in roots for process in (root, *root.children(recursive=True))}
    return list(found.values())


def _pss(process: psutil.Process) -> int:
    """Bytes; 0 of a process that has just ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
