"""What encryption of pictures costs: ingest, resolve and searches of one city, with and without, in turns.

    python -m benchmarks.encryption [--people 4] [--rounds 15]

Without: pictures are stored and checked by their SHA-256, as version 0.2 did. Each round takes the same crops into an
empty store, resolves them (features first), searches for 10 of the pictures as uploaded ones, and reads all pictures;
then the same the other way, and the next round begins with the other. Printed are, of each step, the medians over the
rounds, in seconds of this process's processor time (which other programs on the machine change little) and of the
clock, and the ratios of the medians.
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
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import ModelRow, register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.search.request import request_search, upload_probe
from pipeline.search.search import search
from pipeline.store import Store
from reid_core import DEMO_MODEL
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.errors import StoreError
from schemas.levels import Level, level_of
from schemas.parameters import SearchParameters
from schemas.settings import Settings
from synthetic.rendered_city import simulate_city, write_city

_SEARCHES = 10
Times = dict[str, tuple[float, float]]  # processor and clock, seconds, by step


class PlainStore(CropStore):
    """Pictures as version 0.2 stored them."""

    def name(self, place: Place, sha256: bytes) -> str:
        return str(self.earlier_path(place, sha256).relative_to(self.root))

    def put(self, place: Place, data: bytes) -> bytes:
        sha256 = hashlib.sha256(data).digest()
        name = self.name(place, sha256)
        with self.errors():
            if self.files.info(name) is None:
                self.files.write(name, data)
        return sha256

    def get(self, place: Place, sha256: bytes) -> bytes:
        data = self.earlier_path(place, sha256).read_bytes()
        if hashlib.sha256(data).digest() != sha256:
            raise StoreError("damaged")
        return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    with home() as folder:
        write_city(simulate_city(1, cameras=8, people=given.people), folder / "city")
        settings = Settings(home=folder / "home", threads=1, device="cpu")
        with Store.open(settings, "benchmark") as store:
            store_city(store, read_city_file(folder / "city" / "city.yaml"))
            register_model(store, settings, DEMO_MODEL, "demo")
            model = use_model(store, "demo")
            core = open_core(settings, model.directory(settings))
            found: dict[str, list[Times]] = {"without": [], "with": []}
            for number in range(given.rounds + 1):
                order: list[tuple[str, type[CropStore]]] = [("without", PlainStore), ("with", CropStore)]
                for name, kind in order if number % 2 == 0 else reversed(order):
                    times = one_round(store, folder / "city", kind(settings), model, core)
                    if number:  # nothing is measured while caches are cold
                        found[name].append(times)
            with store.begin() as connection:
                print(f"{connection.scalar(text('SELECT count(*) FROM crop'))} crops, {given.rounds} rounds")
    for step in found["with"][0]:
        said = []
        for number, of in enumerate(("of the processor's time", "by the clock")):
            without, encrypted = ([one[step][number] for one in found[name]] for name in ("without", "with"))
            with_s, without_s = statistics.median(encrypted), statistics.median(without)
            said.append(f"{with_s / without_s - 1:+.1%} {of} ({with_s:.3f} s with, {without_s:.3f} s without)")
        print(f"{step}: {', '.join(said)}")


def one_round(store: Store, city: Path, crops: CropStore, model: ModelRow, core: ReIDCore) -> Times:
    """The times of each step, from an empty crop store and no crops."""
    shutil.rmtree(crops.root, ignore_errors=True)
    with store.owning() as connection:
        connection.execute(text("TRUNCATE ingest_batch, crop, run, watermark, probe CASCADE"))
    times: Times = {}

    def timed(step: str, work: Callable[[], object]) -> None:
        processor, clock = time.process_time(), time.perf_counter()
        work()
        times[step] = time.process_time() - processor, time.perf_counter() - clock

    def resolve() -> None:
        for code in units_within(store, "d1"):
            if level_of(code) is Level.CAMERA:
                embed_camera(store, core, crops, model, code)
            resolve_unit(store, core, model, code, settings=store.settings.association)

    timed("ingest", lambda: ingest_manifest(store, crops, city / "manifest.jsonl", synthetic=True))
    timed("resolve", resolve)
    with store.begin() as connection:
        rows = connection.execute(text("SELECT camera, captured_at, picture FROM crop ORDER BY key")).all()
    named = [(place_of_crop(row.camera, row.captured_at), bytes(row.picture)) for row in rows]
    pictures = [crops.get(place, picture) for place, picture in named[:_SEARCHES]]

    def searches() -> None:
        for picture in pictures:
            probe = upload_probe(store, crops, picture, "benchmark")
            asked = SearchParameters(unit="d1", probe_id=probe, reason="benchmark", operator="benchmark")
            search(store, lambda _: core, crops, model, request_search(store, model, asked), asked)

    timed("search", searches)
    timed("read", lambda: [crops.get(place, picture) for place, picture in named])
    return times


if __name__ == "__main__":
    main()
