"""Checks of the cameras that are taken in, and of how soon people are decided on."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from pipeline.cameras.hosts import HostNow, read_hosts
from pipeline.cameras.overview import STATES, Overview, Refused, overview, refused_files
from pipeline.cameras.rows import read_feeds
from pipeline.city.lag import resolve_lag
from pipeline.doctor.check import Check, ok, to_do
from pipeline.ingest.hardware import Decoding, decoding
from pipeline.store import Store
from reid_core.detection import open_detector
from schemas.errors import UrbanReidError

#: A stream that is looked at less often than this share of what is asked for is too much for the machine.
_ENOUGH_LOOKS = 0.8
#: A person is decided on after a window's length at most, and what the resolve takes; more than this is falling behind.
_SOON_S = 300.0
_NAMED = 3


def check_cameras(store: Store) -> Iterator[Check]:
    now = datetime.now(UTC)
    with store.begin() as connection:
        cameras = overview(connection, now)
        refused = refused_files(connection)
        hosts = read_hosts(connection)
        lag = resolve_lag(connection)
    if cameras:
        yield _cameras(cameras, now)
        if hosts:
            yield _hosts(hosts, cameras, store.settings.host_lost_s)
        if any(camera.feed.kind == "stream" for camera in cameras):
            yield _looks(cameras)
            if store.settings.hardware_decoding != "off":
                yield _hardware(decoding(store.settings.hardware_decoding))
        if any(camera.feed.kind != "stream" for camera in cameras):
            yield _recordings(refused)
    if lag.p95_s is not None:
        late = lag.p95_s > store.settings.association.window_s + _SOON_S
        remedy = f"see {store.settings.home / 'resolver.log'}, and whether the machine has enough processors"
        yield to_do("lag", lag.in_words, remedy) if late else ok("lag", lag.in_words)


def check_detectors(store: Store) -> Check:
    """Whether the home's default detector and that of each camera are there and open."""
    with store.begin() as connection:
        cameras = [(feed.camera, feed.detector) for feed in read_feeds(connection)]
    users = {None: "the default"} | {detector: camera for camera, detector in reversed(cameras) if detector}
    names, faults = [], []
    for which, user in users.items():
        try:
            names.append(open_detector(store.settings, which).name)
        except UrbanReidError as error:
            faults.append(f"{user}: {error}")
    if faults:
        more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
        remedy = "`urban-reid models get NAME` brings one here; `urban-reid cameras set CAMERA --detector NAME` chooses"
        return to_do("detectors", faults[0] + more, remedy)
    return ok("detectors", f"{', '.join(dict.fromkeys(names))} can be opened")


def _cameras(cameras: Sequence[Overview], now: datetime) -> Check:
    counts = Counter(camera.state for camera in cameras)
    runs = any(counts[state] for state in ("up", "starting", "down"))
    said = ", ".join(f"{many} {STATES[state]}" for state, many in sorted(counts.items()))
    odd = [f"{camera.feed.camera}: {why}" for camera in cameras if (why := _odd(camera, now, runs))]
    if odd:
        more = f"; and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
        remedy = "see cameras.log; `urban-reid cameras test CAMERA` opens its stream once"
        return to_do("cameras", f"{said}; {'; '.join(odd[:_NAMED])}{more}", remedy)
    if counts["unknown"] and not runs:
        said += ", because `urban-reid up` does not run"
    return ok("cameras", said)


def _hosts(hosts: Sequence[HostNow], cameras: Sequence[Overview], lost_s: float) -> Check:
    """Whether each camera has a host, and no host more than it can look at."""
    said = ", ".join(
        f"{host.name} {host.cameras} cameras, {host.asked_per_s:.0f} of {host.looks_per_s:.0f} looks a second"
        for host in hosts[:_NAMED]
    ) + (f" and {len(hosts) - _NAMED} more hosts" if len(hosts) > _NAMED else "")
    silent = [host.name for host in hosts if host.seen_s > lost_s]
    alone = [one.feed.camera for one in cameras if one.host is None and not one.feed.paused]
    full = [host.name for host in hosts if host.asked_per_s > host.looks_per_s]
    remedy = "see cameras.log of the hosts; `urban-reid worker --role cameras` on another machine adds one"
    for what, which in (("no sign of life of", silent), ("no host has", alone), ("more than they can look at:", full)):
        if which:
            more = f" and {len(which) - _NAMED} more" if len(which) > _NAMED else ""
            return to_do("camera hosts", f"{what} {', '.join(which[:_NAMED])}{more}; {said}", remedy)
    return ok("camera hosts", said)


def _hardware(by: Decoding) -> Check:
    """Whether hardware decodes the streams, where the settings ask for it."""
    if by.device is None:
        remedy = "install its driver, name another kind in URBAN_REID_HARDWARE_DECODING, or set it to off"
        return to_do("decoding", by.note, remedy)
    return ok("decoding", f"{by.device} decodes streams")


def _recordings(refused: Mapping[str, Refused]) -> Check:
    """Whether recorded files were refused, by camera."""
    if not refused:
        return ok("recordings", "no recorded file was refused")
    named = "; ".join(
        f"{files.many} of {camera}, the last: {files.path} {files.reason}"
        for camera, files in list(refused.items())[:_NAMED]
    )
    more = f" and {len(refused) - _NAMED} more cameras" if len(refused) > _NAMED else ""
    remedy = "what is written again, or whose camera is changed with `urban-reid cameras set`, is tried again"
    return to_do("recordings", f"recorded files were refused: {named}{more}", remedy)


def _odd(camera: Overview, now: datetime, runs: bool) -> str | None:
    """What is wrong with a camera, in words. runs: whether others are looked at."""
    health = camera.health
    if camera.state == "unknown" and runs:
        return "nothing looks at it, and others are looked at"
    if camera.state == "starting" and health is not None and health.detail:
        return health.detail
    if camera.state == "down":
        since = "" if camera.since is None else f" for {(now - camera.since).total_seconds() / 60:.0f} min"
        return f"down{since}: {health.detail if health else ''}".rstrip(": ")
    if camera.state == "up" and health is not None and (health.frozen or health.black):
        return "its picture is black" if health.black else "its picture does not change"
    return None


def _looks(cameras: Sequence[Overview]) -> Check:
    """Whether streams are looked at as often as asked for."""
    streams = [
        (camera.feed.camera, camera.health.looks_per_s, camera.feed.looks_per_s)
        for camera in cameras
        if camera.state == "up" and camera.feed.kind == "stream" and camera.health and camera.health.looks_per_s
    ]
    few = [f"{code} {found:.1f} of {asked:g}" for code, found, asked in streams if found < _ENOUGH_LOOKS * asked]
    if few:
        return to_do(
            "looks",
            f"{len(few)} of {len(streams)} streams are looked at less often than asked, per second: "
            f"{', '.join(few[:_NAMED])}{' ...' if len(few) > _NAMED else ''}",
            "ask for fewer looks, a smaller region or a faster detector (`urban-reid cameras set`)",
        )
    said = f"{len(streams)} streams are looked at as often as asked" if streams else "no stream is up"
    return ok("looks", said)
