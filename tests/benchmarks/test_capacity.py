"""The cost model: arithmetic and units by hand, and the tables of its page."""

import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks.capacity.__main__ import PAGE, PICTURE, numbers, opened
from benchmarks.capacity.estimate import Growth, Line, Plane, Power, Range
from benchmarks.capacity.figures import (
    LEVELS,
    LOAD,
    MEASURED,
    PRICES,
    CityFigures,
    DayFigures,
    Flows,
    Gpu,
    Idle,
    Load,
    Machine,
    Measured,
    Prices,
    Searches,
    Streams,
    read,
)
from benchmarks.capacity.limits import LIMITS, reached
from benchmarks.capacity.needs import Model, Needs
from benchmarks.capacity.tables import filled, places, said, spread, tables
from benchmarks.capacity.traffic import Traffic

DAY = date(2026, 1, 5)


def streams(rate: float, crops_a_look: float) -> Streams:
    """10 frames of 1 ms a second, 5 ms a look, 4 ms a crop; the rest: 20 ms a second, 3 ms a look, 2 ms a crop."""
    looks, crops = [rate] * 2, [rate * crops_a_look] * 2
    return Streams(
        video="a.avi",
        size="640x480",
        cameras=1,
        frames_per_s=10,
        asked_looks_per_s=rate,
        decoding_s=0.010,
        detection_s=0.005,
        embedding_s=0.004,
        stream_bytes_per_s=1e5,
        crop_file_bytes=5_000,
        detector_picture_bytes=600_000,
        model_picture_bytes=100_000,
        looks_per_s=looks,
        crops_per_s=crops,
        features_per_s=crops,
        used_cores=[0.030 + rate * (0.005 + 0.003) + each * (0.004 + 0.002) for each in crops],
    )


def a_city(cameras: int) -> CityFigures:
    """2 passages a camera and window; a window costs 1 ms a camera at each level, half of it whoever passes."""
    windows, passages = 6, 2 * cameras * 6
    return CityFigures(
        cameras=cameras,
        passages=2 * passages,
        crops=4 * passages,
        ingest_s=1,
        ingest_wal_bytes=4 * passages * 2_000,
        ingest_copy_bytes=4 * passages * 700,
        crop_bytes=4 * passages * 1_000,
        other_bytes=2 * passages * 3_000,
        empty_bytes=1e7,
        look_s=0.0001 * cameras,
        bulk_passages=passages,
        bulk_s=dict.fromkeys(LEVELS, 0.0005 * cameras * windows),
        windows=windows,
        live_passages=passages,
        live_s=dict.fromkeys(LEVELS, 0.001 * cameras * windows),
        live_wal_bytes=passages * 5_000,
        live_copy_bytes=passages * 4_000,
    )


@pytest.fixture(scope="module")
def model() -> Model:
    measured = Measured(
        date=DAY,
        processor="a processor",
        cores=2,
        memory_gb=16,
        load=0,
        seconds=60,
        idle=Idle(cores=0.25, memory_mb=900),
        streams=[streams(looks, crops) for looks in (1.0, 5.0) for crops in (0.0, 1.0)],
        embedding={"slow": [0.05, 0.04, 0.08]},
        cities=[a_city(cameras) for cameras in (10, 20, 40, 80)],
        day=DayFigures(
            cameras=10,
            passages=2_000,
            early_known=100,
            early_window_s=[0.01, 0.01],
            late_known=600,
            late_window_s=[0.02, 0.02],
            identities=500,
            prototypes=1_000,
            search_bytes=600_000,
            backup_s=10,
            backup_bytes=1e8,
            database_bytes=1e8,
        ),
        searches=Searches(prototypes=[1_000, 2_000, 3_000], processor_s=[0.11, 0.12, 0.13]),
        flows=Flows(
            runs=10, run_s=0.2, server_run_s=0.1, run_bytes=8_000, task_s=0.02, server_task_s=0.01, task_bytes=4_000
        ),
    )
    load = Load(
        date=DAY,
        source="a test",
        looks_per_s=4,
        stream_mbit_s=8,
        stream_frames_per_s=20,
        passages_per_camera_day=240,
        crops_per_passage=10,
        busiest_hour_share=0.1,
        retention_h=48,
        searches_per_camera_day=1,
        cameras_per_district=100,
        units_per_camera=1.5,
        window_s=300,
        embedding="streams",
        most_busy=0.5,
        connections_per_camera=1,
        connections_per_process=10,
        processes_per_machine=2,
        machine=Machine(cores=16, memory_gb=64, network_gbit_s=10, disk_write_mb_s=500, disk_tb=4, connections=100),
        gpu=Gpu(name="a card", measured=False, detections_per_s=400, crops_per_s=100, source="a test"),
    )
    prices = Prices(
        date=DAY,
        source="a test",
        currency="EUR",
        hours_per_month=700,
        core_hour=0.1,
        gpu_hour=2,
        database_gb_month=0.5,
        object_gb_month=0.25,
        object_million_writes=5,
        backup_gb_month=0.125,
    )
    return Model(measured, load, prices)


def test_what_cameras_bring(model: Model) -> None:
    traffic = Traffic.of(model.load, 250)
    assert (traffic.full_districts, traffic.rest, traffic.largest) == (2, 50, 100)
    assert traffic.looks_s == 1_000
    assert traffic.passages_day == 60_000 and traffic.passages_kept == 120_000
    assert traffic.passages_s == pytest.approx(60_000 * 0.1 / 3_600)
    assert traffic.crops_s == pytest.approx(10 * traffic.passages_s)
    assert traffic.searches_s == pytest.approx(250 * 0.1 / 3_600)
    assert traffic.windows_s == pytest.approx(3 / 300)


def test_cores_are_seconds_of_a_processor_a_second(model: Model) -> None:
    cores = {name: found.value for name, found in model.needs(100).cores.items()}
    crops_s = 100 * 240 * 0.1 / 3_600 * 10
    assert cores["decoding"] == pytest.approx(100 * 20 * 0.001)
    assert cores["detection"] == pytest.approx(100 * 4 * 0.005)
    assert cores["embedding"] == pytest.approx(crops_s * 0.004)
    assert cores["following, cutting, writing"] == pytest.approx(100 * 0.02 + 400 * 0.003 + crops_s * 0.002)
    assert cores["Prefect"] == pytest.approx(0.2 * (1 / 300 + 100 * 0.1 / 3_600) + 0.02 * 150 / 300)
    assert model.needs(100).prefect_server == pytest.approx(0.1 * (1 / 300 + 100 * 0.1 / 3_600) + 0.01 * 150 / 300)
    assert cores["idle processes"] == 0.25
    assert cores["looking for closed windows"] == pytest.approx(0.01)  # each second
    # 2 passages a camera and window, as many as were measured: 4 levels of 1 ms a camera, and the history's 500 of each
    # 2,000 passages for 48 hours, 20 microseconds each.
    window_s = 4 * 0.001 * 100 + 24_000 * 2 * 0.25 * 0.00002
    assert model.needs(100).window_s.value == pytest.approx(window_s)
    assert cores["resolve"] == pytest.approx(window_s / 300)
    # 24,000 prototypes are kept, and a search of so many takes 0.1 s and 10 microseconds for each.
    assert cores["searches"] == pytest.approx((0.1 + 24_000 * 1e-5) * 100 * 0.1 / 3_600)
    assert model.needs(100).bought_cores.value == pytest.approx(sum(cores.values()) / 0.5)


def test_a_window_costs_more_where_more_pass_but_for_what_opening_it_costs(model: Model) -> None:
    busier = Model(model.measured, model.load.model_copy(update={"passages_per_camera_day": 480}), model.prices)
    assert model.stages.fixed_share == pytest.approx(0.5)
    once, twice = (each.stages.window(each.load, 100)["camera"].value for each in (model, busier))
    assert twice == pytest.approx(1.5 * once)


def test_bytes_and_bits(model: Model) -> None:
    needs = model.needs(1_000)
    crops_day, crops_s = 2_400_000, 240_000 * 0.1 / 3_600 * 10
    assert needs.database_gb.value == pytest.approx((1e7 + 2 * crops_day * 1_000 + 480_000 * 3_000) / 1e9)
    assert needs.files_gb.value == pytest.approx(2 * crops_day * 5_000 / 1e9)
    assert needs.database_write_gb_day.value == pytest.approx((crops_day * 2_000 + 240_000 * 5_000) / 1e9)
    assert needs.database_write_mb_s.value == pytest.approx((crops_s * 2_000 + crops_s / 10 * 5_000) / 1e6)
    network = {name: found.value for name, found in needs.network_gbit_s.items()}
    assert network["cameras to their hosts"] == pytest.approx(8)
    assert network["their hosts to a core elsewhere"] == pytest.approx((4_000 * 600_000 + crops_s * 100_000) * 8 / 1e9)
    assert network["to and from the database"] == pytest.approx((crops_s * 700 + crops_s / 10 * 4_000) * 8 / 1e9)
    assert network["to the object store"] == pytest.approx(crops_s * 5_000 * 8 / 1e9)
    assert needs.prototypes == 240_000
    assert needs.search_memory_gb == pytest.approx(240_000 * 600 / 1e9)
    assert needs.backup_s.value == pytest.approx(needs.database_gb.value * 1e9 * 10 / 1e8)


def test_money(model: Model) -> None:
    needs = model.needs(1_000)
    month = {name: found.value for name, found in needs.month.items()}
    assert month["cores"] == pytest.approx(math.ceil(needs.bought_cores.value) * 700 * 0.1)
    assert month["database"] == pytest.approx(needs.database_gb.value * 0.5)
    writes = 2_400_000 * 700 / 24 / 1e6 * 5
    assert month["pictures"] == pytest.approx(needs.files_gb.value * 0.25 + writes)
    assert month["a backup"] == pytest.approx(needs.database_gb.value * 0.125)
    cards = (4_000 / 400 + needs.traffic.crops_s / 100) / 0.5
    assert needs.cards == pytest.approx(cards)
    assert needs.month_with_cards["cards"].value == pytest.approx(math.ceil(cards) * 700 * 2)
    gone = (needs.cores["detection"].value + needs.cores["embedding"].value) / 0.5
    assert needs.bought_cores_beside_cards.value == pytest.approx(needs.bought_cores.value - gone)


def test_no_camera_needs_what_stands_idle(model: Model) -> None:
    needs = model.needs(0)
    assert {name for name, found in needs.cores.items() if found.value > 1e-3} == {"idle processes"}
    assert needs.bought_cores.value == pytest.approx(0.25 / 0.5, rel=1e-3)
    assert needs.database_gb == Range.exact(0.01)
    assert needs.files_gb == needs.search_s == needs.window_s == Range.exact(0)
    assert needs.cards == needs.prototypes == needs.search_memory_gb == needs.flow_runs_s == 0
    assert all(found == Range.exact(0) for found in needs.network_gbit_s.values())


def figures(needs: Needs) -> dict[str, float]:
    """All that grows, by name."""
    found: dict[str, float] = {}
    for name, value in vars(needs).items():
        if isinstance(value, Range):
            found |= {name: value.value, f"{name} low": value.low, f"{name} high": value.high}
        elif isinstance(value, dict):
            found |= {f"{name} {key}": one.value for key, one in value.items()}
        elif isinstance(value, float):
            found[name] = value
    return found


@pytest.mark.parametrize("which", ["made", "stored"])
def test_more_cameras_need_no_less_and_a_value_lies_in_its_interval(model: Model, which: str) -> None:
    asked = model if which == "made" else opened()
    before = figures(asked.needs(0))
    for cameras in (1, 10, 99, 100, 101, 250, 999, 1_000, 1_001, 1_500, 10_000, 100_000):
        needs = asked.needs(cameras)
        now = figures(needs)
        assert len(now) > 30
        # Ends of a fit's interval need not grow: it is wide also far below what was measured.
        growing = [name for name in now if which == "made" or not name.endswith((" low", " high"))]
        assert [name for name in growing if now[name] < before[name] * (1 - 1e-9)] == []
        for name in ("bought_cores", "database_gb", "window_s", "search_s"):
            assert now[f"{name} low"] <= now[name] <= now[f"{name} high"]
        before = now


def test_a_line_gives_back_what_it_goes_through_and_widens_outside() -> None:
    line = Line.through([1, 2, 3, 4], [5.1, 6.9, 9.1, 10.9])
    assert line.slope == pytest.approx(1.96)
    assert line.at(2.5).value == pytest.approx(8.0)
    # By hand: residuals 0.04, -0.12, 0.12, -0.04, so s^2 = 0.016, and t(0.975; 2) = 4.3027.
    assert line.at(2.5).high - 8.0 == pytest.approx(4.3027 * (0.016 / 4) ** 0.5, rel=1e-4)
    assert line.at(2.5, single=True).high - 8.0 == pytest.approx(4.3027 * (0.016 * 1.25) ** 0.5, rel=1e-4)
    assert line.slope_range.high - 1.96 == pytest.approx(4.3027 * (0.016 / 5) ** 0.5, rel=1e-4)
    widths = [line.at(x).high - line.at(x).low for x in (2.5, 4, 8, 100)]
    assert widths == sorted(widths) and widths[0] < widths[-1]
    with pytest.raises(ValueError, match="three points"):
        Line.through([1, 2], [1, 2])
    with pytest.raises(ValueError, match="three points"):
        Line.through([3, 3, 3], [1, 2, 3])


def test_a_plane_tells_costs_apart() -> None:
    rows = [(1, looks, crops) for looks in (1, 2, 5) for crops in (0, 3)]
    plane = Plane.through(rows, [0.02 + 0.003 * looks + 0.001 * crops for _, looks, crops in rows])
    assert plane.costs == pytest.approx((0.02, 0.003, 0.001))
    assert plane.at((10, 50, 30)).value == pytest.approx(0.2 + 0.15 + 0.03)
    # With one figure beside the constant it is the line, and so is its error.
    x, y = [1.0, 2.0, 3.0, 4.0], [5.1, 6.9, 9.1, 10.9]
    line, same = Line.through(x, y), Plane.through([(1, each) for each in x], y)
    for at in (0.0, 2.5, 8.0):
        found, other = line.at(at), same.at((1, at))
        assert (other.value, other.low, other.high) == pytest.approx((found.value, found.low, found.high))
    for too_few in ([(1, 1, 0), (1, 5, 0)], [(1, 2, 0)] * 6):  # one rate of looks tells nothing of what a look costs
        with pytest.raises(ValueError, match="3 costs"):
            Plane.through(too_few, [1.0] * len(too_few))


def test_a_power_finds_its_exponent() -> None:
    power = Power.through([10, 100, 1_000], [2 * x**1.1 for x in (10, 100, 1_000)])
    assert power.exponent.value == pytest.approx(1.1)
    assert power.at(5_000).value == pytest.approx(2 * 5_000**1.1)
    assert power.at(0) == Range.exact(0)


def test_growth_takes_the_form_that_foretells_the_largest() -> None:
    sizes = [10.0, 20.0, 40.0, 80.0]
    line = Growth.through(sizes, [5 + 0.1 * size for size in sizes])
    power = Growth.through(sizes, [size**1.3 for size in sizes])
    assert (line.form, power.form) == ("line", "power")
    assert line.at(1_000).value == pytest.approx(105) and power.at(1_000).value == pytest.approx(1_000**1.3)
    assert line.largest == 13 and line.foretold.value == pytest.approx(13)
    assert power.exponent.value == pytest.approx(1.3) and line.exponent.value < 0.6
    assert line.at(0) == Range.exact(0)
    with pytest.raises(ValueError, match="three points"):
        Growth.through(sizes[:3], [1, 2, 3])


def test_where_a_limit_is_reached(model: Model) -> None:
    limits = {limit.what: limit for limit in LIMITS}
    streams_in = reached(model, limits["streams into one machine"])
    assert streams_in == 1_251  # 8 Mbit/s each of 10 Gbit/s
    for limit in LIMITS:
        at = reached(model, limit)
        if at is not None:
            over, within = (limit.needed(model, model.needs(count)).value for count in (at, at - 1))
            assert within <= limit.there(model) < over
    assert reached(model, limits["a window of one district"]) is None  # a district has 100 cameras at most


def test_figures_are_shown_with_three_digits_and_their_interval() -> None:
    assert [said(value) for value in (0, 1, 0.012345, 1234.5, 1_234_567, 99.96)] == [
        "0", "1", "0.0123", "1,230", "1,230,000", "100",
    ]  # fmt: skip
    assert spread(Range(1.0, 0.9, 1.2)) == "1 (0.9 to 1.2)"
    assert spread(Range.exact(5.0)) == "5"


def test_the_pages_tables_are_those_of_the_stored_figures() -> None:
    page, made = PAGE.read_text(encoding="utf-8"), tables(opened())
    assert sorted(places(page)) == sorted(made), "each table has one place"
    assert filled(page, made) == page, "`python -m benchmarks.capacity page` makes the tables anew"
    assert PICTURE.read_text(encoding="utf-8").startswith("<?xml")


def test_other_prices_and_a_measured_card_change_what_they_are_about(tmp_path: Path) -> None:
    given: dict[str, Any] = json.loads(PRICES.read_text())
    (tmp_path / "prices.json").write_text(json.dumps(given | {"core_hour": 2 * given["core_hour"]}))
    card = {"name": "mine", "measured": True, "detections_per_s": 10, "crops_per_s": 10, "source": "here"}
    (tmp_path / "device.json").write_text(json.dumps({"card": card}))
    usual, other = opened(), opened(prices=tmp_path / "prices.json", device=tmp_path / "device.json")
    assert other.needs(1_000).month["cores"].value == 2 * usual.needs(1_000).month["cores"].value
    assert other.needs(1_000).bought_cores == usual.needs(1_000).bought_cores
    assert other.needs(1_000).cards > usual.needs(1_000).cards
    assert "mine (measured)" in tables(other)["load"] and "(not measured)" in tables(usual)["load"]


@pytest.mark.parametrize(
    "wrong", [{"core_hour": -1}, {"core_hour": "cheap"}, {"currency": None}, {"core_hours": 1}], ids=str
)
def test_a_wrong_file_is_refused_by_its_field(tmp_path: Path, wrong: dict[str, object]) -> None:
    (tmp_path / "prices.json").write_text(json.dumps(json.loads(PRICES.read_text()) | wrong))
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        opened(prices=tmp_path / "prices.json")


def test_the_stored_files_are_whole() -> None:
    measured, load = read(Measured, MEASURED), read(Load, LOAD)
    assert load.embedding == "streams" or load.embedding in measured.embedding
    assert len({city.cameras for city in measured.cities}) >= 4, "the largest is foretold from three smaller ones"
    assert numbers("25,50") == [25, 50]
