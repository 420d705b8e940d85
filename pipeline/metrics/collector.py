"""What is measured, read from the database and the core process at each scrape.

Labels take a few values (state, level, queue, quantile, host), never a camera, a unit or a person: as many series on a
host of ten thousand cameras as on one of two. `urban-reid cameras list` says which camera it is.
"""

import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, text

from pipeline.cameras.hosts import HostNow, read_hosts
from pipeline.cameras.overview import Overview, Seen, overview
from pipeline.city.lag import Lag, resolve_lag
from pipeline.search.recall import read_recall
from pipeline.store import Store
from reid_core.serving.client import CoreClient
from schemas.errors import CoreError, HomeError, StoreError
from schemas.levels import UPWARD

#: What is read is kept so long, whoever scrapes; the lag, a query over an hour of people, longer.
_KEPT_S, _LAG_KEPT_S = 1.0, 30.0
_CORE_WITHIN_S = 2.0

_COUNTS = text(
    "SELECT (SELECT count(*) FROM camera_outage) AS outages, "
    "(SELECT count(*) FROM camera_outage JOIN camera_feed USING (camera) WHERE up_at IS NULL) AS blind, "
    "(SELECT coalesce(sum(written), 0) FROM ingest_batch) AS crops, "
    "(SELECT count(*) FROM search_request) AS searches, "
    "(SELECT count(*) FROM search_request WHERE finished_at IS NOT NULL) AS finished, "
    "(SELECT coalesce(sum(extract(epoch FROM finished_at - requested_at)), 0)::float8 FROM search_request) AS seconds"
)
_PENDING = text(
    "SELECT level_of(unit)::text AS level, count(*) AS units FROM watermark WHERE dirty_from IS NOT NULL GROUP BY 1"
)


class CityCollector(Collector):
    """Gives the metrics of a home. A part that does not answer is 0 in its `up` metric, and its others are left out."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._found: Sequence[Metric] = ()
        self._found_at = self._lag_at = -float("inf")
        self._lag = Lag(0)

    def collect(self) -> Iterator[Metric]:
        with self._lock:  # one reads for all who ask meanwhile
            if time.monotonic() - self._found_at > _KEPT_S:
                self._found = list(self._read())
                self._found_at = time.monotonic()
            yield from self._found

    def _read(self) -> Iterator[Metric]:
        yield _gauge("info", "The program's version.", 1, version=version("urban-reid"))
        free = shutil.disk_usage(self._store.settings.home).free
        yield _gauge("home_free_bytes", "Free bytes of the data directory's disk.", free)
        yield from self._core()
        try:
            with self._store.begin() as connection:
                found = list(self._database(connection))
        except StoreError:
            yield _gauge("database_up", "Whether the database answers.", 0)
            return
        yield _gauge("database_up", "Whether the database answers.", 1)
        yield from found

    def _core(self) -> Iterator[Metric]:
        jobs: dict[str, int] = {}
        try:
            status, _, body = CoreClient(self._store.settings).get("/jobs", _CORE_WITHIN_S)
            if status == 200:
                jobs = json.loads(body)
        except (CoreError, HomeError, ValueError):
            jobs = {}
        yield _gauge("core_up", "Whether the core process answers.", int(bool(jobs)))
        if jobs:
            family = GaugeMetricFamily(
                "urban_reid_core_jobs", "Requests that wait or compute in the core process.", labels=["queue"]
            )
            for queue in sorted(jobs):
                family.add_metric([queue], jobs[queue])
            yield family

    def _database(self, connection: Connection) -> Iterator[Metric]:
        yield from _of_cameras(overview(connection, now := datetime.now(UTC)), now)
        yield from _of_hosts(read_hosts(connection))
        row = connection.execute(_COUNTS).one()
        yield _gauge("cameras_blind", "Cameras in an outage now.", row.blind)
        yield _counter("camera_outages", "Outages of cameras.", row.outages)
        yield _counter("crops_written", "Crops that were taken in.", row.crops)
        yield _counter("searches", "Searches that were asked for.", row.searches)
        seconds = "Searches that were answered, and how long that took from the request on."
        yield SummaryMetricFamily("urban_reid_search_seconds", seconds, count_value=row.finished, sum_value=row.seconds)
        if (recall := read_recall(connection)) is not None:
            yield _gauge("search_recall", "recall@10 against the exact scan, of a sample of searches.", recall)
        pending = {found.level: found.units for found in connection.execute(_PENDING)}
        units = GaugeMetricFamily("urban_reid_units_to_resolve", "Units with windows to resolve.", labels=["level"])
        for level in UPWARD:
            units.add_metric([level.value], pending.get(level.value, 0))
        yield units
        if time.monotonic() - self._lag_at > _LAG_KEPT_S:
            self._lag, self._lag_at = resolve_lag(connection), time.monotonic()
        what = "From a person's last frame to the district's decision, over the last hour."
        lag = self._lag
        yield _quantiles("resolve_lag_seconds", what, {"0.5": lag.p50_s, "0.95": lag.p95_s, "1": lag.longest_s})
        yield _gauge("people_decided", "Passages of people that were decided on in the last hour.", self._lag.people)


def _of_cameras(cameras: Sequence[Overview], now: datetime) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "urban_reid_cameras", "Cameras by state; unknown: nothing looks at them.", labels=["state"]
    )
    for state in get_args(Seen):
        states.add_metric([state], sum(camera.state == state for camera in cameras))
    yield states
    up = [(camera.feed, camera.health) for camera in cameras if camera.state == "up" and camera.health is not None]
    yield _gauge("cameras_frozen", "Cameras that are up with a frozen picture.", sum(h.frozen for _, h in up))
    yield _gauge("cameras_black", "Cameras that are up with a black picture.", sum(h.black for _, h in up))
    yield _gauge(
        "looks_per_second", "Looks a second, of all cameras that are up.", sum(h.looks_per_s or 0 for _, h in up)
    )
    wanted = "Looks a second that are asked for, of all cameras that are up."
    yield _gauge("looks_wanted_per_second", wanted, sum(feed.looks_per_s for feed, _ in up))
    lags = sorted(health.lag_s for _, health in up if health.lag_s is not None)
    what = "From a frame's arrival to the end of its look, over the cameras that are up."
    yield _quantiles("camera_lag_seconds", what, {q: _quantile(lags, float(q)) for q in ("0.5", "0.95", "1")})
    ages = [(now - h.last_frame_at).total_seconds() for f, h in up if f.kind == "stream" and h.last_frame_at]
    oldest = "Age of the oldest last frame among the streams that are up."
    yield _gauge("camera_last_frame_age_seconds", oldest, max(ages, default=0.0))


def _of_hosts(hosts: Sequence[HostNow]) -> Iterator[Metric]:
    """None where one machine has all cameras."""
    if not hosts:
        return
    for name, what, values in (
        ("host_cameras", "Cameras that are dealt to a host.", [one.cameras for one in hosts]),
        ("host_looks_asked_per_second", "Looks a second its cameras ask for.", [one.asked_per_s for one in hosts]),
        ("host_looks_per_second", "Looks a second that a host can make.", [one.looks_per_s for one in hosts]),
        ("host_seen_seconds", "Since a host's last sign of life.", [one.seen_s for one in hosts]),
    ):
        family = GaugeMetricFamily(f"urban_reid_{name}", what, labels=["host"])
        for host, value in zip(hosts, values, strict=True):
            family.add_metric([host.name], value)
        yield family


def _quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that is at least as large as this share of the sorted values; None without values."""
    return values[max(0, -int(-share * len(values) // 1) - 1)] if values else None


def _gauge(name: str, what: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(f"urban_reid_{name}", what, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"urban_reid_{name}", what, value=value)


def _quantiles(name: str, what: str, values: dict[str, float | None]) -> Metric:
    family = GaugeMetricFamily(f"urban_reid_{name}", what, labels=["quantile"])
    for quantile, value in values.items():
        if value is not None:
            family.add_metric([quantile], value)
    return family
