"""Metrics as Prometheus gets them, over HTTP."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from pipeline.cameras.rows import came_up, went_down, write_feed, write_health
from pipeline.metrics.collector import CityCollector
from pipeline.metrics.server import listening_address, serving_metrics
from pipeline.store import Store
from schemas.errors import StoreError, UsageError
from schemas.feeds import Feed, Health
from tests.helpers.rows import fill

ROOT = Path(__file__).parents[3]
CAMERAS = ("d1/s1/b1/c1", "d1/s1/b1/c2", "d1/s1/b1/c3", "d1/s1/b2/c1")


@pytest.fixture
def served(store: Store) -> Iterator[Store]:
    """A city with four feeds: one up, one up with a frozen picture, one down, one that nothing looks at."""
    fill(store)
    now = datetime.now(UTC)
    with store.signed_in() as connection:
        connection.execute(
            text(
                "INSERT INTO search_request "
                "(operator, reason, unit, crop_id, model_id, top, requested_at, finished_at) "
                "SELECT 'anna', 'a test', 'd1', c.id, m.id, 5, now() - interval '3 seconds', now() "
                "FROM crop c, model m"
            )
        )
    with store.begin() as connection:
        connection.execute(text("INSERT INTO watermark (unit, dirty_from) VALUES ('d1/s1/b1', now())"))
        came_up(connection, CAMERAS[0], now)
        for number, camera in enumerate(CAMERAS):
            write_feed(connection, Feed(camera=camera, address=f"rtsp://10.0.0.{number}/verysecret"))
        for camera, lag_s in zip(CAMERAS[:2], (0.1, 0.4), strict=True):
            health = Health(
                camera=camera,
                state="up",
                at=now,
                looks_per_s=4.5,
                lag_s=lag_s,
                people=2,
                last_frame_at=now - timedelta(seconds=7),
                frozen=lag_s > 0.2,
            )
            write_health(connection, health)
        write_health(connection, Health(camera=CAMERAS[2], state="down", at=now))
        went_down(connection, CAMERAS[2], now, "no route")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store.settings = store.settings.model_copy(update={"metrics": f"127.0.0.1:{port}"})
    with serving_metrics(store):
        yield store


def scrape(store: Store) -> tuple[str, dict[tuple[str, str], float]]:
    """The text, and values by name of the sample and value of its label."""
    with httpx.Client(timeout=60, trust_env=False) as client:
        page = client.get(f"http://{store.settings.metrics}/metrics").raise_for_status().text
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return page, {(s.name.removeprefix("urban_reid_"), "".join(s.labels.values())): s.value for s in samples}


def test_prometheus_gets_what_is_so(served: Store) -> None:
    page, values = scrape(served)
    expected = {
        ("cameras", "up"): 2,
        ("cameras", "down"): 1,
        ("cameras", "unknown"): 1,
        ("cameras", "paused"): 0,
        ("cameras_blind", ""): 1,
        ("camera_outages_total", ""): 2,
        ("cameras_frozen", ""): 1,
        ("cameras_black", ""): 0,
        ("looks_per_second", ""): 9,
        ("looks_wanted_per_second", ""): 10,
        ("camera_lag_seconds", "0.5"): 0.1,
        ("camera_lag_seconds", "1"): 0.4,
        ("units_to_resolve", "building"): 1,
        ("units_to_resolve", "district"): 0,
        ("searches_total", ""): 1,
        ("search_seconds_count", ""): 1,
        ("people_decided", ""): 0,
        ("database_up", ""): 1,
        ("core_up", ""): 0,
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert values["search_seconds_sum", ""] == pytest.approx(3, abs=0.01)
    assert 7 <= values["camera_last_frame_age_seconds", ""] < 60 and values["home_free_bytes", ""] > 0
    assert not re.search(r"d1|10\.0\.0|verysecret|anna|a test", page), "no camera, address or person"


def test_as_many_series_for_a_thousand_cameras_as_for_four(served: Store) -> None:
    before = scrape(served)[1].keys()
    with served.begin() as connection:
        connection.execute(
            text("INSERT INTO urban_unit (code) SELECT 'd1/s1/b1/x' || n FROM generate_series(1, 1000) AS n")
        )
        connection.execute(
            text(
                "INSERT INTO camera_feed (camera, address, looks_per_s) "
                "SELECT 'd1/s1/b1/x' || n, '/videos/', 5 FROM generate_series(1, 1000) AS n"
            )
        )
    fresh = list(CityCollector(served).collect())
    assert sum(len(family.samples) for family in fresh) == len(before)


def test_a_database_that_does_not_answer_is_told_by_its_metric(served: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise StoreError("gone")

    monkeypatch.setattr(served, "begin", gone)
    _, values = scrape(served)
    assert values["database_up", ""] == 0 and ("cameras", "up") not in values and values["core_up", ""] == 0


def test_each_metric_of_the_dashboard_is_there(served: Store) -> None:
    dashboard = json.loads((ROOT / "docs/grafana/urban-reid.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for expression in expressions for name in re.findall(r"urban_reid_\w+", expression)}
    families = list(CityCollector(served).collect())
    there = {sample.name for family in families for sample in family.samples}
    may_be_empty = {"urban_reid_resolve_lag_seconds", "urban_reid_core_jobs"}  # without people, or a core process
    assert named - may_be_empty <= there and len(named) > 15
    source = (ROOT / "pipeline/metrics/collector.py").read_text()
    assert all(name.removeprefix("urban_reid_") in source for name in may_be_empty)
    guide = (ROOT / "docs/guides/service.md").read_text()
    assert [family.name for family in families if f"`{family.name}" not in guide] == []


def test_each_query_of_the_dashboard_is_promql_whose_labels_are_served(served: Store, tmp_path: Path) -> None:
    dashboard = json.loads((ROOT / "docs/grafana/urban-reid.json").read_text())
    targets = [(panel["title"], target) for panel in dashboard["panels"] for target in panel["targets"]]
    labels: dict[str, set[str]] = {}
    for family in CityCollector(served).collect():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    labels |= {"urban_reid_resolve_lag_seconds": {"quantile"}, "urban_reid_core_jobs": {"queue"}}
    for title, target in targets:
        names = re.findall(r"urban_reid_\w+", target["expr"])
        used = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", target["expr"])
        used += re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"])
        assert names and set(used) <= set.intersection(*(labels[name] for name in names)), title
        if any(labels[name] for name in names) and len(names) == 1 and not used:
            raise AssertionError(f"{title}: {names[0]} has several series, which its legend does not tell apart")
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool, of Prometheus, is not installed")
    rules = [{"record": f"panel:{number}", "expr": target["expr"]} for number, (_, target) in enumerate(targets)]
    path = tmp_path / "rules.json"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True)
    assert checked.returncode == 0 and f"{len(targets)} rules found" in checked.stdout, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("setting", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("10.0.0.5:9464", ("10.0.0.5", 9464)),
        ("[::1]:9464", ("::1", 9464)),
        ("monitor.example:9464", ("monitor.example", 9464)),
    ],
)
def test_an_address_is_a_port_or_host_and_port(setting: str, address: tuple[str, int]) -> None:
    assert listening_address(setting) == address


@pytest.mark.parametrize("setting", ["", "yes", "127.0.0.1", "127.0.0.1:0", ":9464:", "::1:9464", "host:99999"])
def test_what_is_no_address_is_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=r"URBAN_REID_METRICS: .* is no address; write 127.0.0.1:9464"):
        listening_address(setting)


def test_an_address_that_is_taken_is_refused(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        store.settings = store.settings.model_copy(update={"metrics": str(port)})
        with (
            pytest.raises(UsageError, match=f"cannot listen on {port}: Address already in use"),
            serving_metrics(store),
        ):
            pass
