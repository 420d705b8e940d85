"""Feeds: what a camera of the city is looked at through, and how it fares."""

import os
import re
from datetime import tzinfo
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, AwareDatetime, Field, ValidationInfo, model_validator

from schemas.levels import Code, Level, level_of
from schemas.numbers import Number
from schemas.settings import Frozen
from schemas.text import Line, Text
from schemas.times import period_text

Kind = Literal["stream", "file", "folder"]
State = Literal["starting", "up", "down", "ended", "refused", "paused"]

_SCHEMES = ("rtsp", "rtsps")


def shown_address(address: str) -> str:
    """An address as messages may hold it: a path as it is; of a stream scheme, host and port, whatever else it says."""
    if "://" not in address:
        return address
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        return "the camera's address"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def with_credentials(address: str, user: str, password: str) -> str:
    """A stream's address with a user and a password. Never to be shown."""
    parts = urlsplit(address)
    return parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}").geturl()


def _address(address: str, info: ValidationInfo) -> str:
    if "://" not in address:
        if not address:
            raise ValueError("the address is empty; write rtsp://host:port/path, or the path of a file or folder")
        if info.context and "folder" in info.context:
            end = "/" if address.endswith("/") else ""
            address = os.path.normpath(info.context["folder"] / address) + end
        if not PurePosixPath(address).is_absolute():
            raise ValueError(f"{address[:200]!r} is no absolute path")
        return address
    shown = shown_address(address)
    parts = urlsplit(address) if "://" in shown else None
    if parts is None:
        raise ValueError("the address has no usable host; it is written rtsp://host:port/path")
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"{shown}: is neither rtsp:// nor rtsps://, nor the path of a file or folder")
    if "@" in parts.netloc or re.search(r"(user|pass|pwd|token)\w*=", parts.path + parts.query, re.IGNORECASE):
        raise ValueError(
            f"{shown}: an address holds no user or password, because it is stored and shown; leave them out, store "
            "them with `urban-reid cameras secret set NAME`, and name that with --secret NAME"
        )
    return address


def _camera(code: str) -> str:
    if level_of(code) is not Level.CAMERA:
        raise ValueError(f"{code} is a {level_of(code)}; a camera's code has four segments, as in d1/s2/b3/c4")
    return code


def _area(polygon: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    twice = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(polygon, (*polygon[1:], polygon[0]), strict=True))
    if abs(twice) < 1e-9:
        raise ValueError("a mask's corners enclose no area")
    return polygon


CameraCode = Annotated[Code, AfterValidator(_camera)]
Address = Annotated[Line, AfterValidator(_address)]
SecretName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Share = Annotated[Number, Field(ge=0, le=1)]
Mask = Annotated[tuple[tuple[Share, Share], ...], Field(min_length=3, max_length=100), AfterValidator(_area)]
Pixels = Annotated[int, Field(ge=0, le=99_999)]


class FeedOptions(Frozen):
    """How a camera is taken in: where from, and what of it is looked at.

    `model_validate(..., context={"folder": Path})` reads relative paths from there.
    """

    address: Address = Field(
        max_length=2000,
        description="rtsp(s)://host:port/path without user and password, or the absolute path of a file; of a folder, "
        "with / at its end",
    )
    secret: SecretName | None = Field(None, description="name of the user and password of a stream")
    looks_per_s: Number = Field(5, ge=0.5, le=30, description="how often a frame is looked at, at most")
    detector: Line | None = Field(None, max_length=200, description="name of a detector; None: the default one")
    region: tuple[Pixels, Pixels, Pixels, Pixels] | None = Field(
        None, description="part of the frame that is looked at: x, y, width, height in pixels"
    )
    masks: tuple[Mask, ...] = Field(
        (), max_length=100, description="areas never looked at: polygons, corners x, y in shares of the frame (0..1)"
    )
    motion_gate: bool = Field(False, description="look only where something moves")
    context_frames: bool = Field(False, description="keep one whole frame of each track for a while")
    start: AwareDatetime | None = Field(None, description="time of a file's first frame")
    fps: Number | None = Field(None, gt=0, le=1000, description="frames a second of files that state no times")
    paused: bool = False

    @property
    def kind(self) -> Kind:
        if "://" in self.address:
            return "stream"
        return "folder" if self.address.endswith("/") else "file"

    @model_validator(mode="after")
    def _fields_of_the_kind(self) -> Self:
        if self.region is not None and not (self.region[2] and self.region[3]):
            raise ValueError("region: its width and height must be at least 1 pixel")
        if self.kind == "stream":
            if self.start is not None or self.fps is not None:
                raise ValueError("start and fps are of recorded files; a stream's frames have the time they arrive at")
        elif self.secret is not None:
            raise ValueError("secret: a file or folder needs no user and password")
        if self.kind == "folder" and self.start is not None:
            raise ValueError("start is of one file; files of a folder have times in their names or data")
        return self


class Feed(FeedOptions):
    """How a camera of the city is taken in."""

    camera: CameraCode


class Health(Frozen):
    """How a camera's feed fares, as of `at`."""

    camera: CameraCode
    state: State
    at: AwareDatetime
    detail: Text = Field("", max_length=500, description="one line on why, without addresses' secrets")
    last_frame_at: AwareDatetime | None = Field(None, description="time of the last frame that was looked at")
    looks_per_s: Number | None = Field(None, ge=0, description="looks a second over the last half minute or so")
    people: int | None = Field(None, ge=0, description="people in the last look")
    lag_s: Number | None = Field(None, description="from a frame's arrival to the end of its look, seconds")
    reconnects: int = Field(0, ge=0, description="how often the feed was opened anew")
    clock_offset_s: Number | None = Field(None, description="the stream's clock minus ours, where it has one")
    frozen: bool = Field(False, description="the picture does not change at all")
    black: bool = Field(False, description="the picture is black")


class Outage(Frozen):
    """A time in which a camera saw nothing. `up_at` None: it is down still."""

    camera: Code
    down_at: AwareDatetime
    up_at: AwareDatetime | None
    reason: str

    def when(self, zone: tzinfo) -> str:
        """Such as `1 Jan 2026 14:02:10-14:31:00`, or `since 1 Jan 2026 14:02:10`."""
        if self.up_at is None:
            return f"since {period_text(self.down_at, self.down_at, zone)}"
        return period_text(self.down_at, self.up_at, zone)
