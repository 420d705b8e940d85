"""What the catalog holds: `models.toml`, checked."""

import hashlib
import tomllib
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.calibration import DistancePrior
from schemas.cards import InputConvention
from schemas.errors import UsageError
from schemas.settings import Frozen

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Address = Annotated[str, StringConstraints(pattern=r"^https://[^\s?#]+$")]

#: Bytes of a file for which the publisher states no size.
MAX_BYTES = 2**30


class Task(StrEnum):
    RE_IDENTIFICATION = "re-identification"
    DETECTION = "detection"
    ATTRIBUTES = "attributes"
    FACES = "faces"


class CatalogFile(Frozen):
    """A published file. It has one whole hash, or none where its publisher states none."""

    name: Name
    address: Address
    bytes: int | None = Field(None, gt=0, le=MAX_BYTES)
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    sha384: str | None = Field(None, pattern=r"^[0-9a-f]{96}$")
    sha256_begins: str | None = Field(None, pattern=r"^[0-9a-f]{8}$")

    @property
    def hash(self) -> tuple[Literal["sha256", "sha384"], str] | None:
        """Its algorithm and whole hash in hexadecimal digits; None where none is published."""
        if self.sha384 is not None:
            return "sha384", self.sha384
        return None if self.sha256 is None else ("sha256", self.sha256)

    @model_validator(mode="after")
    def _one_hash(self) -> Self:
        if sum(stated is not None for stated in (self.sha256, self.sha384, self.sha256_begins)) > 1:
            raise ValueError(f"{self.name}: has more than one hash")
        return self


class Release(Frozen):
    """Files that belong together: one that an engine opens, first, and its parts."""

    name: str
    files: tuple[CatalogFile, ...] = Field(min_length=1)


class Measured(Frozen):
    figures: str
    on: str
    by: str


class CatalogModel(Frozen):
    """A published model. `releases`: the first is fetched, the others are known by their hashes."""

    name: Name
    task: Task
    publisher: str
    license_code: str
    license_data: str
    input: InputConvention | None = None
    dims: int | None = Field(None, gt=0)
    gflops: float | None = Field(None, gt=0)
    note: str = ""
    measured: tuple[Measured, ...] = ()
    distances: DistancePrior | None = None
    releases: tuple[Release, ...] = Field(min_length=1)


class _Catalog(Frozen):
    models: tuple[CatalogModel, ...]


@cache
def catalog() -> tuple[CatalogModel, ...]:
    """All models of the catalog, in its order."""
    with (Path(__file__).parent / "models.toml").open("rb") as file:
        return _Catalog.model_validate(tomllib.load(file)).models


def find_model(name: str) -> CatalogModel:
    """The model of this name. Raises UsageError that names the most similar ones."""
    found = {model.name: model for model in catalog()}
    if name not in found:
        near = get_close_matches(name, found, n=3, cutoff=0.5) or [known for known in found if name in known][:3]
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise UsageError(f"no model {name[:80]!r} in the catalog{hint}; `urban-reid models catalog` lists it")
    return found[name]


def published_embedder(file: Path) -> CatalogModel | None:
    """The catalog's model that a published .xml or .onnx embedder is, known by its hash; None if it is not known."""
    known = {
        release.files[0].hash[1]: model
        for model in catalog()
        for release in model.releases
        if model.task is Task.RE_IDENTIFICATION and release.files[0].hash
    }
    found = (known.get(hash_of(file, algorithm)) for algorithm in ("sha384", "sha256"))
    return next((model for model in found if model is not None), None)


def hash_of(path: Path, algorithm: str) -> str:
    """The hash of a file's content in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
