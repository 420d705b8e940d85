"""What so many cameras need, computed from what was measured and what is assumed.

A city has full districts of `cameras_per_district`, and one of the rest. A search is one of the largest district.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from benchmarks.capacity.estimate import NOTHING, Range, total
from benchmarks.capacity.figures import Load, Measured, Prices
from benchmarks.capacity.stages import Stages
from benchmarks.capacity.traffic import DAY_S, HOUR_S, Traffic

GB, MB, GBIT = 1e9, 1e6, 1e9 / 8
#: Stages that a card takes over.
ON_A_CARD = ("detection", "embedding")


@dataclass(frozen=True)
class Needs:
    """Of the busiest hour, unless a name says otherwise. cores, network_gbit_s and month are by name."""

    traffic: Traffic
    cores: dict[str, Range]  # that are busy
    bought_cores: Range  # with the room that `most_busy` leaves
    cards: float  # where detection and embedding run on cards
    bought_cores_beside_cards: Range
    network_gbit_s: dict[str, Range]
    database_gb: Range
    database_write_mb_s: Range
    database_write_gb_day: Range
    files_gb: Range
    prototypes: float
    search_memory_gb: float
    search_s: Range  # of a processor
    window_s: Range  # of a processor: a window of the largest district, with everything below it
    windows_s: Range  # the same of all districts
    flow_runs_s: float
    tasks_s: float  # of these runs
    prefect_server: float  # cores
    backup_s: Range  # by the clock
    month: dict[str, Range]
    month_with_cards: dict[str, Range]


@dataclass(frozen=True)
class Model:
    measured: Measured
    load: Load
    prices: Prices

    @cached_property
    def stages(self) -> Stages:
        return Stages(self.measured)

    def needs(self, cameras: int) -> Needs:
        """0 cameras need what the idle processes and an empty database take."""
        traffic, stages, load = Traffic.of(self.load, cameras), self.stages, self.load
        window = self._window(traffic.largest)
        windows = self._window(load.cameras_per_district) * traffic.full_districts + self._window(traffic.rest)
        prototypes = traffic.passages_kept * stages.prototypes
        search_s = stages.search(prototypes * traffic.largest / cameras) if cameras else NOTHING
        flow_runs = traffic.windows_s + traffic.searches_s
        tasks = cameras * load.units_per_camera / load.window_s  # at most: a unit without news has none
        prefect = self.measured.flows.server_run_s * flow_runs + self.measured.flows.server_task_s * tasks
        database, files = self._database_bytes(traffic), self._file_bytes(traffic.crops_kept)
        wal = self._per_passage("wal_bytes")
        backup_s = database * stages.backup_s_per_byte
        closing = stages.closing(cameras) if cameras else NOTHING
        cores = {
            "decoding": stages.decoding * (load.stream_frames_per_s * cameras),
            "following, cutting, writing": stages.following(cameras, traffic.looks_s, traffic.crops_s),
            "detection": stages.detection * traffic.looks_s,
            "embedding": stages.embedding(load.embedding) * traffic.crops_s,
            "resolve": windows * (1 / load.window_s),
            "looking for closed windows": closing,  # each second
            "searches": search_s * traffic.searches_s,
            "Prefect": Range.exact(self.measured.flows.run_s * flow_runs + self.measured.flows.task_s * tasks),
            "a backup a day": backup_s * (1 / DAY_S),
            "idle processes": Range.exact(self.measured.idle.cores),
        }
        room = 1 / load.most_busy
        bought = total(list(cores.values())) * room
        beside = total([used for name, used in cores.items() if name not in ON_A_CARD]) * room
        cards = (traffic.looks_s / load.gpu.detections_per_s + traffic.crops_s / load.gpu.crops_per_s) * room
        stored = self._stored_month(traffic, database, files)
        return Needs(
            traffic=traffic,
            cores=cores,
            bought_cores=bought,
            cards=cards,
            bought_cores_beside_cards=beside,
            network_gbit_s=self._network(traffic),
            database_gb=database * (1 / GB),
            database_write_mb_s=wal * (traffic.passages_s / MB),
            database_write_gb_day=wal * (traffic.passages_day / GB),
            files_gb=files * (1 / GB),
            prototypes=prototypes,
            search_memory_gb=prototypes * self.measured.day.search_bytes / self.measured.day.prototypes / GB,
            search_s=search_s,
            window_s=window,
            windows_s=windows,
            flow_runs_s=flow_runs,
            tasks_s=tasks,
            prefect_server=prefect,
            backup_s=backup_s,
            month={"cores": self._hours(bought, self.prices.core_hour)} | stored,
            month_with_cards={
                "cores": self._hours(beside, self.prices.core_hour),
                "cards": self._hours(Range.exact(cards), self.prices.gpu_hour),
            }
            | stored,
        )

    def _window(self, cameras: int) -> Range:
        return total(list(self.stages.window(self.load, cameras).values()))

    def _per_passage(self, what: str) -> Range:
        """Bytes that a passage with its crops makes: of its ingest and of its resolve."""
        crop, resolved = self.stages.per_city(f"ingest_{what}", "crops"), f"live_{what}"
        return crop * self.load.crops_per_passage + self.stages.per_city(resolved, "live_passages")

    def _database_bytes(self, traffic: Traffic) -> Range:
        stages = self.stages
        crops = stages.per_city("crop_bytes", "crops") * traffic.crops_kept
        others = stages.per_city("other_bytes", "passages") * traffic.passages_kept
        return Range.of([city.empty_bytes for city in self.measured.cities]) + crops + others

    def _file_bytes(self, crops: float) -> Range:
        return Range.of([one.crop_file_bytes for one in self.measured.streams if one.crop_file_bytes]) * crops

    def _network(self, traffic: Traffic) -> dict[str, Range]:
        picture = max(one.detector_picture_bytes for one in self.measured.streams)
        crop = max(one.model_picture_bytes for one in self.measured.streams)
        to_core = traffic.looks_s * picture + traffic.crops_s * crop
        bytes_s = {
            "cameras to their hosts": Range.exact(traffic.cameras * self.load.stream_mbit_s * 1e6 / 8),
            "their hosts to a core elsewhere": Range.exact(to_core),
            "to and from the database": self._per_passage("copy_bytes") * traffic.passages_s,
            "to the object store": self._file_bytes(traffic.crops_s),
        }
        return {name: found * (1 / GBIT) for name, found in bytes_s.items()}

    def _hours(self, count: Range, price: float) -> Range:
        """Of whole cores or cards."""
        month = self.prices.hours_per_month * price
        return Range(*(math.ceil(each) * month for each in (count.value, count.low, count.high)))

    def _stored_month(self, traffic: Traffic, database: Range, files: Range) -> dict[str, Range]:
        prices, seconds = self.prices, self.prices.hours_per_month * HOUR_S
        writes = traffic.crops_day * seconds / DAY_S / 1e6 * prices.object_million_writes
        backup = self.measured.day.backup_bytes / self.measured.day.database_bytes
        return {
            "database": database * (prices.database_gb_month / GB),
            "pictures": files * (prices.object_gb_month / GB) + Range.exact(writes),
            "a backup": database * (backup * prices.backup_gb_month / GB),
        }
