"""What encryption of pictures costs: ingest, embedding and search of one city, with and without, in turns.

    python -m benchmarks.encryption [--people 12] [--rounds 5]

Without: pictures are stored and checked by their SHA-256, as version 0.2 did. Each round takes the same crops into an
empty crop store, embeds them, embeds 20 of them again as probes of searches, and reads all pictures; the next round
does it the other way first. Printed are the medians of the rounds, in seconds of this process's processor time (which
other programs on the machine change little) and of the clock, and the medians of the rounds' ratios.
"""

import argparse
import hashlib
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from benchmarks.home import home
from pipeline.city.units import read_city_file, store_city
from pipeline.crops.crop_store import CropStore, Place, place_of_crop
from pipeline.crops.quality import decode
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import register_model, use_model
from pipeline.resolve import embed_camera, units_within
from pipeline.store import Store
from reid_core import DEMO_MODEL
from reid_core.preprocessing import prepare
from reid_core.serving.factory import open_core
from schemas.errors import StoreError
from schemas.settings import Settings
from synthetic.rendered_city import simulate_city, write_city

_SEARCHES = 20
Times = dict[str, tuple[float, float]]  # processor and clock, seconds, by step


class PlainStore(CropStore):
    """Pictures as version 0.2 stored them."""

    def path(self, place: Place, sha256: bytes) -> Path:
        return self.earlier_path(place, sha256)

    def put(self, place: Place, data: bytes) -> bytes:
        sha256 = hashlib.sha256(data).digest()
        path = self.earlier_path(place, sha256)
        with self.errors():
            if not path.exists():
                self._write(path, data)
        return sha256

    def get(self, place: Place, sha256: bytes) -> bytes:
        data = self.earlier_path(place, sha256).read_bytes()
        if hashlib.sha256(data).digest() != sha256:
            raise StoreError("damaged")
        return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with home() as folder:
        write_city(simulate_city(1, cameras=8, people=given.people), folder / "city")
        settings = Settings(home=folder / "home", threads=1, device="cpu")
        with Store.open(settings, "benchmark") as store:
            store_city(store, read_city_file(folder / "city" / "city.yaml"))
            register_model(store, settings, DEMO_MODEL, "demo")
            use_model(store, "demo")
            one_round(store, folder / "city", CropStore(settings))  # nothing is measured while caches are cold
            found: dict[str, list[Times]] = {"without": [], "with": []}
            for number in range(given.rounds):
                order: list[tuple[str, type[CropStore]]] = [("without", PlainStore), ("with", CropStore)]
                for name, kind in order if number % 2 == 0 else reversed(order):
                    found[name].append(one_round(store, folder / "city", kind(settings)))
            with store.begin() as connection:
                print(f"{connection.scalar(text('SELECT count(*) FROM crop'))} crops, {given.rounds} rounds")
    print(f"{'step':<10} {'unit':<10} {'without':>9} {'with':>9} {'ratio':>7}")
    for step in found["with"][0]:
        for kind_of_time, unit in enumerate(("processor", "clock")):
            without, encrypted = ([one[step][kind_of_time] for one in found[name]] for name in ("without", "with"))
            ratio = statistics.median(b / a for a, b in zip(without, encrypted, strict=True))
            print(
                f"{step:<10} {unit:<10} {statistics.median(without):>9.4f} {statistics.median(encrypted):>9.4f} "
                f"{ratio:>7.3f}"
            )


def one_round(store: Store, city: Path, crops: CropStore) -> Times:
    """The times of each step, from an empty crop store and no crops."""
    shutil.rmtree(crops.root, ignore_errors=True)
    with store.begin() as connection:
        connection.execute(text("DELETE FROM crop_embedding"))
        connection.execute(text("UPDATE crop SET withdrawn_at = now()"))  # they come back with the next ingest
    model = use_model(store, "demo")
    core = open_core(store.settings, model.directory(store.settings))
    times: Times = {}

    def timed(step: str, work: Callable[[], object]) -> None:
        processor, clock = time.process_time(), time.perf_counter()
        work()
        times[step] = time.process_time() - processor, time.perf_counter() - clock

    timed("ingest", lambda: ingest_manifest(store, crops, city / "manifest.jsonl"))
    cameras = [code for code in units_within(store, "d1") if code.count("/") == 3]
    timed("embed", lambda: [embed_camera(store, core, crops, model, code) for code in cameras])
    with store.begin() as connection:
        rows = connection.execute(text("SELECT camera, captured_at, picture FROM crop ORDER BY id")).all()
    named = [(place_of_crop(row.camera, row.captured_at), bytes(row.picture)) for row in rows]

    def search() -> None:
        for place, picture in named[:_SEARCHES]:
            core.embed(prepare(decode(crops.get(place, picture)), core.card.input)[None])

    timed("probes", search)
    timed("reads", lambda: [crops.get(place, picture) for place, picture in named])
    return times


if __name__ == "__main__":
    main()
