"""A city from a manifest of crops to a report, with plain function calls.

    python examples/city_from_a_manifest.py

The commands `urban-reid city load`, `models register`, `models use`, `ingest manifest`, `resolve` and `report` do the
same; docs/guides has them one by one. The functions below are what those commands call, without Prefect. Everything is
written to a temporary folder: a database, which is started and stopped here, pictures, models and the report.
"""

import tempfile
from pathlib import Path

import reid_core
from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.scorecard import agreement_by_level
from pipeline.city.units import read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import register_model, use_model
from pipeline.report import write_report
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.levels import Level, level_of
from schemas.settings import Settings
from synthetic.rendered_city import simulate_city, write_city

with tempfile.TemporaryDirectory(prefix="urban-reid-example-") as name:
    folder = Path(name)
    folder.chmod(0o711)  # PostgreSQL does not run as root; as root, its own user has to reach the folder

    # What a deployment has from its cameras: a city file and a manifest. city.yaml lists districts, streets, buildings
    # and cameras, with positions and walking times. manifest.jsonl has one line a crop: picture, camera, time and, if
    # your tracker gives it, the track. Here both are drawn, with the truth beside each crop.
    manifest = write_city(simulate_city(seed=2, cameras=4, people=8, duration_s=600), folder / "input")
    print(manifest.read_text().splitlines()[0])

    settings = Settings(home=folder / "home")
    with Store.open(settings, "example") as store:
        # The city and the model. A model's card brings its calibration: what a distance means at each level.
        store_city(store, read_city_file(manifest.with_name("city.yaml")))
        register_model(store, settings, reid_core.DEMO_MODEL, "demo")
        model = use_model(store, "demo")

        # The whole manifest is checked before anything is written. The same manifest again writes nothing.
        crops = CropStore(settings)
        taken = ingest_manifest(store, crops, manifest, synthetic=True)
        print(f"{taken.written} of {taken.read} crops taken in")

        # From the cameras up: crops become tracklets, these the identities of a building, a street, the district. Each
        # window of a unit is one transaction, so a kill loses nothing and a repeat costs nothing.
        core = open_core(settings, model.directory(settings))
        for unit in units_within(store, "d1"):
            if level_of(unit) is Level.CAMERA:
                embed_camera(store, core, crops, model, unit)
            resolved = resolve_unit(store, core, model, unit, settings=settings.association)
            print(f"{unit:14} {resolved.written} rows")

        # Scored against the truth, since it is known here. Then the report: pages that need no network.
        for level, figures in agreement_by_level(labeled_tracklets(store, "d1", model.id), {}).items():
            print(f"{level:9} pairwise F1 {figures['pairwise_f1']:.3f}, IDF1 {figures['idf1']:.3f}")
        index = write_report(store, crops, "d1", folder / "report")
        print(f"{len(list(index.parent.rglob('*.html')))} pages; open {index.relative_to(folder)} in a browser")
