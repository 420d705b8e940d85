"""What is measured and what is assumed, as the files of this folder have it."""

from datetime import date
from pathlib import Path
from typing import TypeVar

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from schemas.settings import Frozen

HERE = Path(__file__).parent
MEASURED, LOAD, PRICES = HERE / "measured.json", HERE / "load.json", HERE / "prices.json"
#: Levels of the city, upward, as the figures name them.
LEVELS = ("camera", "building", "street", "district")


class Streams(Frozen):
    """Cameras that were looked at for a while. Seconds are those of a processor."""

    video: str
    size: str
    cameras: PositiveInt
    frames_per_s: PositiveFloat
    asked_looks_per_s: PositiveFloat  # of which nearly all were made, or the figures are refused
    decoding_s: PositiveFloat  # a second of a stream
    detection_s: PositiveFloat  # a look
    embedding_s: PositiveFloat  # a crop
    stream_bytes_per_s: PositiveFloat
    crop_file_bytes: NonNegativeFloat  # mean; 0: there was no crop
    detector_picture_bytes: PositiveInt  # what a look sends to the core
    model_picture_bytes: PositiveInt  # what a crop sends to the core
    # Per camera, one value for each interval of the time:
    looks_per_s: list[float]
    crops_per_s: list[float]
    features_per_s: list[float]
    used_cores: list[float]  # of the cameras' processes, the core process and the database together

    def rest_cores(self) -> list[float]:
        """Cores for following, cutting, encrypting, sending and writing, per camera, in each interval."""
        return [
            used - self.decoding_s - looks * self.detection_s - features * self.embedding_s
            for used, looks, features in zip(self.used_cores, self.looks_per_s, self.features_per_s, strict=True)
        ]


class CityFigures(Frozen):
    """A simulated city of one district, resolved as `up` does: a window at a time, after half an hour at once.

    Seconds are those of a processor, of the program and its Postgres together.
    """

    cameras: PositiveInt
    passages: PositiveInt  # of the whole city
    crops: PositiveInt
    ingest_s: PositiveFloat
    ingest_wal_bytes: PositiveFloat
    ingest_copy_bytes: PositiveFloat
    crop_bytes: PositiveFloat  # tables and indexes of crops and vectors
    other_bytes: PositiveFloat  # tables and indexes of everything that a resolve writes
    empty_bytes: PositiveFloat
    look_s: PositiveFloat  # one look after windows that have closed, with all of them pending
    # The first half hour, all windows at once:
    bulk_passages: PositiveInt
    bulk_s: dict[str, float]  # by level
    # The half hour that follows, window by window:
    windows: PositiveInt
    live_passages: PositiveInt
    live_s: dict[str, float]
    live_wal_bytes: PositiveFloat
    live_copy_bytes: PositiveFloat  # in and out


class DayFigures(Frozen):
    """A day of a simulated city: what the history costs its district, and what a search keeps of it."""

    cameras: PositiveInt
    passages: PositiveInt
    early_known: int  # identities of the district before the windows in the morning
    early_window_s: list[float]  # of the district, seconds of a processor
    late_known: int
    late_window_s: list[float]
    identities: PositiveInt  # of the district at the end
    prototypes: PositiveInt
    search_bytes: PositiveFloat  # what the search process keeps of it
    backup_s: PositiveFloat  # by the clock
    backup_bytes: PositiveFloat
    database_bytes: PositiveFloat


class Searches(Frozen):
    prototypes: list[int]
    processor_s: list[float]  # a search, one for each of `prototypes`


class Flows(Frozen):
    """Prefect: runs that find nothing to do, and what a task of a run costs: each pending unit is one.

    Seconds are those of a processor.
    """

    runs: PositiveInt
    run_s: PositiveFloat  # of the caller and of Prefect's server
    server_run_s: PositiveFloat  # of the server alone
    run_bytes: NonNegativeFloat
    task_s: PositiveFloat  # with opening a unit that has nothing to do
    server_task_s: PositiveFloat
    task_bytes: NonNegativeFloat


class Idle(Frozen):
    """`urban-reid up` with nothing to do."""

    cores: NonNegativeFloat
    memory_mb: PositiveFloat


class Measured(Frozen):
    """All figures of one machine."""

    date: date
    processor: str
    cores: PositiveInt
    memory_gb: PositiveFloat
    load: NonNegativeFloat  # of the last minute, before it began: 0 on a quiet machine
    seconds: PositiveFloat  # that the measurement took
    idle: Idle
    streams: list[Streams]
    embedding: dict[str, list[float]]  # by engine: seconds of a processor for a crop, one for each round
    cities: list[CityFigures]
    day: DayFigures
    searches: Searches
    flows: Flows


class Gpu(Frozen):
    """What one card does. `benchmarks.device` measures it; without, it is assumed."""

    name: str
    measured: bool
    detections_per_s: PositiveFloat
    crops_per_s: PositiveFloat
    source: str


class Machine(Frozen):
    """A machine of the kind that one buys."""

    cores: PositiveInt
    memory_gb: PositiveFloat
    network_gbit_s: PositiveFloat
    disk_write_mb_s: PositiveFloat
    disk_tb: PositiveFloat
    connections: PositiveInt  # that a Postgres takes


class Load(Frozen):
    """What the city asks for, and what machines there are."""

    date: date
    source: str
    looks_per_s: PositiveFloat
    stream_mbit_s: PositiveFloat
    stream_frames_per_s: PositiveFloat
    passages_per_camera_day: NonNegativeFloat
    crops_per_passage: NonNegativeFloat
    busiest_hour_share: PositiveFloat  # of the day's passages
    retention_h: PositiveFloat
    searches_per_camera_day: NonNegativeFloat
    cameras_per_district: PositiveInt
    units_per_camera: PositiveFloat  # cameras, buildings, streets and districts
    window_s: PositiveFloat
    embedding: str  # an engine of `Measured.embedding`, or "streams" for the model of the streams
    most_busy: PositiveFloat  # share of a machine that is planned with, 0..1
    connections_per_camera: PositiveInt  # each is a process of its own
    connections_per_process: PositiveInt
    processes_per_machine: PositiveInt  # that ask the database, beside those of cameras
    machine: Machine
    gpu: Gpu


class Prices(Frozen):
    """List prices, an assumption of whoever computes; of no provider."""

    date: date
    source: str
    currency: str
    hours_per_month: PositiveFloat
    core_hour: NonNegativeFloat  # one virtual core with its memory
    gpu_hour: NonNegativeFloat  # one card with its host
    database_gb_month: NonNegativeFloat
    object_gb_month: NonNegativeFloat
    object_million_writes: NonNegativeFloat
    backup_gb_month: NonNegativeFloat


File = TypeVar("File", bound=Frozen)


def read(kind: type[File], path: Path) -> File:
    """Raises pydantic's ValidationError, which names the field, and OSError."""
    return kind.model_validate_json(path.read_bytes())
