"""How near windows of five minutes come to one batch: the adjusted Rand index between their identities.

    python benchmarks/batch.py --seed 31 [--cameras 64] [--days 0.5]

The same city is resolved in windows of 300 s and in one window of a day; the batch once with the packaged calibration,
which was learned from windows of 300 s, and once with one learned from batches (cities 9101 and 9102, ten minutes or
more). Beside it: how far each agrees with the truth, and whether it joins what cannot be one person.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from home import home
from sklearn.metrics import adjusted_rand_score

from pipeline.accuracy.labeled import Labeled, labeled_tracklets
from pipeline.calibration.fit import calibrate
from pipeline.resolve import resolve_unit, units_within
from pipeline.simulation import WEIGHTS, score_city, take_in
from pipeline.store import Store
from reid_core.files import read_card, write_card
from reid_core.serving.factory import open_core
from schemas.levels import UPWARD
from schemas.settings import AssociationSettings, Settings
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city

DAY = AssociationSettings(window_s=86_400)


def resolved(plan: EmbeddingCitySettings, association: AssociationSettings, weights: Path) -> tuple[Labeled, str]:
    """The tracklets with what was found and the truth; and a line about it."""
    with home() as folder:
        settings = Settings(home=folder, association=association)
        with Store.open(settings, "benchmark") as store:
            model = take_in(store, embedding_city(plan), weights)
            core = open_core(settings, model.directory(settings))
            for unit in units_within(store, "d1"):
                resolve_unit(store, core, model, unit, settings=association)
            found, scored = labeled_tracklets(store, "d1", model.id), score_city(store, model)
    idf1 = " / ".join(f"{value:.3f}" for value in scored.idf1.values())
    return found, f"IDF1 {idf1}, {scored.violations} violations"


def agreement(one: Labeled, other: Labeled) -> str:
    """Adjusted Rand index at each level."""
    a, b = (np.lexsort((its.start_us, its.camera)) for its in (one, other))
    assert (one.start_us[a] == other.start_us[b]).all(), "both group the same tracklets"
    values = (adjusted_rand_score(one.identity[level][a], other.identity[level][b]) for level in UPWARD[1:])
    return " / ".join(f"{value:.3f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--cameras", type=int, default=64)
    parser.add_argument("--days", type=float, default=0.5)
    asked = parser.parse_args()
    plan = EmbeddingCitySettings(cameras=asked.cameras, days=asked.days, seed=asked.seed)
    windows, said = resolved(plan, AssociationSettings(), WEIGHTS)
    print(f"{len(windows.truth)} tracklets; building / street / district\nwindows of 300 s: {said}")
    batch, said = resolved(plan, DAY, WEIGHTS)
    print(f"one batch: {said}; adjusted Rand index with the windows {agreement(windows, batch)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model"
        shutil.copytree(WEIGHTS, weights)
        fitted = calibrate(Settings(association=DAY), weights, "simulated:9101,9102", lambda _: None)
        write_card(read_card(weights).model_copy(update={"calibration": fitted.levels}), weights)
        batch, said = resolved(plan, DAY, weights)
    print(f"one batch, calibrated on batches: {said}; adjusted Rand index {agreement(windows, batch)}")


if __name__ == "__main__":
    main()
