"""Simulated cities, taken in and resolved: processor time, rows, WAL and what is sent to and from Postgres.

A city has one district. Its first half hour is resolved at once, and the next one window by window, from the cameras
up, as `urban-reid up` does. Its features are drawn before anything is measured.
"""

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
from sqlalchemy import text

import pipeline.store.copy
from benchmarks.capacity.figures import LEVELS, CityFigures
from benchmarks.home import home
from pipeline.registry import ModelRow
from pipeline.resolve import resolve_unit, units_within
from pipeline.resolve.closing import Closing
from pipeline.simulation import ingest_simulated
from pipeline.store import Store, embedded, roles
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.levels import level_of
from schemas.parameters import Period
from schemas.settings import Settings
from schemas.times import to_us
from synthetic.embedding_city import EmbeddingCity, EmbeddingCitySettings, PassageBatch, embedding_city
from synthetic.embedding_city.generator import START, Progress

DISTRICT = "d1"
HALF_HOUR = timedelta(minutes=30)

_TABLES = text(
    "SELECT relname LIKE 'crop%' AS of_crops, sum(pg_total_relation_size(oid)) AS bytes FROM pg_class "
    "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace GROUP BY 1"
)
_DATABASE = text("SELECT pg_database_size(current_database())")
_WAL = text("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")


@dataclass(frozen=True)
class Drawn(EmbeddingCity):
    """A city whose crops are there already."""

    drawn: list[PassageBatch] = field(default_factory=list)

    def batches(self, progress: Progress | None = None) -> Iterator[PassageBatch]:
        yield from self.drawn

    @classmethod
    def of(cls, cameras: int, hours: float) -> "Drawn":
        plan = EmbeddingCitySettings(cameras=cameras, days=hours / 24, cameras_per_district=cameras)
        city = embedding_city(plan)
        return cls(city.settings, city.plan, list(city.batches()))

    @property
    def crops(self) -> int:
        return sum(map(len, self.drawn))

    def passages(self, begin: datetime | None = None, end: datetime | None = None) -> int:
        """Passages whose last crop lies in [begin, end)."""
        tracks, of_crop = np.unique(np.concatenate([batch.track for batch in self.drawn]), return_inverse=True)
        last = np.full(len(tracks), np.iinfo(np.int64).min)
        np.maximum.at(last, of_crop, np.concatenate([batch.time_us for batch in self.drawn]))
        after = -np.inf if begin is None else to_us(begin)
        before = np.inf if end is None else to_us(end)
        return int(((last >= after) & (last < before)).sum())


@dataclass(frozen=True)
class Meter:
    """What this process and its Postgres have used and written so far."""

    store: Store
    moved: list[int]

    def used_s(self) -> float:
        """Seconds of a processor, to the nanosecond but for those of Postgres' processes that have ended."""
        pid = (self.store.settings.home / "postgres" / "postmaster.pid").read_text().splitlines()[0]
        server = psutil.Process(int(pid))
        ended = server.cpu_times()
        found = time.process_time() + float(ended.children_user + ended.children_system)
        for one in (server, *server.children()):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since, and is counted next time
                found += int(Path(f"/proc/{one.pid}/schedstat").read_text().split()[0]) / 1e9
        return found

    def wal_bytes(self) -> float:
        with self.store.begin() as connection:
            return float(connection.execute(_WAL).scalar_one())

    def copied_bytes(self) -> int:
        return self.moved[0]


@contextmanager
def counted_copies() -> Iterator[list[int]]:
    """One number: the bytes that this process has sent to Postgres and got from it by COPY."""
    moved, copy = [0], pipeline.store.copy._copy

    def do_copy(connection: Any, command: Any, file: Any) -> None:
        copy(connection, command, file if isinstance(file, io.BytesIO) else _Counted(file, moved))
        if isinstance(file, io.BytesIO):
            moved[0] += file.getbuffer().nbytes

    with patch.object(pipeline.store.copy, "_copy", do_copy):
        yield moved


@dataclass
class _Counted:
    file: Any
    moved: list[int]

    def read(self, size: int) -> bytes:
        part: bytes = self.file.read(size)
        self.moved[0] += len(part)
        return part


@dataclass
class City:
    """A city in a home of its own, with all its crops."""

    store: Store
    model: ModelRow
    core: ReIDCore
    meter: Meter
    drawn: Drawn
    ingest_s: float
    ingest_wal_bytes: float
    ingest_copy_bytes: int
    empty_bytes: tuple[float, float, float]  # as `bytes`, before anything was taken in

    def analyze(self) -> None:
        """Brings the planner's statistics up to date, as a live city has them all the time."""
        with (
            embedded.hold(self.store.settings.home) as server,
            closing(server.connect(roles.SUPERUSER)) as session,
            session.cursor() as cursor,
        ):
            session.autocommit = True
            cursor.execute("ANALYZE")

    def resolve(self, until: datetime | None, levels: Sequence[str] = LEVELS) -> dict[str, float]:
        """Resolves what lies before `until`, or all; seconds of a processor of each level."""
        period = None if until is None else Period(from_time=None, to_time=until)
        found, settings = {}, self.store.settings.association
        for level in levels:
            units = [unit for unit in units_within(self.store, DISTRICT) if level_of(unit).value == level]
            used = self.meter.used_s()
            for unit in units:
                resolve_unit(self.store, self.core, self.model, unit, settings=settings, period=period)
            found[level] = self.meter.used_s() - used
        return found

    def look_s(self, times: int = 5) -> float:
        """Seconds of a processor for one look after windows that have closed, which `up` takes each second."""
        looking, used = Closing(self.store.settings.association), self.meter.used_s()
        for _ in range(times):
            with self.store.begin() as connection:
                looking.look(connection, time.monotonic())
        return (self.meter.used_s() - used) / times

    def known(self) -> int:
        """The district's identities."""
        with self.store.begin() as connection:
            query = text("SELECT count(*) FROM identity_now WHERE unit = :unit")
            return int(connection.execute(query, {"unit": DISTRICT}).scalar_one())

    def bytes(self) -> tuple[float, float, float]:
        """Of the tables of crops, of all others, and of the whole database."""
        return table_bytes(self.store)


def table_bytes(store: Store) -> tuple[float, float, float]:
    with store.begin() as connection:
        of = {row.of_crops: float(row.bytes) for row in connection.execute(_TABLES)}
        return of[True], of[False], float(connection.execute(_DATABASE).scalar_one())


@contextmanager
def taken_in(cameras: int, hours: float) -> Iterator[City]:
    drawn = Drawn.of(cameras, hours)
    with home() as folder, counted_copies() as moved:
        settings = Settings(home=folder, database_url=None, threads=1)
        with Store.open(settings, "benchmark") as store:
            meter = Meter(store, moved)
            empty, used, wal = table_bytes(store), meter.used_s(), meter.wal_bytes()
            model = ingest_simulated(store, drawn)
            used, wal = meter.used_s() - used, meter.wal_bytes() - wal
            core = open_core(settings, model.directory(settings))
            yield City(store, model, core, meter, drawn, used, wal, meter.copied_bytes(), empty)


def measure_city(cameras: int) -> CityFigures:
    """Of an hour."""
    middle, end = START + HALF_HOUR, START + 2 * HALF_HOUR
    with taken_in(cameras, 1.0) as city:
        window = timedelta(seconds=city.store.settings.association.window_s)
        windows = round((end - middle) / window)
        look = city.look_s()
        bulk = city.resolve(middle)
        city.analyze()
        wal, copied = city.meter.wal_bytes(), city.meter.copied_bytes()
        live = [city.resolve(middle + (number + 1) * window) for number in range(windows)]
        wal, copied = city.meter.wal_bytes() - wal, city.meter.copied_bytes() - copied
        (of_crops, others, _), empty = city.bytes(), city.empty_bytes
        return CityFigures(
            cameras=cameras,
            passages=city.drawn.passages(end=end),
            crops=city.drawn.crops,
            ingest_s=city.ingest_s,
            ingest_wal_bytes=city.ingest_wal_bytes,
            ingest_copy_bytes=city.ingest_copy_bytes,
            crop_bytes=of_crops - empty[0],
            other_bytes=others - empty[1],
            empty_bytes=empty[2],
            look_s=look,
            bulk_passages=city.drawn.passages(end=middle),
            bulk_s=bulk,
            windows=windows,
            live_passages=city.drawn.passages(middle, end),
            live_s={level: sum(each[level] for each in live) for level in LEVELS},
            live_wal_bytes=wal,
            live_copy_bytes=copied,
        )
