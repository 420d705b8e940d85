"""The demo city over several seeds: F1 and IDF1 at each level, beside the nearest-neighbor baseline.

    python -m benchmarks.seeds [--seeds 1-10]

Each seed is a city in a data directory of its own, resolved without Prefect by the packaged model and its calibration.
The baseline's thresholds come from the calibration cities.
"""

import argparse

import numpy as np

import reid_core
from benchmarks.home import home
from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.scorecard import agreement_by_level
from pipeline.city.units import read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.settings import Settings
from synthetic.rendered_city import simulate_city, write_city

COLUMNS = ("pairwise_f1", "precision", "recall", "idf1", "nearest_neighbor_f1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1-10", help="such as 1-10")
    first, _, last = parser.parse_args().seeds.partition("-")
    rows = []
    print(f"{'seed':>4} {'tracklets':>9}  " + "  ".join(f"{level:^29}" for level in ("building", "street", "district")))
    print(" " * 16 + "  ".join("   F1     P     R  IDF1    NN" for _ in range(3)))
    for seed in range(int(first), int(last or first) + 1):
        tracklets, found = one_city(seed)
        rows.append(found)
        print(
            f"{seed:>4} {tracklets:>9}  " + "  ".join(" ".join(f"{v:5.3f}" for v in level) for level in found),
            flush=True,
        )
    if len(rows) == 1:
        return
    for name, value in (("mean", np.mean(rows, axis=0)), ("std", np.std(rows, axis=0, ddof=1))):
        print(f"{name:>4} {'':>9}  " + "  ".join(" ".join(f"{v:5.3f}" for v in level) for level in value))


def one_city(seed: int) -> tuple[int, list[list[float]]]:
    """Number of tracklets, and the figures of COLUMNS for each level."""
    model_folder = reid_core.DEMO_MODEL
    with home() as folder:
        settings = Settings(home=folder)
        with Store.open(settings) as store:
            manifest = write_city(simulate_city(seed), folder / "input")
            store_city(store, read_city_file(manifest.with_name("city.yaml")))
            crops = CropStore(settings)
            ingest_manifest(store, crops, manifest, synthetic=True)
            register_model(store, settings, model_folder, "demo")
            model = use_model(store, "demo")
            core = open_core(settings, model.directory(settings))
            for unit in units_within(store, "d1"):
                if unit.count("/") == 3:
                    embed_camera(store, core, crops, model, unit)
                resolve_unit(store, core, model, unit, settings=settings.association)
            labeled = labeled_tracklets(store, "d1", model.id)
            found = agreement_by_level(labeled, model.card.details["nearest_neighbor_distance"])
            return len(labeled.key), [[level[name] for name in COLUMNS] for level in found.values()]


if __name__ == "__main__":
    main()
