"""How soon a district decides on the people whom its cameras have seen, with crops that come in live under `up`.

    python -m benchmarks.resolve_lag [--minutes 20] [--cameras 8] [--people 40] [--window 300] [--standing 0]

Renders a city and starts `up` on a new data directory. Then each crop is taken in when its time has come, with the
present for the time of the first, and each camera's health is written each second, as the process of the cameras
does it. Prints the time from a person's last frame to the district's decision, as `status` has it; the part of it that
follows the end of the window, which no resolve can be sooner than; and how many runs of windows there were.

With --standing N it looks for N of the people from the beginning, by their first pictures, and prints how soon and how
rightly hits of them were raised.
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
    parser.add_argument("--standing", type=int, default=0, help="people who are looked for")
    parser.add_argument("--bar", type=float, default=0.9, help="probability from which on a hit is raised")
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
            wanted = _look_for(folder / "city", given.standing, given.bar)
            _play(folder / "city", given.minutes * 60)
            _report()
            if wanted:
                _report_hits(wanted)
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


def _look_for(city: Path, many: int, bar: float) -> dict[str, str]:
    """Begins to look for so many people; who each is, by the standing search."""
    from pipeline.crops.crop_store import CropStore
    from pipeline.governance.purposes import Limits, change_limits
    from pipeline.search.request import upload_probe
    from pipeline.standing.searches import start
    from pipeline.store import Store
    from schemas.parameters import StandingParameters
    from schemas.settings import settings

    first: dict[str, str] = {}
    for line in (city / "manifest.jsonl").read_text().splitlines():
        first.setdefault(json.loads(line)["truth"], json.loads(line)["path"])
    wanted = {}
    with Store.open(settings(), "benchmark") as store:
        change_limits(store, Limits(168, 720, False, True, 100, 1000), reason="a benchmark")
        for person in sorted(first)[:many]:
            probe = upload_probe(store, CropStore(settings()), (city / first[person]).read_bytes(), "benchmark")
            asked = StandingParameters(
                units=("d1",), probes=(probe,), bar=bar, reason="a benchmark", operator="benchmark"
            )
            wanted[str(start(store, asked))] = person
    return wanted


def _report_hits(wanted: dict[str, str]) -> None:
    from sqlalchemy import text

    from pipeline.store import Store
    from schemas.settings import settings

    query = text(
        "SELECT p.standing_id::text AS standing, min(extract(epoch FROM p.raised_at - p.last_frame_at))::float8 AS "
        "latency, min(extract(epoch FROM p.raised_at - n.finished_at))::float8 AS after, "
        "mode() WITHIN GROUP (ORDER BY t.truth) AS truth FROM standing_passage p "
        "JOIN search_request r ON r.id = p.request_id JOIN run n ON n.id = r.standing_run "
        "JOIN identity_now i ON i.persistent_id = p.tracklet AND i.level = 'camera' "
        "JOIN identity_member m ON m.identity_id = i.id JOIN crop_truth t ON t.crop_id = m.crop_id "
        "WHERE p.rank IS NOT NULL GROUP BY p.standing_id, p.request_id, p.rank"
    )
    with Store.open(settings(), "benchmark") as store, store.owning() as connection:
        hits = connection.execute(query).all()
        spent = connection.execute(
            text(
                "SELECT extract(epoch FROM finished_at - requested_at)::float8 FROM search_request "
                "WHERE standing_id IS NOT NULL AND finished_at IS NOT NULL"
            )
        )
        looks = np.array(spent.scalars().all())
    print(
        f"{len(looks)} looks for {len(wanted)} people, each p50 {np.median(looks):.2f} s, longest {looks.max():.2f} s"
    )
    if not hits:
        print("no hit")
        return
    latency, after = (np.array([getattr(hit, name) for hit in hits]) for name in ("latency", "after"))
    right = sum(hit.truth == wanted[hit.standing] for hit in hits)
    found = len({hit.standing for hit in hits if hit.truth == wanted[hit.standing]})
    print(f"{len(hits)} hits, {right} of them right, of {found} people")
    print(
        f"last frame to hit: p50 {np.median(latency):.1f} s, p95 {np.quantile(latency, 0.95):.1f} s; "
        f"decision to hit: p50 {np.median(after):.1f} s, longest {after.max():.1f} s"
    )


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
                truth=crop.get("truth"),
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
            report = take_in(
                store,
                CropStore(settings()),
                Source("benchmark", "live", synthetic=True),
                candidates(),
                total=len(crops),
            )
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
