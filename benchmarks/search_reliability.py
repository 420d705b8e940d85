"""Whether the probabilities of a search hold, on cities that its calibration was not learned on.

    python -m benchmarks.search_reliability rendered --seeds 61,62,63,64,65,66
    python -m benchmarks.search_reliability simulated --seeds 51,52 --cameras 100
    python -m benchmarks.search_reliability simulated --seeds 41 --cameras 1000 --people 32000 --days 0.125
    python -m benchmarks.search_reliability manifest --learn DIR --test DIR --model FILE --pairs market1501:DIR

One tracklet of each person is withheld, and all tracklets of a share of the people; the rest is resolved, and a crop of
each withheld tracklet is searched for in its district. Prints, for the ten best hits of each search: the expected
calibration error of all and of those with a probability of 0.05 to 0.95 (15 bins of equal mass), beside those of the
pair calibration's probability, which a hit had before; and the error of "not here". `--curves FILE` writes the curves
as JSON, `--plot FILE` draws them.

rendered: districts of 100 people with pictures, the packaged demo model. simulated: features only, the packaged model.
manifest: folders with city.yaml and manifest.jsonl with truth and tracks. The model's pairs are calibrated on `--pairs`
(unless its card has calibrations), its searches on `--learn`. `--stored`: the probes are crops that lie in the city.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.home import home
from pipeline.association.log_odds import appearance_log_odds, probability
from pipeline.calibration.fit import calibrate
from pipeline.calibration.labeled_city import all_units
from pipeline.calibration.labeled_searches import labeled_searches, resolve_all
from pipeline.calibration.reliability import judge, reliability
from pipeline.calibration.search_fit import LabeledSearch, fit_search, hits_of, posteriors
from pipeline.calibration.withheld import Probe, Withheld
from pipeline.city.units import read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.features import take_in_features
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import ModelRow, insert_calibration, register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit
from pipeline.resolve.calibrations import current_calibrations
from pipeline.simulation import WEIGHTS
from pipeline.store import Store
from pipeline.store.copy import copy_out
from reid_core import DEMO_MODEL
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.calibration import Judgment, LevelCalibration, Reliability, SearchCalibration
from schemas.levels import Level, level_of
from schemas.settings import Settings
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city
from synthetic.rendered_city import simulate_city, write_city

HITS = 10

#: Fills a store and returns its model.
Fill = Callable[[Store, Withheld], ModelRow]


@dataclasses.dataclass
class Figures:
    """What searches stated, and whether it was so."""

    searches: int = 0
    there: int = 0
    identities: int = 0
    hits: list[tuple[float, bool]] = dataclasses.field(default_factory=list)
    before: list[tuple[float, bool]] = dataclasses.field(default_factory=list)
    not_here: list[tuple[float, bool]] = dataclasses.field(default_factory=list)

    def add(self, search: LabeledSearch, calibration: SearchCalibration, pairs: LevelCalibration | None) -> None:
        found, absent = posteriors(calibration, search)
        self.hits += hits_of(search, found)
        if pairs is not None:
            nearest = np.argsort(np.where(search.exact, search.distance, np.inf), kind="stable")[:HITS]
            odds = [appearance_log_odds(pairs.terms, distance) for distance in search.distance[nearest].tolist()]
            self.before += zip(map(probability, odds), search.same[nearest].tolist(), strict=True)
        self.not_here.append((absent, not search.same.any()))
        self.searches, self.there = self.searches + 1, self.there + bool(search.same.any())
        self.identities += len(search.distance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["rendered", "simulated", "manifest"])
    parser.add_argument("--seeds", default="61", help="of the cities")
    parser.add_argument("--cameras", type=int, default=100)
    parser.add_argument("--people", type=int)
    parser.add_argument("--days", type=float, default=1.0)
    parser.add_argument("--absent", type=float, default=0.25, help="share of the people who are not there")
    parser.add_argument("--probes", type=int, default=400, help="most searches in each city")
    parser.add_argument("--learn", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--pairs", help="data to calibrate the model's pairs on, such as market1501:DIR")
    parser.add_argument("--stored", action="store_true", help="search for crops that lie in the city")
    parser.add_argument("--curves", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    figures = Figures()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if arguments.kind == "manifest":
        levels = calibrated(arguments.model, arguments.pairs) if arguments.pairs else ()
        calibration = learn(arguments.learn, arguments.model, levels, arguments.probes)
        fills: list[Fill] = [
            lambda store, withheld: from_manifest(store, withheld, arguments.test, arguments.model, levels)
        ]
    elif arguments.kind == "rendered":
        calibration = None
        fills = [lambda store, withheld, seed=seed: rendered(store, withheld, seed) for seed in seeds]  # type: ignore[misc]
    else:
        calibration = None
        plans = [
            EmbeddingCitySettings(cameras=arguments.cameras, people=arguments.people, days=arguments.days, seed=seed)
            for seed in seeds
        ]
        fills = [lambda store, withheld, plan=plan: simulated(store, withheld, plan) for plan in plans]  # type: ignore[misc]
    for fill in fills:
        with filled(fill, arguments.absent) as (store, core, model, withheld):
            if arguments.stored:
                withheld.probes[:] = stored_probes(store, model)
            chosen = evenly(withheld.probes, arguments.probes)
            stated = calibration or next(c for c in model.card.search_calibration if c.level is Level.DISTRICT)
            with store.begin() as connection:
                pairs = current_calibrations(connection, model.id).get(Level.DISTRICT)
            for search in searches(store, core, model, withheld, chosen):
                figures.add(search, stated, pairs)
        print(f"{figures.searches} searches done", flush=True)
    table(figures)
    curves = {name: curve.model_dump() for name, curve in reliabilities(figures).items()}
    if arguments.curves:
        arguments.curves.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        draw(reliabilities(figures), arguments.plot)


@contextmanager
def filled(fill: Fill, absent: float) -> Iterator[tuple[Store, ReIDCore, ModelRow, Withheld]]:
    """A resolved city without the withheld tracklets."""
    with home() as folder, Store.open(Settings(home=folder), "benchmark") as store:
        withheld = Withheld(absent_share=absent)
        model = fill(store, withheld)
        core = open_core(store.settings, model.directory(store.settings))
        crops = CropStore(store.settings)
        for unit in all_units(store):
            if level_of(unit) is Level.CAMERA:
                embed_camera(store, core, crops, model, unit)
                resolve_unit(store, core, model, unit, settings=store.settings.association)
        resolve_all(store, core, model)
        yield store, core, model, withheld


def evenly(probes: Sequence[Probe], most: int) -> list[int]:
    """Rows of at most `most` probes, half of them of people who are there if there are enough."""
    there = [row for row, probe in enumerate(probes) if probe.there]
    gone = [row for row, probe in enumerate(probes) if not probe.there]
    half = most // 2
    return sorted([*there[: max(half, most - len(gone))], *gone[: max(half, most - len(there))]])


def searches(
    store: Store, core: ReIDCore, model: ModelRow, withheld: Withheld, chosen: Sequence[int]
) -> list[LabeledSearch]:
    probes = [withheld.probes[row] for row in chosen]
    features = Withheld(probes=probes).features(core)
    return labeled_searches(store, core, model, Level.DISTRICT, probes, features)


def learn(folder: Path, model: Path, levels: Sequence[LevelCalibration], most: int) -> SearchCalibration:
    """The district's calibration from a labeled manifest."""

    def fill(store: Store, withheld: Withheld) -> ModelRow:
        return from_manifest(store, withheld, folder, model, levels)

    with filled(fill, 0.0) as (store, core, row, held):
        found = fit_search(Level.DISTRICT, searches(store, core, row, held, evenly(held.probes, 2 * most)), folder.name)
    assert found is not None, "too few people to learn from"
    return found


def rendered(store: Store, withheld: Withheld, seed: int) -> ModelRow:
    folder = store.settings.home / "rendered"
    write_city(simulate_city(seed, people=100), folder)
    return from_manifest(store, withheld, folder, DEMO_MODEL)


def calibrated(model: Path, source: str) -> tuple[LevelCalibration, ...]:
    """The calibrations of the model's pairs on labeled data."""
    with home() as folder, Store.open(Settings(home=folder), "benchmark") as store:
        row = registered(store, model)
        return calibrate(store.settings, row.directory(store.settings), source).levels


def stored_probes(store: Store, model: ModelRow) -> list[Probe]:
    """One stored crop of each person."""
    query = (
        "SELECT DISTINCT ON (t.truth) t.truth, c.camera, e.v FROM crop c JOIN crop_truth t ON t.crop_id = c.id "
        "JOIN crop_embedding e ON e.crop_id = c.id AND e.model_id = :model ORDER BY t.truth, c.key"
    )
    with store.begin() as connection:
        rows = copy_out(
            connection, query, {"model": model.features_id}, {"truth": "text", "camera": "text", "v": "halfvec"}
        )
    features = np.asarray(rows["v"], np.float64)
    return [
        Probe(person, camera, None, True, feature, None)
        for person, camera, feature in zip(rows["truth"], rows["camera"], features, strict=True)
    ]


def from_manifest(
    store: Store, withheld: Withheld, folder: Path, model: Path, levels: Sequence[LevelCalibration] = ()
) -> ModelRow:
    store_city(store, read_city_file(folder / "city.yaml"))
    manifest = folder / "manifest.jsonl"
    whole = manifest.read_bytes()
    try:
        withheld.from_manifest(manifest)
        ingest_manifest(store, CropStore(store.settings), manifest, synthetic=True)
    finally:
        manifest.write_bytes(whole)
    row = registered(store, model)
    with store.begin() as connection:
        for level in levels:
            insert_calibration(connection, row.id, level)
    return row


def simulated(store: Store, withheld: Withheld, plan: EmbeddingCitySettings) -> ModelRow:
    city = embedding_city(plan)
    model = registered(store, WEIGHTS)
    store_city(store, city.city)
    for batch in city.batches():
        take_in_features(store, model, city.camera_codes, withheld.from_batch(batch, city.camera_codes, "p"))
    return model


def registered(store: Store, model: Path) -> ModelRow:
    register_model(store, store.settings, model, "judged")
    return use_model(store, "judged")


def reliabilities(figures: Figures) -> dict[str, Reliability]:
    found: dict[str, Reliability] = {}
    for name, column in (("before", figures.before), ("after", figures.hits)):
        if column:
            judged = judgment(column)
            found |= {f"hits, {name}": judged.shortlist, f"middle, {name}": judged.middle}
    stated, right = map(np.array, zip(*figures.not_here, strict=True))
    return found | {"not here": reliability(stated, right)}


def judgment(column: Sequence[tuple[float, bool]]) -> Judgment:
    stated, right = map(np.array, zip(*column, strict=True))
    return judge(stated, right)


def table(figures: Figures) -> None:
    mean = figures.identities / max(figures.searches, 1)
    gone = figures.searches - figures.there
    print(
        f"{figures.searches} searches, {figures.there} for people who are there, {gone} for people who are not; "
        f"{mean:.0f} identities compared"
    )
    print("| | calibration error | of | stated, mean | observed |")
    print("|---|---|---|---|---|")
    for name, curve in reliabilities(figures).items():
        counts = np.array(curve.counts)
        stated, observed = (
            float(np.average(values, weights=counts)) if len(counts) else 0.0
            for values in (curve.predicted, curve.observed)
        )
        print(f"| {name} | {curve.ece:.3f} | {curve.pairs} | {stated:.3f} | {observed:.3f} |")
    for name, column in (("before", figures.before), ("after", figures.hits)):
        sure = [right for stated, right in column if stated > 0.95]
        share = f"{np.mean(sure):.1%} of them right" if sure else "none"
        print(f"{name}: {len(sure)} hits above 0.95, {share}")


def draw(curves: dict[str, Reliability], file: Path) -> None:
    """The curves as a picture: stated probability over observed share."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.2, 4.2))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    shown: dict[str, Any] = {"hits, before": "C3", "hits, after": "C0", "not here": "C2"}
    for name, color in shown.items():
        if name in curves:
            axes.plot(curves[name].predicted, curves[name].observed, "o-", color=color, markersize=3, label=name)
    axes.set(xlabel="probability stated", ylabel="share observed", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
