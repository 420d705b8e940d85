"""How soon a district decides on the people whom its cameras have seen, with crops that come in live under `up`.

    python -m benchmarks.resolve_lag [--minutes 20] [--cameras 8] [--people 40] [--window 300]

Renders a city and starts `up` on a new data directory. Then each crop is taken in when its time has come, with the
present for the time of the first, and each camera's health is written each second, as the process of the cameras
does it. Prints the time from a person's last frame to the district's decision, as `status` has it; the part of it that
follows the end of the window, which no resolve can be sooner than; and how many runs of windows there were.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from benchmarks.home import home
from benchmarks.overhead import PROGRAM, make_model

_READY_WITHIN_S = 240.0
#: A tracker tells that a passage has ended, and a frame is looked at, some time after it was taken.
_LOOK_S = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--window", type=int, default=300, help="seconds")
    given = parser.parse_args()
    os.environ["URBAN_REID_ASSOCIATION__WINDOW_S"] = str(given.window)
    with home() as folder:
        os.environ["URBAN_REID_HOME"] = str(folder / "home")
        _prepare(folder, given.cameras, given.people, given.minutes * 60)
        up = subprocess.Popen([*PROGRAM, "up", "--json"], stdout=subprocess.PIPE, text=True)
        try:
            assert up.stdout is not None
            if not up.stdout.readline():
                sys.exit("`up` does not start")
            _play(folder / "city", given.minutes * 60)
            _report()
        finally:
            up.send_signal(signal.SIGINT)
            up.wait()


def _prepare(folder: Path, cameras: int, people: int, duration_s: float) -> None:
    from pipeline.city.units import read_city_file, store_city
    from pipeline.registry import register_model, use_model
    from pipeline.store import Store
    from schemas.settings import settings
    from synthetic.rendered_city import simulate_city, write_city

    write_city(simulate_city(1, cameras=cameras, people=people, duration_s=int(duration_s)), folder / "city")
    make_model("demo", folder / "model")
    with Store.open(settings(), "benchmark") as store:
        store_city(store, read_city_file(folder / "city" / "city.yaml"))
        register_model(store, settings(), folder / "model", "demo")
        use_model(store, "demo")


def _play(city: Path, duration_s: float) -> None:
    """Takes each crop in when its time has come."""
    from pipeline.cameras.rows import write_health
    from pipeline.city.units import read_city
    from pipeline.crops.crop_store import CropStore
    from pipeline.ingest.batches import Source, ended
    from pipeline.ingest.crop_writer import Candidate, take_in
    from pipeline.store import Store
    from schemas.feeds import Health
    from schemas.settings import settings

    crops = sorted(map(json.loads, (city / "manifest.jsonl").read_text().splitlines()), key=lambda crop: crop["time"])
    shift = datetime.now(UTC) + timedelta(seconds=2) - datetime.fromisoformat(crops[0]["time"])
    over = threading.Event()

    def candidates() -> Iterator[Candidate | None]:
        for crop in crops:
            at = datetime.fromisoformat(crop["time"]) + shift
            if (wait_s := (at - datetime.now(UTC)).total_seconds() + _LOOK_S) > 0:
                yield None  # what came before is written now
                time.sleep(wait_s)
            yield Candidate(
                name=crop["path"],
                read=(city / crop["path"]).read_bytes,
                camera=crop["camera"],
                captured_at=at,
                track=crop.get("track"),
            )

    with Store.open(settings(), "benchmark") as store:
        cameras = [camera.code for camera in read_city(store).cameras()]

        def tell_health() -> None:
            while not over.wait(1.0):
                now = datetime.now(UTC)
                with store.begin() as connection:
                    for camera in cameras:
                        write_health(connection, Health(camera=camera, state="up", at=now, last_frame_at=now))

        health = threading.Thread(target=tell_health)
        health.start()
        try:
            report = take_in(store, CropStore(settings()), Source("benchmark", "live"), candidates(), total=len(crops))
            ended(store, report)
            time.sleep(settings().association.window_s + 30)  # until the last window has closed
        finally:
            over.set()
            health.join()


def _report() -> None:
    from sqlalchemy import text

    from pipeline.city.lag import resolve_lag
    from pipeline.store import Store
    from schemas.settings import settings

    with Store.open(settings(), "benchmark") as store, store.begin() as connection:
        lag = resolve_lag(connection, timedelta(days=1))
        runs = connection.execute(
            text("SELECT extract(epoch FROM finished_at - window_end)::float8 FROM run WHERE level = 'district'")
        )
        after = np.array(runs.scalars().all())
        again = connection.execute(
            text("SELECT count(*) - count(DISTINCT (unit, window_start)) FROM run WHERE level = 'district'")
        ).scalar_one()
    print(
        f"last frame to decision: p50 {lag.p50_s:.1f} s, p95 {lag.p95_s:.1f} s, longest {lag.longest_s:.1f} s, "
        f"{lag.people} passages"
    )
    print(f"end of the window to decision: p50 {np.median(after):.1f} s, longest {after.max():.1f} s")
    print(f"{len(after)} runs of the district's windows, {again} of them of windows decided before")


if __name__ == "__main__":
    main()
