"""urban-reid cameras list and test: how the cameras fare."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from schemas.feeds import shown_address
from schemas.levels import check_code
from schemas.settings import settings
from urban_reid.arguments import AsJson, CameraCode
from urban_reid.output import Table, out, print_json, shown

if TYPE_CHECKING:
    from pipeline.cameras.overview import Overview, Seen

app = typer.Typer()

_COLORS = {"up": "green", "down": "red", "refused": "red"}


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
    hosts = any(one.host is not None for one in found)
    table = Table(*columns, *(("host",) if hosts else ()))
    for one in found:
        health = one.health
        rate, people = (None, None) if health is None else (health.looks_per_s, health.people)
        table.add_row(
            one.feed.camera,
            colored(one.state),
            _time(one.since, zone),
            _time(None if health is None else health.last_frame_at, zone),
            "" if rate is None else f"{rate:.1f} of {one.feed.looks_per_s:g}",
            "" if people is None else str(people),
            shown(shown_address(one.feed.address)),
            shown(", ".join(_remarks(one))),
            *((one.host or "",) if hosts else ()),
        )
    out().print(table)


@app.command(epilog="Example: urban-reid cameras test d1/s1/b1/c1 --picture /tmp/c1.png")
def test(
    camera: CameraCode,
    limit_s: Annotated[
        float, typer.Option("--limit-s", metavar="N", min=1, max=120, help="Give up after so many seconds.")
    ] = 15,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save what is looked at, with the people found, readable by you only."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Open a camera, read a frame, and say what the detector sees in it. Nothing is taken in.

    A picture of people needs an authorization, in a home that has people of real cameras.
    """
    from pipeline.cameras.changes import find_feed
    from pipeline.cameras.overview import refused_files
    from pipeline.cameras.trial import try_camera, write_picture
    from pipeline.governance.audit import Action
    from pipeline.governance.doors import check_authorized
    from pipeline.ingest.hardware import decoding
    from pipeline.store import Store
    from reid_core.detection import open_detector

    check_code(camera)
    with Store.open(settings(), "urban-reid cameras") as store:
        feed = find_feed(store, camera)
        if picture is not None:
            check_authorized(store, camera, "a camera's picture", Action.CAMERA_LOOK)
        with store.begin() as connection:
            refused = refused_files(connection).get(camera)
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
                "decoded_by": found.first.decoded_by,
                "seconds": round(found.seconds, 3),
                "detector": detector.name,
                "people": [
                    {
                        "box": [round(left + x, 1), round(top + y, 1), round(w, 1), round(h, 1)],
                        "confidence": round(sure, 3),
                    }
                    for left, top, w, h, sure in found.people.tolist()
                ],
                "refused": None if refused is None else asdict(refused),
            }
        )
        return
    rate = "at an unknown rate" if found.first.fps is None else f"{found.first.fps:g} frames/s"
    codec = shown(found.first.codec) or "unknown codec"
    asked = feed.kind == "stream" and settings().hardware_decoding != "off"
    by = f", decoded by {found.first.decoded_by}" if asked else ""
    out().print(f"{camera}: {width} x {height}, {codec}, {rate}{by}; a frame after {found.seconds:.1f} s")
    if asked and (note := decoding(settings().hardware_decoding).note):
        out().print(shown(note), soft_wrap=True)
    sure = ", ".join(f"{confidence:.2f}" for confidence in found.people[:, 4].tolist())
    many = len(found.people)
    out().print(
        f"{shown(detector.name)} sees {'nobody' if not many else '1 person' if many == 1 else f'{many} people'} in it"
        + (f" (confidence {sure})" if many else "")
    )
    if refused is not None:
        out().print(f"files refused: {refused.many}, the last: {shown(refused.path)} {shown(refused.reason)}")
    if picture is not None:
        out().print(f"picture {shown(picture)}", soft_wrap=True)


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
        "host": one.host,
        "feed": one.feed.model_dump(mode="json", exclude={"camera"}) | {"kind": one.feed.kind},
        "health": None if one.health is None else one.health.model_dump(mode="json", exclude={"camera"}),
    }


def colored(state: "Seen") -> str:
    """A camera's state in words, with its color."""
    from pipeline.cameras.overview import STATES

    color = _COLORS.get(state)
    return STATES[state] if color is None else f"[{color}]{STATES[state]}[/{color}]"
