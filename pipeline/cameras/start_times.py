"""When a recorded file's first frame was taken: from what lies beside it, its name, its container, or its age.

In this order, and the first that is there counts:

1. a sidecar `VIDEO.json` beside `VIDEO`, such as `plaza.mp4.json`: {"start": "2026-01-01T08:00:00Z", "fps": 25};
2. the file's name, or its folder's and its name together: a date and a time of day, as recorders write them;
3. `creation_time` in the container's metadata;
4. the time of the file's last change less its length, because a recorder closes a file when it ends.

A time without a zone is in the city's.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import av

from pipeline.ingest.raw_rate import raw_rate
from schemas.errors import InputError

_NAMED = re.compile(
    r"(?<!\d)(?P<year>20\d\d)(?P<dash>[-_.]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"[T _/.-]{0,3}"
    r"(?P<hour>\d\d)(?P<colon>[-_.:h]?)(?P<minute>\d\d)(?:(?P=colon)|[-_.:m])?(?P<second>\d\d)"
    r"(?:[.,_-]?(?P<fraction>\d{3}|\d{6}))?(?!\d)s?"
    r"\s?(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)
_EPOCH = re.compile(r"(?<!\d)(1[0-9]{9})(?:[.-]?(\d{3}))?(?!\d)")
#: A container whose clock was never set states an earlier year.
_EARLIEST = datetime(2001, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Start:
    """When the first frame was taken, where that is known from, and the frame rate if a sidecar states it."""

    at: datetime
    known_from: str
    fps: float | None = None


def start_of(path: Path, zone: ZoneInfo, fps: float | None = None) -> Start:
    """The start of a file. Raises InputError for a sidecar that is wrong or a file that is no video."""
    sidecar = path.with_name(f"{path.name}.json")
    if sidecar.is_file():
        return _stated(sidecar, zone)
    named = time_named(path, zone)
    if named is not None:
        return Start(named, "its name")
    created, length_s = _contained(path, fps)
    if created is not None:
        return Start(created, "its container")
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return Start(changed - timedelta(seconds=length_s), "its last change less its length")


def time_named(path: Path, zone: ZoneInfo) -> datetime | None:
    """The time that a file's name states, or its folder's and its name together, UTC; None if neither does."""
    return time_in(path.stem, zone) or time_in(f"{path.parent.name}/{path.stem}", zone)


def time_in(name: str, zone: ZoneInfo) -> datetime | None:
    """The time that a name states, UTC; None if it states none. A date and time of day, or seconds since 1970."""
    for found in _NAMED.finditer(name):
        part = found.groupdict()
        day = "-".join(part[key] for key in ("year", "month", "day"))
        time = ":".join(part[key] for key in ("hour", "minute", "second"))
        try:
            moment = datetime.fromisoformat(f"{day}T{time}.{(part['fraction'] or '').ljust(6, '0')}").replace(
                tzinfo=zone
            )
        except ValueError:
            continue  # such as a month 13
        moment, offset = moment.replace(tzinfo=zone), part["zone"]
        if offset:
            written = "+00:00" if offset.upper() in {"Z", "UTC"} else offset
            moment = moment.replace(tzinfo=datetime.strptime(written, "%z").tzinfo)
        return moment.astimezone(UTC)
    epoch = _EPOCH.search(name)
    if epoch is None:
        return None
    return datetime.fromtimestamp(int(epoch[1]) + int(epoch[2] or 0) / 1000, UTC)


def _stated(sidecar: Path, zone: ZoneInfo) -> Start:
    wrong = InputError(f'{sidecar}: is written {{"start": "2026-01-01T08:00:00Z", "fps": 25}}; fps may be left out')
    try:
        said = json.loads(sidecar.read_bytes())
        moment = datetime.fromisoformat(said["start"])
        fps = None if said.get("fps") is None else float(said["fps"])
    except OSError as error:
        raise InputError(f"{sidecar}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise wrong from None
    if said.keys() - {"start", "fps"}:
        raise wrong
    return Start((moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC), "its sidecar", fps)


def _contained(path: Path, fps: float | None) -> tuple[datetime | None, float]:
    """The container's time of creation, if it states one, and the video's length in seconds."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: is no video that can be read")
            video = container.streams.video[0]
            stated = container.metadata.get("creation_time") or video.metadata.get("creation_time")
            fps = fps or raw_rate(path)
            if fps is not None:  # as VideoFile counts it
                length_s = sum(packet.size > 0 for packet in container.demux(video)) / fps
            else:
                length_s = (container.duration or 0) / 1e6
    except (av.FFmpegError, OSError):
        raise InputError(f"{path}: is no video that can be read") from None
    try:
        created = datetime.fromisoformat(stated).astimezone(UTC) if stated else None
    except ValueError:
        created = None
    return created if created is not None and created > _EARLIEST else None, max(length_s, 0.0)
