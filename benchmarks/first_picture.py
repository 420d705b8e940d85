"""Time of a search in the console, from the request to the first picture of the answer, in a large city.

    python -m benchmarks.first_picture [--people 100000] [--searches 20] [--home DIR]

Fills a home (`benchmarks.filled_city`) and gives each identity of every level its vectors, those of a district a mean
and one for each passage. The console and the search process serve it as under `urban-reid up`, each in a process of its
own, warm after two searches that are not counted. A search sends a picture, or begins with a stored crop, whose time
and place count too; it ends when the answer's first picture is there. Beside the time, which other programs of the
machine lengthen, stands the processor time of the console, of the search process and of Postgres for one search.
`--home`: keeps the home, and takes it as it is if it is filled.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import httpx
import numpy as np
import psutil

from benchmarks.console import Processor, served
from benchmarks.filled_city import DAY, fill, is_filled, tell_size
from benchmarks.home import home
from pipeline.registry import ModelRow, model_in_use
from pipeline.search.client import socket_path
from pipeline.store import Store
from pipeline.store.copy import Columns, copy_in
from pipeline.store.partitions import ensure_partitions
from schemas.arrays import Ints, Singles
from schemas.settings import Settings

_PASSAGES, _CROPS = 3, 2
_AT_ONCE = 50_000
#: A token may search once in two seconds.
_PAUSE_S = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--home", type=Path)
    arguments = parser.parse_args()
    with home(arguments.home) as path, Store.open(Settings(home=path, database_url=None), "benchmark") as store:
        if not is_filled(store):
            fill(store, arguments.people, _PASSAGES, _CROPS)
            add_vectors(store, arguments.people)
        tell_size(store)
        with searching(path) as search, served(path) as (client, processor):
            print(f"\n{'ms':28} {'page':>11} {'picture':>11} {'console':>8} {'search':>8} {'Postgres':>8}", flush=True)
            key = re.findall(r'name="form_key" value="(\w+)"', client.get("/search").text)[0]
            form = {"unit": "d1", "reason": "a benchmark", "form_key": key}
            crops = re.findall(r'like=([^"&]+)', client.get(person(store)).text)
            for name, ask in {
                "a picture that is sent": lambda number: client.post(
                    "/search", data=form, files={"upload": ("person.png", picture(number))}
                ),
                "a stored crop": lambda number: client.post(
                    "/search", data=form | {"like": crops[number % len(crops)]}
                ),
            }.items():
                tell(name, client, ask, processor, search, arguments.searches)


def add_vectors(store: Store, people: int) -> None:
    """Vectors of all crops and identities, by numbers that `filled_city` gave them."""
    with store.begin() as connection:
        model = model_in_use(connection)
    rng, began = np.random.default_rng(1), time.perf_counter()
    block = people * _PASSAGES
    with store.owning() as connection:
        for family in ("crop_embedding", "prototype"):
            ensure_partitions(connection, family, model.id, [DAY.date()])
    for start in range(0, people, _AT_ONCE // _PASSAGES):
        p = np.arange(start, min(start + _AT_ONCE // _PASSAGES, people))
        of_person = rng.standard_normal((len(p), 1, model.card.dims), np.float32)
        v = np.float32(0.5) * rng.standard_normal((len(p), _PASSAGES, model.card.dims), np.float32) + of_person
        passages = (p[:, None] * _PASSAGES + np.arange(_PASSAGES)).ravel()
        flat = v.reshape(-1, model.card.dims)
        crops = (passages[:, None] * _CROPS + np.arange(_CROPS) + 1).ravel()
        _write(store, model, "crop_embedding", {"crop_id": ("int8", crops)}, np.repeat(flat, _CROPS, axis=0))
        for depth in range(3):
            _write_prototypes(store, model, depth * block + passages + 1, np.zeros(len(passages), np.int64), flat)
        of_district = np.concatenate([v.mean(axis=1, keepdims=True), v], axis=1)
        ordinals = np.tile(np.arange(_PASSAGES + 1), len(p))
        ids = np.repeat(3 * block + p * _PASSAGES + _PASSAGES, _PASSAGES + 1)
        _write_prototypes(store, model, ids, ordinals, of_district.reshape(-1, model.card.dims))
    with store.owning() as connection:
        connection.exec_driver_sql("ANALYZE prototype, crop_embedding")
    print(f"vectors in {time.perf_counter() - began:.0f} s", flush=True)


def _write_prototypes(store: Store, model: ModelRow, ids: Ints, ordinals: Ints, v: Singles) -> None:
    columns: Columns = {
        "identity_id": ("int8", ids),
        "ordinal": ("int2", ordinals),
        "kind": ("enum", ["medoid" if one else "mean" for one in ordinals.tolist()]),
        "weight": ("float4", np.ones(len(ids))),
    }
    _write(store, model, "prototype", columns, v)


def _write(store: Store, model: ModelRow, table: str, columns: Columns, v: Singles) -> None:
    of_all: Columns = {"model_id": ("int4", np.full(len(v), model.id)), "day": ("date", [DAY.date()] * len(v))}
    with store.begin() as connection:
        copy_in(connection, table, {**of_all, **columns, "v": ("halfvec", v)})


def person(store: Store) -> str:
    with store.owning() as connection:
        found = connection.exec_driver_sql(
            "SELECT persistent_id FROM identity WHERE unit = 'd1' ORDER BY id DESC LIMIT 1"
        )
        return f"/person/{found.scalar_one()}"


def picture(number: int) -> bytes:
    """Some picture: what it shows makes no difference to the time."""
    pixels = np.random.default_rng(number).integers(0, 255, (32, 16, 3), np.uint8)
    return bytes(cv2.imencode(".png", cv2.resize(pixels, (128, 256)))[1].tobytes())


@contextmanager
def searching(home: Path) -> Iterator[psutil.Process]:
    """The search process."""
    command = [sys.executable, "-P", "-m", "pipeline.search.service"]
    with subprocess.Popen(command, env=os.environ | {"URBAN_REID_HOME": str(home)}) as process:
        try:
            while not socket_path(Settings(home=home)).exists():
                time.sleep(0.2)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def tell(
    name: str,
    client: httpx.Client,
    ask: Callable[[int], httpx.Response],
    processor: Processor,
    search: psutil.Process,
    searches: int,
) -> None:
    """Prints p50 / p95 until the page and until its first picture, and the processor time of a search."""
    pages, pictures, spent = [], [], []
    for number in range(-2, searches):
        time.sleep(_PAUSE_S)
        before, own = processor.now(), search.cpu_times()
        began = time.perf_counter()
        page = ask(number + 2)
        answered = time.perf_counter()
        first = next(one for one in re.findall(r'class="face" src="([^"]+)"', page.raise_for_status().text))
        client.get(first).raise_for_status()
        shown = time.perf_counter()
        if number < 0:
            continue
        now = search.cpu_times()
        _, console, postgres = processor.since(before)
        pages.append(answered - began)
        pictures.append(shown - began)
        spent.append((console, now.user + now.system - own.user - own.system, postgres))
    times = [
        f"{statistics.median(all_) * 1000:.0f} / {np.percentile(all_, 95) * 1000:.0f}" for all_ in (pages, pictures)
    ]
    mean = [f"{statistics.mean(one) * 1000:8.0f}" for one in zip(*spent, strict=True)]
    print(f"{name:28} {times[0]:>11} {times[1]:>11} {' '.join(mean)}", flush=True)


if __name__ == "__main__":
    main()
