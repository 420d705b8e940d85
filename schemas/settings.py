"""Settings: the only reader of the environment. Every field is `URBAN_REID_<FIELD>`."""

import hashlib
import os
import re
import socket
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from schemas.addresses import host_and_port, is_private
from schemas.cores import core_limit
from schemas.errors import UsageError
from schemas.levels import Level
from schemas.text import Line, Text
from schemas.validation import first_fault


class Frozen(BaseModel):
    """Base of every model that crosses a boundary: immutable, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AssociationSettings(Frozen):
    """Settings that change which identities are found; their digest is part of each run's key."""

    window_s: int = Field(300, ge=1, le=86_400, description="length of a window, seconds")
    horizon_building_s: int = Field(
        900, ge=1, description="age of the oldest identities that a building compares with, seconds"
    )
    horizon_street_s: int = Field(
        3_600, ge=1, description="age of the oldest identities that a street compares with, seconds"
    )
    horizon_district_s: int = Field(
        10**9, ge=1, description="age of the oldest identities that a district compares with, seconds"
    )
    # Version 0.1 used the British name, which is still read, and is hashed so that stored runs keep their keys.
    neighbors: int = Field(
        12,
        ge=1,
        le=200,
        description="candidates a new identity is compared with",
        validation_alias=AliasChoices("neighbors", "neighbours"),  # codespell:ignore neighbours
        serialization_alias="neighbours",  # codespell:ignore neighbours
    )
    small_cluster: int = Field(
        32, ge=1, description="pairs that were not candidates are scored between clusters up to this size"
    )
    medoids: int = Field(4, ge=1, le=16, description="medoids stored with an identity's mean")
    passage_gap_s: float = Field(4.0, gt=0, description="longest pause within a tracklet, seconds")
    fastest_walk_m_s: float = Field(6.0, gt=0, description="faster than this, nobody moves between two cameras, m/s")
    min_quality: float = Field(0.05, ge=0, le=1, description="crops of lower quality are left out of tracklets")

    def horizon_s(self, level: Level) -> int:
        """Age of the oldest identities that `level` compares with, in seconds; at a camera, the longest pause."""
        return {
            Level.CAMERA: round(self.passage_gap_s),
            Level.BUILDING: self.horizon_building_s,
            Level.STREET: self.horizon_street_s,
            Level.DISTRICT: self.horizon_district_s,
        }[level]

    def digest(self) -> bytes:
        """SHA-256 of the settings."""
        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).digest()


def _default_home() -> Path:
    """`~/.local/share/urban-reid`; for root a folder outside any home, because PostgreSQL runs as another user then."""
    if os.geteuid() == 0:
        return Path("/var/lib/urban-reid")
    try:
        return Path.home() / ".local/share/urban-reid"
    except RuntimeError:
        raise UsageError("URBAN_REID_HOME: name a data directory, because this user has no home directory") from None


HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


def _host_name() -> str:
    """The machine's name, as a host of the city may be called."""
    return re.sub("[^A-Za-z0-9._-]", "-", socket.gethostname()).lstrip("._-")[:63] or "host"


HardwareDecoding = Literal["off", "auto", "cuda", "qsv", "vaapi", "amf", "vulkan", "videotoolbox", "d3d11va", "dxva2"]


def _is_numeric(host: str) -> bool:
    return host.replace(".", "").isdigit() or ":" in host


_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*/?")


class Settings(BaseSettings):
    """The program's settings, from environment variables."""

    model_config = SettingsConfigDict(
        env_prefix="URBAN_REID_", env_nested_delimiter="__", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    home: Path = Field(default_factory=_default_home, description="the data directory, which holds all state")
    database_url: Line | None = Field(
        None, description="a PostgreSQL server supplied by the user, postgresql+psycopg2://...; else one is embedded"
    )
    database_direct_url: Line | None = Field(
        None, description="the same server's own address, where URBAN_REID_DATABASE_URL is that of a pool (PgBouncer)"
    )
    replica_url: Line | None = Field(
        None, description="a streaming replica of that server, from which searches and the console's pages are read"
    )
    replica_wait_s: float = Field(
        1.0, ge=0, le=60, description="how long the replica may take to catch up, seconds; then the primary is read"
    )
    pictures_url: Line | None = Field(
        None, description="an object store for pictures and their keys, s3://BUCKET/PREFIX; else they lie in the home"
    )
    cities: dict[Line, Line] = Field(
        {}, description='consoles of other databases that `search-several` asks, by name: {"north": "https://HOST"}'
    )
    city_tokens: dict[Line, SecretStr] = Field({}, description="a token of `tokens add` for each of them, by name")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="device of the Re-ID core")
    engine: Literal["auto", "torch", "openvino"] = Field(
        "auto", description="engine of torch models on a processor; auto: the fastest when one is registered, measured"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="precision of the backbone; auto: the fastest that the model is as good in, measured"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile; auto: in training on CUDA, if it works; on: everywhere; off: nowhere"
    )
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="pictures in one batch of the core; unset: 16 on a CPU, 64 on CUDA"
    )
    threads: int = Field(
        default_factory=core_limit,
        ge=0,
        description="threads of the core; 0: as many as the processor has cores; unset: that, or a container's limit",
    )
    core_url: Line | None = Field(
        None,
        description="where `urban-reid core` serves the core, http://10.0.0.5:8440; https unless it is a private "
        "address; unset: the core process of `up`, or the command itself",
    )
    core_token: SecretStr | None = Field(
        None, description="token that requests to `urban-reid core` carry; else the file core-token in the home"
    )
    ray_address: Line | None = Field(
        None, description="HOST:PORT of a Ray cluster on which `urban-reid core` serves; unset: it starts Ray here"
    )
    ray_min_replicas: int = Field(1, ge=1, le=1_000, description="replicas of a model on Ray Serve, at least")
    ray_max_replicas: int = Field(
        1,
        ge=1,
        le=1_000,
        validate_default=True,
        description="replicas of a model on Ray Serve, at most; added while requests wait",
    )
    ray_gpus: float = Field(
        0.0, ge=0, le=16, description="GPUs of a replica, also a share of one, 0.25; 0: it computes on the processor"
    )
    ray_cpus: float = Field(
        0.0, ge=0, le=1_024, description="cores that a replica reserves of its host; 0: none, and Ray spreads replicas"
    )
    ray_idle_s: int = Field(
        900, ge=1, le=10**7, description="a model that nobody asked for so long leaves Ray Serve, seconds"
    )
    crop_roots: tuple[Line, ...] = Field(
        (), description="URIs below which manifests may name pictures, beside the manifest's own folder"
    )
    datasets: dict[Line, Line] = Field({}, description='data sets to train on, by name: {"market": "market1501:DIR"}')
    max_crop_pixels: int = Field(
        10_000_000,
        ge=64,
        le=64_000_000,
        description="pixels of the largest picture that is decoded; a crop is part of a frame, and 4K has 8.8 million",
    )
    rtsp_user: SecretStr | None = Field(None, description="user name for RTSP cameras; never part of an address")
    rtsp_password: SecretStr | None = Field(None, description="password for RTSP cameras; never part of an address")
    hardware_decoding: HardwareDecoding = Field(
        "off", description="what decodes streams: off: the processor; auto: hardware that FFmpeg finds; or one kind"
    )
    camera_secrets: dict[Line, SecretStr] = Field(
        {}, description='users and passwords of cameras, by name: {"gate": "user:password"}; else camera-secrets.toml'
    )
    webhook_url: SecretStr | None = Field(
        None, description="http(s) address that `up` tells when a camera goes down and comes up, signed"
    )
    webhook_secret: SecretStr | None = Field(
        None, description="what the webhook's messages are signed with; else the file webhook-secret, made if missing"
    )
    metrics: Line | None = Field(
        None, description="where `up` serves Prometheus metrics, such as 127.0.0.1:9464; unset: nowhere"
    )
    log: Literal["text", "json"] = Field("text", description="what the lines of `up` and of its processes' logs are")
    operator: Text = Field(
        default_factory=lambda: os.environ.get("USER", "unknown"), description="name of the operator, for the audit"
    )
    token: SecretStr | None = Field(
        None, description="token of a session, for scripts; else that which `urban-reid login` keeps in the home"
    )
    audit_checkpoints: Path | None = Field(
        None, description="file for signed checkpoints of the audit, best on another machine's disk; else in the home"
    )
    key_file: Path | None = Field(
        None,
        description="file of the key that wraps those of pictures and backups, best on another disk; else in the home",
    )
    prefect_url: Line | None = Field(
        None, description="API address of a Prefect server supplied by the user; else one is started on loopback"
    )
    flows: Literal["here", "workers"] = Field(
        "here", description="where `up` has flows run: here, or on the hosts that run `urban-reid worker`"
    )
    host_name: HostName = Field(
        default_factory=_host_name, description="what this host is called among the hosts of the city"
    )
    host_lost_s: int = Field(
        30, ge=10, le=3_600, description="seconds without a sign of life after which others take a host's work"
    )
    camera_looks_per_s: float | None = Field(
        None, ge=0, le=100_000, description="looks a second that this host's cameras may ask for; unset: measured"
    )
    prefect_port: int | None = Field(
        None, ge=1, le=65_535, description="port of Prefect's pages; unset: a free one, which stays the same"
    )
    console_port: int | None = Field(
        None, ge=1, le=65_535, description="port of the console's pages under `up`; unset: 8420, or a free one"
    )
    console_hosts: tuple[Line, ...] = Field(
        (), description="names by which a reverse proxy on this machine calls the console, beside localhost"
    )
    prefect_days: int = Field(
        30, ge=1, le=3_650, description="days after which ended runs are deleted from Prefect's database"
    )
    context_days: int = Field(
        7, ge=1, le=3_650, description="days after which a context frame that was stored is deleted"
    )
    search_memory_mb: int | None = Field(
        None, ge=1, le=10**7, description="memory in which a search keeps prototypes, MB; unset: half of the machine's"
    )
    learning_marks_s: tuple[Annotated[int, Field(gt=0, le=10**9)], ...] = Field(
        (60, 300, 900, 3_600, 14_400, 86_400, 604_800),
        description="seconds of event time after a district's first crop at which its calibration is learned again, "
        "for models without one; []: never",
    )
    association: AssociationSettings = AssociationSettings()

    @field_validator("pictures_url")
    @classmethod
    def _is_in_a_bucket(cls, url: str | None) -> str | None:
        if url is not None and not _BUCKET.fullmatch(url):
            raise ValueError("is no address such as s3://BUCKET/PREFIX")
        return url

    @field_validator("core_url")
    @classmethod
    def _is_served(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        try:
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("is no address such as http://10.0.0.5:8440 or https://HOST")
        # Where a name leads to is looked at when it is connected to.
        if parts.scheme == "http" and _is_numeric(parts.hostname or "") and not is_private(parts.hostname or ""):
            raise ValueError("leaves the private network unencrypted; write https://...")
        return url.rstrip("/")

    @field_validator("ray_address")
    @classmethod
    def _is_in_the_house(cls, address: str | None) -> str | None:
        if address is not None and ((at := host_and_port(address)) is None or not is_private(at[0])):
            raise ValueError("is no HOST:PORT with a numeric loopback or private address")
        return address

    @field_validator("ray_max_replicas")
    @classmethod
    def _is_not_below(cls, most: int, others: ValidationInfo) -> int:
        if most < others.data.get("ray_min_replicas", 1):
            raise ValueError("is below URBAN_REID_RAY_MIN_REPLICAS")
        return most

    def compiles(self, device: str) -> bool:
        """Whether networks are compiled on `device`, cpu or cuda."""
        return self.compile == "on" or (self.compile == "auto" and device == "cuda")

    @property
    def crops_dir(self) -> Path:
        return self.home / "crops"

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def engines_dir(self) -> Path:
        """Torch models converted for other engines, which are made again where they are missing."""
        return self.home / "engines"

    @property
    def detectors_dir(self) -> Path:
        return self.home / "detectors"

    @property
    def look_states_dir(self) -> Path:
        """States between recorded files, in a folder for each camera."""
        return self.home / "cameras"

    @property
    def attributes_dir(self) -> Path:
        return self.home / "attributes"

    def training_dir(self, model: str) -> Path:
        """The folder with a training run's checkpoint, log and curves."""
        return self.home / "training" / model

    @property
    def core_socket(self) -> Path:
        return self.home / "core.sock"

    @property
    def search_socket(self) -> Path:
        return self.home / "search.sock"

    @property
    def cameras_socket(self) -> Path:
        return self.home / "cameras.sock"

    def report_link(self, unit: str) -> Path:
        """The symbolic link to the newest report on `unit`; missing if there is no report."""
        return self.home / "reports" / unit.replace("/", "--")


#: Of the project's tests and benchmarks: where real pictures lie.
_OF_TESTS = {"URBAN_REID_TEST_ASSETS", "URBAN_REID_REAL_SET"}


def unknown_variables() -> list[str]:
    """A line for each variable of the environment that is named like a setting and is none."""
    prefix = "URBAN_REID_"
    known = {f"{prefix}{name.upper()}" for name in Settings.model_fields} | _OF_TESTS
    said = []
    for name in sorted(os.environ):
        if name.upper().startswith(prefix) and name.upper().split("__")[0] not in known:
            near = get_close_matches(
                name.upper().removeprefix(prefix), sorted(map(str.upper, Settings.model_fields)), n=1
            )
            meant = f"; did you mean {prefix}{near[0]}?" if near else ""
            said.append(f"{name} is no setting and is ignored{meant}")
    return said


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once. Raises UsageError, which names the wrong variable."""
    try:
        return Settings()
    except ValidationError as error:
        names = [part.upper() for part in error.errors()[0]["loc"] if isinstance(part, str)]  # the others are indices
        name = "URBAN_REID_" + "__".join(names)
        raise UsageError(f"{name}: {first_fault(error, Settings)[1]}") from None
    except SettingsError as error:  # `error parsing value for field "crop_roots" from source ...`
        field = str(error).split('"')[1]
        raise UsageError(f'URBAN_REID_{field.upper()}: is not JSON; write a list as ["a", "b"]') from None
