"""Settings: the only reader of the environment. Every field is `URBAN_REID_<FIELD>`."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from schemas.errors import UsageError
from schemas.levels import Level


class Frozen(BaseModel):
    """Base of every model that crosses a boundary: immutable, and no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AssociationSettings(Frozen):
    """What decides identities besides model and calibration; its digest is part of each run's key."""

    window_s: int = Field(300, ge=1, le=86_400, description="length of a window, seconds")
    horizon_building_s: int = Field(900, ge=1, description="how far back a building looks, seconds")
    horizon_street_s: int = Field(3_600, ge=1, description="how far back a street looks, seconds")
    horizon_district_s: int = Field(10**9, ge=1, description="how far back a district looks, seconds")
    # Version 0.1 had a British name: read under that too, and hashed under it, so that stored runs keep their keys.
    neighbors: int = Field(
        12,
        ge=1,
        le=200,
        description="candidates a new identity is compared with",
        validation_alias=AliasChoices("neighbors", "neighbours"),  # codespell:ignore neighbours
        serialization_alias="neighbours",  # codespell:ignore neighbours
    )
    small_cluster: int = Field(32, ge=1, description="unscored pairs between clusters up to this size are scored")
    medoids: int = Field(4, ge=1, le=16, description="medoids kept beside an identity's mean")
    passage_gap_s: float = Field(4.0, gt=0, description="a longer pause before one camera starts a new tracklet")
    fastest_walk_m_s: float = Field(6.0, gt=0, description="faster than this between two cameras is impossible")
    min_quality: float = Field(0.05, ge=0, le=1, description="crops below this quality join no tracklet")

    def horizon_s(self, level: Level) -> int:
        """How far back `level` looks, in seconds. A camera looks back one passage."""
        return {
            Level.CAMERA: round(self.passage_gap_s),
            Level.BUILDING: self.horizon_building_s,
            Level.STREET: self.horizon_street_s,
            Level.DISTRICT: self.horizon_district_s,
        }[level]

    def digest(self) -> bytes:
        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).digest()


def _default_home() -> Path:
    """`~/.local/share/urban-reid`; for root a folder outside any home, since PostgreSQL runs as another user."""
    return Path("/var/lib/urban-reid") if os.geteuid() == 0 else Path.home() / ".local/share/urban-reid"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="URBAN_REID_", env_nested_delimiter="__", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    home: Path = Field(default_factory=_default_home, description="the data directory: all state lives here")
    database_url: str | None = Field(None, description="an own server, postgresql+psycopg2://...; embedded if unset")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the Re-ID core computes")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the backbone; auto asks the device"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile in training, auto: on CUDA; on: embedding too. A CPU needs a C++ compiler"
    )
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="pictures in one padded batch of the core; unset: 16 on a CPU, 64 on CUDA"
    )
    threads: int = Field(0, ge=0, description="threads of the core; 0 takes the processor's cores")
    crop_roots: tuple[str, ...] = Field(
        (), description="URIs below which manifests may name pictures, besides their folder"
    )
    datasets: dict[str, str] = Field({}, description='data sets to train on, by name: {"market": "market1501:DIR"}')
    rtsp_user: SecretStr | None = Field(None, description="for cameras that ask; never written into an address")
    rtsp_password: SecretStr | None = Field(None, description="for cameras that ask; never written into an address")
    operator: str = Field(
        default_factory=lambda: os.environ.get("USER", "unknown"), description="who is asking, for the audit"
    )
    prefect_url: str | None = Field(
        None, description="an own Prefect server's API address; else one is started on loopback"
    )
    test_assets: Path | None = Field(None, description="tests only: folder of real pictures and models")
    real_set: Path | None = Field(None, description="tests only: a real cross-camera set in Market-1501 form")
    association: AssociationSettings = AssociationSettings()

    def compiles(self, device: str) -> bool:
        """Whether networks are compiled on `device`, cpu or cuda."""
        return self.compile == "on" or (self.compile == "auto" and device == "cuda")

    @property
    def crops_dir(self) -> Path:
        return self.home / "crops"

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    def training_dir(self, model: str) -> Path:
        """Where a training run keeps its checkpoint, log and curves until its model is registered, and afterwards."""
        return self.home / "training" / model

    @property
    def core_socket(self) -> Path:
        return self.home / "core.sock"

    def report_link(self, unit: str) -> Path:
        """A symbolic link to the newest report on `unit`, where there is one."""
        return self.home / "reports" / unit.replace("/", "--")


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once. Raises UsageError naming the variable at fault."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "URBAN_REID_" + "__".join(str(part).upper() for part in first["loc"])
        raise UsageError(f"{name}: {first['msg']}") from None
    except SettingsError as error:  # `error parsing value for field "crop_roots" from source ...`
        field = str(error).split('"')[1]
        raise UsageError(f'URBAN_REID_{field.upper()}: is not JSON; a list is written ["a", "b"]') from None
