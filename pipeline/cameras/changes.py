"""Cameras added, changed, paused and removed: each change in one transaction with its audit row.

What a camera is looked at through is its feed; where it hangs is the city's matter (`pipeline/city/units.py`), which is
changed in the same transaction. Crops stay whatever happens to the feed that they came through.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from sqlalchemy import Connection

from pipeline.cameras import seams
from pipeline.cameras.recordings import try_again
from pipeline.cameras.rows import read_feeds, remove_feed, write_feed
from pipeline.cameras.secrets import address_with_secret
from pipeline.city.units import change_city
from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from reid_core.detection.files import detector_names
from schemas.city_file import City, Unit, nearest
from schemas.errors import CityError, InputError, UsageError
from schemas.feeds import Feed
from schemas.levels import parent_of
from schemas.settings import Settings
from schemas.validation import fault_line

Outcome = Literal["added", "changed", "unchanged"]


@dataclass(frozen=True)
class Wanted:
    """A camera as it is to be: its feed, and those fields of its unit that were given."""

    feed: Feed
    unit: Mapping[str, Any] = field(default_factory=dict)  # name, position, overlaps, clock_uncertainty_s


def settled(feed: Feed, settings: Settings) -> Feed:
    """The feed as it is stored, after a look at what it names: a folder's path ends with /.

    Raises InputError if its file or folder cannot be read, or its secret or detector is not there.
    """
    names = ["hog", *detector_names(settings)]
    if feed.detector is not None and feed.detector not in names:
        raise InputError(
            f"{feed.camera}: no detector {feed.detector[:80]!r} in this home, which has {', '.join(names)}"
        )
    if feed.kind == "stream":
        address_with_secret(feed, settings)
        return feed
    path = Path(feed.address)
    try:
        if path.is_dir():
            address = f"{path}/".replace("//", "/")
        else:
            address = str(path)
            path.open("rb").close()
        return Feed.model_validate(feed.model_dump() | {"address": address})
    except ValidationError as error:
        raise UsageError(f"{feed.camera}: {fault_line(error, Feed)}") from None
    except OSError as error:
        raise InputError(f"{feed.camera}: {path}: cannot be read: {error.strerror}") from None


def add_cameras(
    store: Store, cameras: Sequence[Wanted], *, operator: str, update: bool = False, city: City | None = None
) -> dict[str, Outcome]:
    """Adds cameras with the units that are missing above them; all or none. By code, what happened to each.

    city: to begin with where no city is loaded. update: a camera that has another feed gets this one, and stays paused
    if it is; else UsageError. Raises CityError for units and overlaps that do not fit.
    """
    settled_feeds = [settled(wanted.feed, store.settings) for wanted in cameras]
    outcomes: dict[str, Outcome] = {}
    with store.begin() as connection:
        units = {wanted.feed.camera: wanted.unit for wanted in cameras}
        change_city(connection, lambda known: _with_units(known or city, units), operator)
        there = {feed.camera: feed for feed in read_feeds(connection)}
        for feed in settled_feeds:
            old = there.get(feed.camera)
            if old is None:
                write_feed(connection, feed)
                try_again(connection, feed.camera)
                details = feed.model_dump(mode="json", exclude_defaults=True, exclude={"camera"})
                audit(connection, operator, Action.CAMERA_ADD, unit=feed.camera, details=details)
                outcomes[feed.camera] = "added"
                continue
            new = feed.model_copy(update={"paused": old.paused})
            if new != old and not update:
                raise UsageError(
                    f"{feed.camera} is taken in already, from {old.address}",
                    do=f"`urban-reid cameras set {feed.camera}` changes that",
                )
            outcomes[feed.camera] = _change(connection, old, new, operator)
    return outcomes


def set_camera(
    store: Store, camera: str, feed: Mapping[str, Any], unit: Mapping[str, Any], *, operator: str
) -> Outcome:
    """Changes fields of a camera's feed and unit. Raises UsageError and CityError as `add_cameras`."""
    with store.begin() as connection:
        changed = change_city(connection, lambda city: _with_units(_with(city, camera), {camera: unit}), operator)
        outcome: Outcome = "unchanged"
        if feed:
            old = _feed(connection, camera)
            try:
                new = Feed.model_validate(old.model_dump() | dict(feed), context={"folder": Path.cwd()})
            except ValidationError as error:
                raise UsageError(fault_line(error, Feed)) from None
            outcome = _change(connection, old, settled(new, store.settings), operator)
        return "changed" if changed else outcome


def pause_camera(store: Store, camera: str, *, paused: bool, operator: str, reason: str | None) -> bool:
    """Has a camera left alone, or looked at again; False if it is so already. Raises UsageError without a feed."""
    with store.begin() as connection:
        feed = _feed(connection, camera)
        if feed.paused == paused:
            return False
        write_feed(connection, feed.model_copy(update={"paused": paused}))
        action = Action.CAMERA_PAUSE if paused else Action.CAMERA_RESUME
        audit(connection, operator, action, unit=camera, reason=reason, details={})
    return True


def remove_camera(store: Store, camera: str, *, operator: str, reason: str) -> None:
    """Ends that a camera is taken in. Its unit, crops and outages stay. Raises UsageError if it has no feed."""
    with store.begin() as connection:
        feed = _feed(connection, camera)
        remove_feed(connection, camera)
        details = feed.model_dump(mode="json", exclude_defaults=True, exclude={"camera"})
        audit(connection, operator, Action.CAMERA_REMOVE, unit=camera, reason=reason, details=details)
    seams.forget(store.settings, camera)


def find_feed(store: Store, camera: str) -> Feed:
    """The camera's feed. Raises UsageError if it has none."""
    with store.begin() as connection:
        return _feed(connection, camera)


def _feed(connection: Connection, camera: str) -> Feed:
    feeds = {feed.camera: feed for feed in read_feeds(connection)}
    if camera not in feeds:
        there = f"; there are: {', '.join(list(feeds)[:10])}" if feeds else ""
        raise UsageError(f"{camera} is not taken in{there}", do=f"`urban-reid cameras add {camera} ADDRESS` adds it")
    return feeds[camera]


def _change(connection: Connection, old: Feed, new: Feed, operator: str) -> Outcome:
    was, now = old.model_dump(mode="json"), new.model_dump(mode="json")
    details = {name: [was[name], now[name]] for name in now if was[name] != now[name]}
    if not details:
        return "unchanged"
    write_feed(connection, new)  # before what follows: see recordings.py
    try_again(connection, new.camera)
    audit(connection, operator, Action.CAMERA_CHANGE, unit=new.camera, details=details)
    return "changed"


def _with(city: City | None, camera: str) -> City:
    """The city, if it has the camera. Raises CityError."""
    known = set() if city is None else {unit.code for unit in city.units}
    if city is None or camera not in known:
        raise CityError(nearest(camera, known), do=f"`urban-reid cameras add {camera} ADDRESS` adds it")
    return city


def _with_units(city: City | None, cameras: Mapping[str, Mapping[str, Any]]) -> City:
    """The city with these cameras, with the units that are missing above them, and with the given fields changed."""
    units = {} if city is None else {unit.code: unit.model_dump() for unit in city.units}
    for code, given in cameras.items():
        above = parent_of(code)
        while above is not None and above not in units:
            units[above] = {"code": above}
            above = parent_of(above)
        fields = units.setdefault(code, {"code": code})
        if "overlaps" in given:  # which stand on both sides
            for other in fields.get("overlaps", ()):
                units[other]["overlaps"] = tuple(one for one in units[other]["overlaps"] if one != code)
    for code, given in cameras.items():
        units[code].update(given)
    try:
        return City(
            timezone="UTC" if city is None else city.timezone,
            units=tuple(Unit.model_validate(fields) for fields in units.values()),
            walks=() if city is None else city.walks,
        )
    except ValidationError as error:
        raise CityError(fault_line(error, City).removeprefix("units: ")) from None
