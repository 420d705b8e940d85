"""The tables of `docs/scale.md` as Markdown, by the name of their place on the page."""

import re
from collections.abc import Iterator, Sequence

from benchmarks.capacity.estimate import Range, total
from benchmarks.capacity.limits import LIMITS, MOST_CAMERAS, reached
from benchmarks.capacity.needs import Model, Needs

SIZES = (100, 1_000, 10_000, 100_000)
_PLACE = re.compile(r"(<!-- capacity: (\w+) -->\n).*?(<!-- end -->)", re.S)


def tables(model: Model) -> dict[str, str]:
    needs = [model.needs(size) for size in SIZES]
    return {
        "machine": _machine(model),
        "load": _load(model),
        "stages": _stages(model),
        "engines": _engines(model),
        "windows": _windows(model),
        "check": _check(model),
        "cores": _cores(needs),
        "stored": _stored(needs),
        "network": _named("Gbit/s", [each.network_gbit_s for each in needs]),
        "money": _money(model, needs),
        "limits": _limits(model),
        "steps": _steps(model, needs),
    }


def filled(page: str, made: dict[str, str]) -> str:
    """The page with its tables made anew. Raises KeyError for a place that no table belongs to."""
    return _PLACE.sub(lambda place: f"{place[1]}\n{made[place[2]]}\n\n{place[3]}", page)


def places(page: str) -> list[str]:
    return [place[2] for place in _PLACE.finditer(page)]


def said(value: float) -> str:
    """Three digits, without an exponent."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    if abs(rounded) >= 100:
        return f"{rounded:,.0f}"
    return f"{rounded:.10f}".rstrip("0").rstrip(".")


def spread(found: Range) -> str:
    """The value, and the interval where there is one to be seen."""
    ends = said(found.low), said(found.high)
    return said(found.value) if ends == (said(found.value),) * 2 else f"{said(found.value)} ({ends[0]} to {ends[1]})"


def _both(one: float, other: float) -> str:
    return f"{said(one)}; {said(other)}"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _named(unit: str, found: Sequence[dict[str, Range]]) -> str:
    head = [unit, *(f"{size:,} cameras" for size in SIZES)]
    return _table(head, [[name, *(spread(each[name]) for each in found)] for name in found[0]])


def _machine(model: Model) -> str:
    got = model.measured
    quiet = "quiet" if got.load < 0.5 else f"busy with other work (load {said(got.load)})"
    return (
        f"Measured on {got.date:%Y-%m-%d} in {said(got.seconds / 60)} minutes on {got.processor}, {got.cores} cores, "
        f"{said(got.memory_gb)} GB, which was {quiet} when it began."
    )


def _load(model: Model) -> str:
    load, gpu, machine, prices = model.load, model.load.gpu, model.load.machine, model.prices
    rows = [
        ("looks a second and camera", said(load.looks_per_s)),
        ("a camera's stream, Mbit/s", said(load.stream_mbit_s)),
        ("a camera's stream, frames a second", said(load.stream_frames_per_s)),
        ("passages a camera and day", said(load.passages_per_camera_day)),
        ("crops a passage", said(load.crops_per_passage)),
        ("share of the day's passages in the busiest hour", said(load.busiest_hour_share)),
        ("retention, hours", said(load.retention_h)),
        ("searches a camera and day", said(load.searches_per_camera_day)),
        ("cameras of a district, at most", f"{load.cameras_per_district:,}"),
        ("units of a city for each camera", said(load.units_per_camera)),
        ("window, seconds", said(load.window_s)),
        ("share of a machine that is planned with", said(load.most_busy)),
        (
            "a machine",
            f"{machine.cores} cores, {said(machine.memory_gb)} GB, {said(machine.network_gbit_s)} Gbit/s, "
            f"a disk of {said(machine.disk_tb)} TB that writes {said(machine.disk_write_mb_s)} MB/s",
        ),
        (
            f"{gpu.name} ({'measured' if gpu.measured else 'not measured'})",
            f"{said(gpu.detections_per_s)} looks/s or {said(gpu.crops_per_s)} crops/s: {gpu.source}",
        ),
        (f"a core and hour, {prices.currency}", said(prices.core_hour)),
        (f"a card and hour, {prices.currency}", said(prices.gpu_hour)),
        (f"a GB and month of a database, {prices.currency}", said(prices.database_gb_month)),
        (f"a GB and month of an object store, {prices.currency}", said(prices.object_gb_month)),
        (f"a million writes to it, {prices.currency}", said(prices.object_million_writes)),
        (f"a GB and month of backups, {prices.currency}", said(prices.backup_gb_month)),
    ]
    return _table(("assumed", f"load of {load.date:%Y-%m-%d}, prices of {prices.date:%Y-%m-%d}"), rows)


def _stages(model: Model) -> str:
    stages, got = model.stages, model.measured
    crop = stages.per_city
    ms, kb = 1_000, 1e-3
    rows = [
        ("decoding", "a frame, ms", spread(stages.decoding * ms)),
        ("following, cutting, writing", "a second of a camera, ms", spread(stages.following(1, 0, 0) * ms)),
        ("", "a look, ms", spread(stages.following(0, 1, 0) * ms)),
        ("", "a crop, ms", spread(stages.following(0, 0, 1) * ms)),
        ("detection", "a look, ms", spread(stages.detection * ms)),
        ("embedding", "a crop, ms", spread(stages.embedding("streams") * ms)),
        ("ingest", "a crop by COPY, ms", spread(crop("ingest_s", "crops") * ms)),
        ("", "WAL of a crop, kB", spread(crop("ingest_wal_bytes", "crops") * kb)),
        ("", "rows and indexes of a crop, kB", spread(crop("crop_bytes", "crops") * kb)),
        ("resolve", "WAL of a passage, kB", spread(crop("live_wal_bytes", "live_passages") * kb)),
        ("", "rows and indexes of a passage, kB", spread(crop("other_bytes", "passages") * kb)),
        ("", "an identity of the history, in each window, ms", spread(stages.history * ms)),
        ("", "a look after closed windows, 1,000 cameras, ms", spread(stages.closing(1_000) * ms)),
        ("search", "of 100,000 prototypes, ms", spread(stages.search(100_000) * ms)),
        ("", "memory of a prototype, kB", said(got.day.search_bytes / got.day.prototypes * kb)),
        ("Prefect", "a run, ms; its server alone", _both(got.flows.run_s * ms, got.flows.server_run_s * ms)),
        ("", "a task, ms; its server alone", _both(got.flows.task_s * ms, got.flows.server_task_s * ms)),
        ("", "a run, a task, kB of its database", _both(got.flows.run_bytes * kb, got.flows.task_bytes * kb)),
        ("backup", "a GB of the database, s by the clock", said(stages.backup_s_per_byte * 1e9)),
        ("", "bytes of a dump for each of the database", said(got.day.backup_bytes / got.day.database_bytes)),
        ("`urban-reid up`, idle", "cores", said(got.idle.cores)),
        ("", "memory, MB", said(got.idle.memory_mb)),
    ]
    for one in got.streams:
        where = (
            f"{one.video}, {one.size} at {said(one.frames_per_s)} frames/s and {said(one.asked_looks_per_s)} looks/s"
        )
        rows.append(("stream", f"{where}: looks made", said(sum(one.looks_per_s) / len(one.looks_per_s))))
        rows.append(("", f"{where}: Mbit/s", said(one.stream_bytes_per_s * 8 / 1e6)))
        rows.append(("", f"{where}: crops a look", said(sum(one.crops_per_s) / sum(one.looks_per_s))))
        rows.append(("", f"{where}: file of a crop, kB", said(one.crop_file_bytes * kb)))
    return _table(("stage", "for", "measured"), rows)


def _engines(model: Model) -> str:
    stages, busy = model.stages, 1 / model.load.most_busy
    crops_s = [model.needs(size).traffic.crops_s for size in SIZES]
    rows = []
    for name in ("streams", *model.measured.embedding):
        one = stages.embedding(name)
        rows.append([name, spread(one * 1_000), *(said(one.value * crops * busy) for crops in crops_s)])
    return _table(("engine", "ms a crop", *(f"cores, {size:,} cameras" for size in SIZES)), rows)


def _windows(model: Model) -> str:
    rows, cities, largest = [], model.measured.cities, model.load.cameras_per_district
    for level, growth in model.stages.windows.items():
        measured = (said(city.live_s[level] / city.windows) for city in cities)
        rows.append([level, *measured, spread(growth.exponent), growth.form, spread(growth.at(largest))])
    sizes = (f"{city.cameras} cameras" for city in cities)
    return _table(("s a window", *sizes, "exponent", "fit", f"{largest:,} cameras"), rows)


def _check(model: Model) -> str:
    rows, largest = [], max(city.cameras for city in model.measured.cities)
    for level, growth in model.stages.windows.items():
        guess, real = growth.foretold, growth.largest
        inside = "yes" if guess.low <= real <= guess.high else "**no**"
        off = round(guess.value / real - 1, 2) + 0.0  # no -0 %
        rows.append([level, growth.form, spread(guess), said(real), f"{off:+.0%}", inside])
    head = (f"{largest} cameras", "fit", "foretold from the smaller ones, s", "measured, s", "error", "in the interval")
    return _table(head, rows)


def _cores(needs: Sequence[Needs]) -> str:
    rows = [dict(each.cores) for each in needs]
    for row, each in zip(rows, needs, strict=True):
        row["**cores to have**"] = each.bought_cores
        row["cores beside cards"] = each.bought_cores_beside_cards
        row["cards for detection and embedding"] = Range.exact(each.cards)
    return _named("cores", rows)


def _stored(needs: Sequence[Needs]) -> str:
    return _named(
        "stored",
        [
            {
                "crops/s, busiest hour": Range.exact(each.traffic.crops_s),
                "database, GB": each.database_gb,
                "database writes (WAL), MB/s in the busiest hour": each.database_write_mb_s,
                "database writes (WAL), GB a day": each.database_write_gb_day,
                "pictures, GB": each.files_gb,
                "prototypes, million": Range.exact(each.prototypes / 1e6),
                "memory of searches, GB": Range.exact(each.search_memory_gb),
                "a search of one district, s of a processor": each.search_s,
                "a window of one district, s of a processor": each.window_s,
                "Prefect's runs an hour": Range.exact(each.flow_runs_s * 3_600),
                "a backup, hours": each.backup_s * (1 / 3_600),
            }
            for each in needs
        ],
    )


def _money(model: Model, needs: Sequence[Needs]) -> str:
    rows = []
    for each in needs:
        cards, one = each.month_with_cards, 1 / each.traffic.cameras
        whole, beside = (total(list(month.values())) for month in (each.month, cards))
        rows.append(
            each.month
            | {"**all, on processors**": whole, "a camera": whole * one}
            | {"cores beside cards": cards["cores"], "cards": cards["cards"]}
            | {"**all, with cards**": beside, "a camera, with cards": beside * one}
        )
    return _named(f"{model.prices.currency} a month", rows)


def _limits(model: Model) -> str:
    found = []
    for limit in LIMITS:
        at = reached(model, limit)
        count, soonest, latest = _count(at), *(_count(reached(model, limit, end)) for end in ("high", "low"))
        span = "" if soonest == latest else f" ({soonest} to {latest})"
        there = f"{said(limit.there(model))} {limit.unit}"
        found.append((at or MOST_CAMERAS, (limit.what, there, count + span, limit.then)))
    return _table(("what breaks", "there is", "from so many cameras", "then"), [row for _, row in sorted(found)])


def _count(cameras: int | None) -> str:
    return f"not up to {MOST_CAMERAS:,}" if cameras is None else said(cameras)


def _steps(model: Model, needs: Sequence[Needs]) -> str:
    rows = []
    for each in needs:
        over = []
        for limit in LIMITS:
            times = limit.needed(model, each).value / limit.there(model)
            if times > 1:
                over.append((times, f"{limit.what} ({said(times)} times)"))
        said_of = "; ".join(text for _, text in sorted(over, reverse=True)) or "nothing"
        rows.append((f"{each.traffic.cameras:,}", said_of))
    return _table(("cameras", "more than there is of"), rows)
