"""Times of the console's pages in a large city, through its own server on loopback.

    python -m benchmarks.console [--people 100000] [--passages 10] [--crops 10] [--visits 30] [--home DIR]

Fills a home (`benchmarks.filled_city`: 10 million crops unless told otherwise) and serves its console in a process of
its own. Each page is asked for so many times, one after another, by a signed-in visitor of an open home, and by twenty
visitors at once. Beside the time, which other programs of the machine lengthen, stands the processor time of the
console and of Postgres for one page. `--home`: keeps the home, and takes it as it is if it is filled.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.filled_city import fill, is_filled, tell_size
from benchmarks.home import home
from pipeline.store import Store
from schemas.settings import Settings

_AT_ONCE = 20
_SOME = "SELECT persistent_id::text, last_seen, id FROM identity WHERE unit = 'd1' ORDER BY persistent_id LIMIT 500"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--passages", type=int, default=10, help="of each person")
    parser.add_argument("--crops", type=int, default=10, help="of each passage")
    parser.add_argument("--visits", type=int, default=30)
    parser.add_argument("--home", type=Path)
    arguments = parser.parse_args()
    with home(arguments.home) as path, Store.open(Settings(home=path, database_url=None), "benchmark") as store:
        if not is_filled(store):
            fill(store, arguments.people, arguments.passages, arguments.crops)
        tell_size(store)
        with served(path) as (client, processor), ThreadPoolExecutor(_AT_ONCE) as visitors:
            before = processor.now()
            while "is being counted" in client.get("/").text:
                time.sleep(1)
            wall, console, postgres = processor.since(before)
            print(f"counted beside the pages in {wall:.1f} s, processor {console:.1f} s and Postgres {postgres:.1f} s")
            asked = pages(store, client)
            print(f"\n{'ms':38} {'p50':>6} {'p95':>6} {'console':>9} {'Postgres':>9}", flush=True)
            for name, ask in asked:
                ask()
                before = processor.now()
                seconds = [timed(ask) for _ in range(arguments.visits)]
                spent = processor.since(before)
                tell(name, seconds, [one / arguments.visits for one in spent[1:]])
            print(f"\n{_AT_ONCE} at once", flush=True)
            for name, ask in asked:
                before = processor.now()
                waiting = [visitors.submit(timed, ask) for _ in range(5 * _AT_ONCE)]
                seconds = [one.result() for one in waiting]
                tell(name, seconds, [one / len(seconds) for one in processor.since(before)[1:]])


class Processor:
    """Processor time of a console and of its home's Postgres, seconds."""

    def __init__(self, console: int, home: Path) -> None:
        self._console = psutil.Process(console)
        self._postgres = psutil.Process(int((home / "postgres" / "postmaster.pid").read_text().split()[0]))

    def now(self) -> tuple[float, float, float]:
        """Of a clock, of the console, and of Postgres with all its processes, those that ended too."""
        console, postgres = self._console.cpu_times(), self._postgres.cpu_times()
        backends = [one.cpu_times() for one in self._postgres.children()]
        spent = sum(one.user + one.system for one in [postgres, *backends])
        ended = postgres.children_user + postgres.children_system
        return time.perf_counter(), console.user + console.system, spent + ended

    def since(self, before: tuple[float, float, float]) -> list[float]:
        return [now - then for now, then in zip(self.now(), before, strict=True)]


@contextmanager
def served(home: Path) -> Iterator[tuple[httpx.Client, Processor]]:
    """The console on loopback, and a browser that is signed in."""
    command: list[str | Path] = [Path(sys.executable).with_name("urban-reid"), "console", "--port", "0", "--json"]
    server = subprocess.Popen(command, env=os.environ | {"URBAN_REID_HOME": str(home)}, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())
        with httpx.Client(base_url=address["url"], trust_env=False, follow_redirects=True, timeout=120) as client:
            client.get(address["link"]).raise_for_status()
            yield client, Processor(server.pid, home)
    finally:
        server.terminate()
        server.wait()


Ask = Callable[[], httpx.Response]


def pages(store: Store, client: httpx.Client) -> list[tuple[str, Ask]]:
    draw = random.Random(1)  # nosec B311
    with store.owning() as connection:
        rows: Sequence[Any] = connection.exec_driver_sql(_SOME).all()

    def person() -> str:
        return f"/person/{draw.choice(rows)[0]}"

    def later_page() -> str:
        row = draw.choice(rows)
        return str(httpx.URL("/people/d1", params={"at": row[1].isoformat(), "after": row[2]}))

    pictures = [part.split('"')[0] for part in client.get("/people/d1").text.split('src="')[1:] if "pictures" in part]
    names: dict[str, Callable[[], str]] = {
        "overview": lambda: "/",
        "people of the district": lambda: "/people/d1",
        "people of the district, a later page": later_page,
        "people of a camera": lambda: f"/people/d1/s{draw.randrange(5)}/b1/c2",
        "a person": person,
        "a picture": lambda: draw.choice(pictures),
        "search form": lambda: "/search?unit=d1",
        "cameras": lambda: "/cameras",
        "review": lambda: "/review?unit=d1",
        "answers": lambda: "/review/answers?unit=d1",
        "take passages out of a person": lambda: f"/review/split/{draw.choice(rows)[0]}",
        "join two people": lambda: f"/review/merge/{draw.choice(rows)[0]}",
        "runs": lambda: "/runs",
        "runs of a unit, an earlier page": lambda: "/runs?unit=d1/s2&before=20000",
        "models": lambda: "/models",
        "audit": lambda: "/audit",
        "settings": lambda: "/settings",
        "words": lambda: "/words",
    }
    return [(name, partial(_get, client, path)) for name, path in names.items()]


def _get(client: httpx.Client, path: Callable[[], str]) -> httpx.Response:
    return client.get(path())


def timed(ask: Ask) -> float:
    began = time.perf_counter()
    ask().raise_for_status()
    return time.perf_counter() - began


def tell(name: str, seconds: Sequence[float], processor: Sequence[float]) -> None:
    p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
    times = [f"{one * 1000:{width}.0f}" for one, width in zip((p50, p95, *processor), (6, 6, 9, 9), strict=True)]
    print(f"{name:38} {' '.join(times)}", flush=True)


if __name__ == "__main__":
    main()
