"""Windows of five minutes against one batch: the adjusted Rand index between their identities.

    python -m benchmarks.batch --seed 31 [--cameras 64] [--days 0.5]

Resolves the same city in windows of 300 s and in one window of a day. The batch is resolved once with the packaged
calibration, which was fitted on windows of 300 s, and once with a calibration fitted on batches (cities 9101 and 9102,
ten minutes or more). Also prints the agreement of each with the truth, and its impossible pairs.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from benchmarks.home import home
from pipeline.accuracy.labeled import Labeled, labeled_tracklets
from pipeline.calibration.fit import calibrate
from pipeline.resolve import resolve_unit, units_within
from pipeline.simulation import WEIGHTS, ingest_simulated, score_city
from pipeline.store import Store
from reid_core.files import read_card, write_card
from reid_core.serving.factory import open_core
from schemas.levels import UPWARD
from schemas.settings import AssociationSettings, Settings
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city

DAY = AssociationSettings(window_s=86_400)


def resolved(plan: EmbeddingCitySettings, association: AssociationSettings, weights: Path) -> tuple[Labeled, str]:
    """The tracklets with their identities and truth, and a line of scores."""
    with home() as folder:
        settings = Settings(home=folder, association=association)
        with Store.open(settings, "benchmark") as store:
            model = ingest_simulated(store, embedding_city(plan), weights)
            core = open_core(settings, model.directory(settings))
            for unit in units_within(store, "d1"):
                resolve_unit(store, core, model, unit, settings=association)
            labeled, score = labeled_tracklets(store, "d1", model.id), score_city(store, model)
    idf1 = " / ".join(f"{value:.3f}" for value in score.idf1.values())
    return labeled, f"IDF1 {idf1}, {score.violations} violations"


def agreement(one: Labeled, other: Labeled) -> str:
    """Adjusted Rand index at each level."""
    a, b = (np.lexsort((labeled.start_us, labeled.camera)) for labeled in (one, other))
    assert (one.start_us[a] == other.start_us[b]).all(), "both must group the same tracklets"
    values = (adjusted_rand_score(one.identity[level][a], other.identity[level][b]) for level in UPWARD[1:])
    return " / ".join(f"{value:.3f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--cameras", type=int, default=64)
    parser.add_argument("--days", type=float, default=0.5)
    arguments = parser.parse_args()
    plan = EmbeddingCitySettings(cameras=arguments.cameras, days=arguments.days, seed=arguments.seed)
    windows, scores = resolved(plan, AssociationSettings(), WEIGHTS)
    print(f"{len(windows.truth)} tracklets; building / street / district\nwindows of 300 s: {scores}")
    batch, scores = resolved(plan, DAY, WEIGHTS)
    print(f"one batch: {scores}; adjusted Rand index with the windows {agreement(windows, batch)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model"
        shutil.copytree(WEIGHTS, weights)
        fitted = calibrate(Settings(association=DAY), weights, "simulated:9101,9102")
        write_card(read_card(weights).model_copy(update={"calibration": fitted.levels}), weights)
        batch, scores = resolved(plan, DAY, weights)
    print(f"one batch, calibrated on batches: {scores}; adjusted Rand index {agreement(windows, batch)}")


if __name__ == "__main__":
    main()
