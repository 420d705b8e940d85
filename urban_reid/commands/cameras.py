"""urban-reid cameras: the streams, files and folders that `urban-reid up` takes in all the time."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer
from pydantic import ValidationError

from schemas.errors import InputError, UsageError
from schemas.feeds import Feed, shown_address
from schemas.levels import check_code
from schemas.parameters import ApprovalParameters
from schemas.settings import settings
from schemas.validation import first_fault
from urban_reid.arguments import AsJson, Operator, Reason, checked
from urban_reid.commands import camera_secrets
from urban_reid.output import Table, out, print_json, shown

if TYPE_CHECKING:
    from pipeline.cameras.overview import Overview

app = typer.Typer(help="The cameras that `urban-reid up` looks at all the time.", no_args_is_help=True)
app.add_typer(camera_secrets.app, name="secret")

Code = Annotated[str, typer.Argument(metavar="CODE", help="The camera's code, such as d1/s1/b1/c1.")]
Secret = Annotated[
    str | None, typer.Option(metavar="NAME", help="Its user and password, stored by `cameras secret set NAME`.")
]
Looks = Annotated[
    str | None,
    typer.Option("--looks-per-s", metavar="N", help="Look at most so often a second, 0.5 to 30; 5 at first."),
]
DetectorName = Annotated[
    str | None,
    typer.Option("--detector", metavar="NAME", help="A detector of this home; its default one unless given."),
]
Region = Annotated[str | None, typer.Option(metavar="x,y,w,h", help="Look at this part of the frame only, in pixels.")]
Masks = Annotated[
    list[str] | None,
    typer.Option(
        "--mask", metavar='"x,y x,y ..."', help="Never look there: corners in shares of the frame. May be repeated."
    ),
]
MotionGate = Annotated[bool | None, typer.Option(help="Look only where something moves.")]
ContextFrames = Annotated[bool | None, typer.Option(help="Keep one whole frame a tracklet.")]
Start = Annotated[str | None, typer.Option(metavar="TIME", help="Time of a file's first frame, with a time zone.")]
Fps = Annotated[str | None, typer.Option(metavar="N", help="Frames a second of a file that states no times.")]
Name = Annotated[str | None, typer.Option(metavar="TEXT", help="The camera's name, for people.")]
Position = Annotated[
    str | None, typer.Option(metavar="x,y", help="Meters east and north of a fixed point, one for the whole city.")
]
Overlaps = Annotated[
    str | None, typer.Option(metavar="CODES", help="Cameras of its building that see some of the same ground.")
]
Clock = Annotated[
    str | None,
    typer.Option("--clock-uncertainty-s", metavar="N", help="Largest error of its clock, seconds; 0.5 at first."),
]


@app.command(epilog="Example: urban-reid cameras add d1/s1/b1/c1 rtsp://10.0.0.5/stream --secret gate")
def add(
    camera: Code,
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="rtsp://host:port/path, a video file, or a folder that a recorder writes files to."
        ),
    ],
    secret: Secret = None,
    looks_per_s: Looks = None,
    detector: DetectorName = None,
    region: Region = None,
    mask: Masks = None,
    motion_gate: MotionGate = None,
    context_frames: ContextFrames = None,
    start: Start = None,
    fps: Fps = None,
    name: Name = None,
    position: Position = None,
    overlaps: Overlaps = None,
    clock_uncertainty_s: Clock = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Add a camera, and the district, street and building of its code where the city lacks them.

    `urban-reid up` takes it in from then on. The address holds no user and no password.
    """
    from pipeline.cameras.changes import Wanted, add_cameras, find_feed
    from pipeline.store import Store

    check_code(camera)
    texts = {
        "secret": secret,
        "looks_per_s": looks_per_s,
        "detector": detector,
        "region": region,
        "start": start,
        "fps": fps,
        "name": name,
        "position": position,
        "overlaps": overlaps,
        "clock_uncertainty_s": clock_uncertainty_s,
    }
    feed, unit = _fields(texts, mask, motion_gate, context_frames)
    wanted = Wanted(_feed({"camera": camera, "address": address} | feed), unit)
    with Store.open(settings(), "urban-reid cameras") as store:
        done = add_cameras(store, [wanted], operator=_operator(operator))
        kept = find_feed(store, camera)
    if as_json:
        print_json({"camera": camera, "outcome": done[camera], "kind": kept.kind, "address": kept.address})
        return
    there = "" if done[camera] == "added" else " already"
    out().print(f"{camera} is taken in{there} from the {kept.kind} {shown(kept.address)}", soft_wrap=True)
    out().print(f"`urban-reid cameras test {camera}` tries it; `urban-reid up` runs it")


@app.command("set", epilog="Example: urban-reid cameras set d1/s1/b1/c1 --position 12,40.5 --overlaps d1/s1/b1/c2")
def set_(
    camera: Code,
    address: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Take it in from there from now on.")] = None,
    secret: Secret = None,
    looks_per_s: Looks = None,
    detector: DetectorName = None,
    region: Region = None,
    mask: Masks = None,
    motion_gate: MotionGate = None,
    context_frames: ContextFrames = None,
    start: Start = None,
    fps: Fps = None,
    name: Name = None,
    position: Position = None,
    overlaps: Overlaps = None,
    clock_uncertainty_s: Clock = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Change what is known of a camera. An empty value sets an option back.

    Position, overlaps and clock may change although there are crops: the next resolve decides anew what they concern.
    """
    from pipeline.cameras.changes import set_camera
    from pipeline.store import Store

    check_code(camera)
    texts = {
        "address": address,
        "secret": secret,
        "looks_per_s": looks_per_s,
        "detector": detector,
        "region": region,
        "start": start,
        "fps": fps,
        "name": name,
        "position": position,
        "overlaps": overlaps,
        "clock_uncertainty_s": clock_uncertainty_s,
    }
    feed, unit = _fields(texts, mask, motion_gate, context_frames)
    if not feed and not unit:
        raise UsageError("nothing to change; see `urban-reid cameras set --help`")
    with Store.open(settings(), "urban-reid cameras") as store:
        outcome = set_camera(store, camera, feed, unit, operator=_operator(operator))
    if as_json:
        print_json({"camera": camera, "outcome": outcome})
        return
    out().print(f"{camera}: {outcome}")


@app.command("list", epilog="Example: urban-reid cameras list")
def list_(as_json: AsJson = False) -> None:
    """List the cameras that are taken in, and how each fares."""
    from pipeline.cameras.overview import overview
    from pipeline.city.units import find_city
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid cameras") as store:
        city = find_city(store)
        with store.begin() as connection:
            found = overview(connection, datetime.now(UTC))
    if as_json:
        print_json({"cameras": [_plain(one) for one in found]})
        return
    if not found:
        out().print("no camera is taken in; `urban-reid cameras add CODE ADDRESS` adds one")
        return
    zone = ZoneInfo(city.timezone if city is not None else "UTC")
    columns = ("camera", "state", f"since ({zone.key})", "last frame", "looks/s", "people", "source", "remarks")
    table = Table(*columns)
    for one in found:
        health = one.health
        rate, people = (None, None) if health is None else (health.looks_per_s, health.people)
        table.add_row(
            one.feed.camera,
            STATES[one.state],
            _time(one.since, zone),
            _time(None if health is None else health.last_frame_at, zone),
            "" if rate is None else f"{rate:.1f} of {one.feed.looks_per_s:g}",
            "" if people is None else str(people),
            shown(shown_address(one.feed.address)),
            shown(", ".join(_remarks(one))),
        )
    out().print(table)


@app.command(epilog="Example: urban-reid cameras test d1/s1/b1/c1 --picture /tmp/c1.png")
def test(
    camera: Code,
    limit_s: Annotated[
        float, typer.Option("--limit-s", metavar="N", min=1, max=120, help="Give up after so many seconds.")
    ] = 15,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save what is looked at, with the people found, readable by you only."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Open a camera, read a frame, and say what the detector sees in it. Nothing is taken in."""
    from pipeline.cameras.changes import find_feed
    from pipeline.cameras.trial import try_camera, write_picture
    from pipeline.store import Store
    from reid_core.detection import open_detector

    check_code(camera)
    with Store.open(settings(), "urban-reid cameras") as store:
        feed = find_feed(store, camera)
    detector = open_detector(settings(), feed.detector)
    found = try_camera(feed, settings(), detector, limit_s)
    if picture is not None:
        write_picture(found, picture)
    height, width = found.first.frame.shape[:2]
    if as_json:
        x, y, *_ = feed.region or (0, 0)
        print_json(
            {
                "camera": camera,
                "width": width,
                "height": height,
                "codec": found.first.codec,
                "fps": found.first.fps,
                "seconds": round(found.seconds, 3),
                "detector": detector.name,
                "people": [
                    {
                        "box": [round(left + x, 1), round(top + y, 1), round(w, 1), round(h, 1)],
                        "confidence": round(sure, 3),
                    }
                    for left, top, w, h, sure in found.people.tolist()
                ],
            }
        )
        return
    rate = "at an unknown rate" if found.first.fps is None else f"{found.first.fps:g} frames/s"
    codec = shown(found.first.codec) or "unknown codec"
    out().print(f"{camera}: {width} x {height}, {codec}, {rate}; a frame after {found.seconds:.1f} s")
    sure = ", ".join(f"{confidence:.2f}" for confidence in found.people[:, 4].tolist())
    many = len(found.people)
    out().print(
        f"{shown(detector.name)} sees {'nobody' if not many else '1 person' if many == 1 else f'{many} people'} in it"
        + (f" (confidence {sure})" if many else "")
    )
    if picture is not None:
        out().print(f"picture {shown(picture)}", soft_wrap=True)


@app.command(epilog='Example: urban-reid cameras pause d1/s1/b1/c1 --reason "works on the roof"')
def pause(camera: Code, reason: Reason, operator: Operator = None, as_json: AsJson = False) -> None:
    """Leave a camera alone until `urban-reid cameras resume`."""
    _pause(camera, True, checked(ApprovalParameters, operator=_operator(operator), reason=reason), as_json)


@app.command(epilog='Example: urban-reid cameras resume d1/s1/b1/c1 --reason "works are done"')
def resume(camera: Code, reason: Reason, operator: Operator = None, as_json: AsJson = False) -> None:
    """Look at a paused camera again."""
    _pause(camera, False, checked(ApprovalParameters, operator=_operator(operator), reason=reason), as_json)


@app.command(epilog='Example: urban-reid cameras remove d1/s1/b1/c1 --reason "taken down"')
def remove(camera: Code, reason: Reason, operator: Operator = None, as_json: AsJson = False) -> None:
    """End that a camera is taken in. Its crops, and what was decided with them, stay."""
    from pipeline.cameras.changes import remove_camera
    from pipeline.store import Store

    check_code(camera)
    approval = checked(ApprovalParameters, operator=_operator(operator), reason=reason)
    with Store.open(settings(), "urban-reid cameras") as store:
        remove_camera(store, camera, operator=approval.operator, reason=approval.reason)
    if as_json:
        print_json({"camera": camera, "outcome": "removed"})
        return
    out().print(f"{camera} is no longer taken in; its unit and its crops stay")


@app.command("import", epilog="Example: urban-reid cameras import cameras.csv")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A .csv with a line a camera, or a city file (.yaml) whose cameras have a feed."
        ),
    ],
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Add the cameras of a file, and change those that are there already; all of them, or none.

    The first line of a CSV file names its columns: camera and address, and any other option of `cameras add` by its
    name with _ for -, such as looks_per_s, region, masks, position, overlaps.
    """
    from pipeline.cameras.changes import add_cameras
    from pipeline.cameras.feed_file import read_feed_file
    from pipeline.store import Store

    found = read_feed_file(file)
    with Store.open(settings(), "urban-reid cameras") as store:
        done = add_cameras(store, found.cameras, operator=_operator(operator), update=True, city=found.city)
    outcomes = list(done.values())
    if as_json:
        print_json({"cameras": done} | {name: outcomes.count(name) for name in ("added", "changed", "unchanged")})
        return
    added, changed, unchanged = (outcomes.count(name) for name in ("added", "changed", "unchanged"))
    out().print(f"{added} cameras added, {changed} changed, {unchanged} as they were")


def _pause(camera: str, paused: bool, approval: ApprovalParameters, as_json: bool) -> None:
    from pipeline.cameras.changes import pause_camera
    from pipeline.store import Store

    check_code(camera)
    with Store.open(settings(), "urban-reid cameras") as store:
        changed = pause_camera(store, camera, paused=paused, operator=approval.operator, reason=approval.reason)
    if as_json:
        print_json({"camera": camera, "paused": paused, "changed": changed})
        return
    out().print(f"{camera} is {'' if changed else 'already '}{'paused' if paused else 'looked at'}")


def _operator(given: str | None) -> str:
    return given or settings().operator


def _fields(
    given: Mapping[str, str | None], masks: list[str] | None, motion_gate: bool | None, context_frames: bool | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of feed and unit that were given. Raises InputError that names the option."""
    from pipeline.cameras.feed_text import fields_of

    texts = {name: text for name, text in given.items() if text is not None}
    if masks is not None:
        texts["masks"] = ";".join(masks)
    try:
        feed, unit = fields_of(texts)
    except InputError as error:
        name, _, why = str(error).partition(": ")
        raise InputError(f"{_option(name)}: {why}") from None
    flags = {"motion_gate": motion_gate, "context_frames": context_frames}
    return feed | {name: flag for name, flag in flags.items() if flag is not None}, unit


def _feed(fields: Mapping[str, Any]) -> Feed:
    try:
        return Feed.model_validate(fields, context={"folder": Path.cwd()})
    except ValidationError as error:
        place, message = first_fault(error, Feed)
        of_option = place and place[0] not in ("camera", "address")
        raise UsageError((f"{_option(str(place[0]))}: " if of_option else "") + message) from None


def _option(field: str) -> str:
    return "--mask" if field == "masks" else f"--{field.replace('_', '-')}"


#: A camera's state in words.
STATES = {
    "up": "[green]up[/green]",
    "down": "[red]down[/red]",
    "starting": "starting",
    "ended": "read to its end",
    "paused": "paused",
    "unknown": "not running",
}


def _time(moment: datetime | None, zone: ZoneInfo) -> str:
    return "" if moment is None else f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S}"


def _remarks(one: "Overview") -> list[str]:
    health = one.health
    if health is None or one.state in ("unknown", "paused"):
        return []
    said = [health.detail] if health.detail else []
    said += ["picture frozen"] if health.frozen else []
    said += ["picture black"] if health.black else []
    if health.reconnects:
        said.append(f"opened anew {health.reconnects} times")
    if health.clock_offset_s is not None and abs(health.clock_offset_s) >= 1:
        said.append(
            f"its clock is {abs(health.clock_offset_s):.0f} s {'ahead' if health.clock_offset_s > 0 else 'behind'}"
        )
    return said


def _plain(one: "Overview") -> dict[str, Any]:
    return {
        "camera": one.feed.camera,
        "state": one.state,
        "since": None if one.since is None else one.since.isoformat(),
        "feed": one.feed.model_dump(mode="json", exclude={"camera"}) | {"kind": one.feed.kind},
        "health": None if one.health is None else one.health.model_dump(mode="json", exclude={"camera"}),
    }
