"""urban-reid cameras: the streams, files and folders that `urban-reid up` takes in all the time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from schemas.errors import InputError, UsageError
from schemas.feeds import Feed
from schemas.levels import check_code
from schemas.parameters import ApprovalParameters
from schemas.settings import settings
from schemas.validation import first_fault
from urban_reid.arguments import AsJson, CameraCode, Operator, Reason, checked
from urban_reid.commands import camera_health, camera_secrets
from urban_reid.output import out, print_json, shown

app = typer.Typer(help="The cameras that `urban-reid up` looks at all the time.", no_args_is_help=True)
app.add_typer(camera_health.app)
app.add_typer(camera_secrets.app, name="secret")

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
ContextFrames = Annotated[
    bool | None, typer.Option(help="Keep the whole frame of each track's first picture for some days.")
]
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
    camera: CameraCode,
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
    given = locals()
    from pipeline.cameras.changes import Wanted, add_cameras, find_feed
    from pipeline.store import Store

    check_code(camera)
    feed, unit = _fields(given)
    wanted = Wanted(_feed(feed | {"camera": camera, "address": address}), unit)
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
    camera: CameraCode,
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
    given = locals()
    from pipeline.cameras.changes import set_camera
    from pipeline.store import Store

    check_code(camera)
    feed, unit = _fields(given)
    if not feed and not unit:
        raise UsageError("nothing to change; see `urban-reid cameras set --help`")
    with Store.open(settings(), "urban-reid cameras") as store:
        try:
            outcome = set_camera(store, camera, feed, unit, operator=_operator(operator))
        except UsageError as error:
            place, _, why = str(error).partition(": ")
            name = place.partition(".")[0]
            raise UsageError(f"{_option(name)}: {why}" if name in feed else str(error)) from None
    if as_json:
        print_json({"camera": camera, "outcome": outcome})
        return
    out().print(f"{camera}: {outcome}")


@app.command(epilog='Example: urban-reid cameras pause d1/s1/b1/c1 --reason "works on the roof"')
def pause(camera: CameraCode, reason: Reason, operator: Operator = None, as_json: AsJson = False) -> None:
    """Leave a camera alone until `urban-reid cameras resume`."""
    _pause(camera, True, checked(ApprovalParameters, operator=_operator(operator), reason=reason), as_json)


@app.command(epilog='Example: urban-reid cameras resume d1/s1/b1/c1 --reason "works are done"')
def resume(camera: CameraCode, reason: Reason, operator: Operator = None, as_json: AsJson = False) -> None:
    """Look at a paused camera again."""
    _pause(camera, False, checked(ApprovalParameters, operator=_operator(operator), reason=reason), as_json)


@app.command(epilog='Example: urban-reid cameras remove d1/s1/b1/c1 --reason "taken down"')
def remove(camera: CameraCode, reason: Reason, operator: Operator = None, as_json: AsJson = False) -> None:
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


def _fields(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of feed and unit among a command's options. Raises InputError that names the option."""
    from pipeline.cameras.feed_text import FEED_FIELDS, UNIT_FIELDS, fields_of

    names = ("address", *FEED_FIELDS, *UNIT_FIELDS)
    flags = {name: value for name in names if isinstance(value := given.get(name), bool)}
    texts = {name: value for name in names if isinstance(value := given.get(name), str)}
    if given["mask"] is not None:
        texts["masks"] = ";".join(given["mask"])
    try:
        feed, unit = fields_of(texts)
    except InputError as error:
        name, _, why = str(error).partition(": ")
        raise InputError(f"{_option(name)}: {why}") from None
    return feed | flags, unit


def _feed(fields: Mapping[str, Any]) -> Feed:
    try:
        return Feed.model_validate(fields, context={"folder": Path.cwd()})
    except ValidationError as error:
        place, message = first_fault(error, Feed)
        of_option = place and place[0] not in ("camera", "address")
        raise UsageError((f"{_option(str(place[0]))}: " if of_option else "") + message) from None


def _option(field: str) -> str:
    return "--mask" if field == "masks" else f"--{field.replace('_', '-')}"
