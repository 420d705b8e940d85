"""The console's pages about the city: overview, cameras, runs, models, audit, settings, and who gets them."""

import asyncio
import io
import json
import re
import socket
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from pipeline.cameras.changes import Wanted, add_cameras, remove_camera
from pipeline.cameras.live_server import serving
from pipeline.cameras.rows import write_health
from pipeline.cameras.secrets import FILE, write_secret
from pipeline.governance.audit import Action, read_audit
from pipeline.governance.retention import set_retention
from schemas.feeds import Feed, Health
from schemas.levels import Level
from tests.helpers.console import As, send
from tests.helpers.town import Town
from tests.helpers.video_files import walk, write_video
from urban_reid.console.app import make_app
from urban_reid.console.limits import Place
from urban_reid.console.overview import changes
from urban_reid.console.visitors import COOKIE, new_link
from urban_reid.permissions import PAGES


@pytest.fixture(scope="module")
def open_console(resolved: Town) -> Iterator[TestClient]:
    """Signed in to an open home."""
    with TestClient(make_app(resolved.store, ["testserver"]), follow_redirects=True) as client:
        client.get(new_link("", client.app.state.console.visitors.key))  # type: ignore[attr-defined]
        yield client


def test_the_overview_shows_places_plan_and_ways(open_console: TestClient, resolved: Town) -> None:
    shown = open_console.get("/").text
    with resolved.store.begin() as connection:
        people = connection.scalar(text("SELECT count(*) FROM identity_now WHERE level = 'district'"))
        cameras = connection.scalars(text("SELECT code FROM urban_unit WHERE level = 'camera'")).all()
    assert f"{people} people in 1 district" in shown
    assert len(re.findall('<circle class="cam"', shown)) == len(cameras)
    assert '<path class="way"' in shown and "style=" not in shown and "<script>" not in shown


def test_a_camera_that_fails_is_added_and_says_why(open_console: TestClient, resolved: Town) -> None:
    fields = {"camera": "d1/s1/b1/c9", "address": "rtsp://127.0.0.1:9/x", "name": "Back door"}
    shown = send(open_console, "/cameras", "/cameras", **fields)
    try:
        assert "Back door does not work" in shown.text and 'role="alert"' in shown.text
        with resolved.store.begin() as connection:
            write_health(
                connection,
                Health(
                    camera="d1/s1/b1/c9",
                    state="down",
                    at=datetime.now(UTC),
                    detail="connection refused",
                    last_frame_at=datetime.now(UTC),
                ),
            )
        assert "connection refused" in open_console.get("/cameras").text
        assert "sees nothing" in open_console.get("/").text, "a camera with a last frame is shown too"
        assert open_console.get("/cameras/d1/s1/b1/c9/picture").status_code == 404
        paused = send(open_console, "/cameras", "/cameras/pause", camera="d1/s1/b1/c9", paused="true", reason="repair")
        assert ">paused<" in paused.text and "Look at it again" in paused.text
        wrong = send(open_console, "/cameras", "/cameras", camera="d1/s1", address="rtsp://127.0.0.1/x")
        assert wrong.status_code == 400 and "four segments" in wrong.text
    finally:
        remove_camera(resolved.store, "d1/s1/b1/c9", operator="pytest", reason="the test is over")
    with resolved.store.owning() as connection:
        actions = [row.action for row in read_audit(connection, unit="d1/s1/b1/c9", last=20)]
    assert {Action.CAMERA_ADD, Action.CAMERA_LOOK, Action.CAMERA_PAUSE} <= set(actions)


def test_cameras_are_seen_by_their_process_and_by_no_second_connection(
    open_console: TestClient, resolved: Town
) -> None:
    camera, path = "d1/s1/b1/c6", "/cameras/d1/s1/b1/c6/picture"
    with socket.create_server(("127.0.0.1", 0)) as stream:
        stream.setblocking(False)
        address = f"rtsp://127.0.0.1:{stream.getsockname()[1]}/x"
        add_cameras(resolved.store, [Wanted(Feed.model_validate({"camera": camera, "address": address}))], operator="x")
        try:
            with resolved.store.begin() as connection:
                write_health(connection, Health(camera=camera, state="up", at=datetime.now(UTC)))
            without = open_console.get("/cameras").text
            assert "process that looks at the cameras does not run" in without and path not in without
            missing = open_console.get(path)
            assert missing.status_code == 404 and "does not run" in missing.text
            with serving(resolved.store, lambda _: np.zeros((360, 480, 3), np.uint8)):
                shown = open_console.get("/cameras").text
                assert f'src="{path}"' in shown and "does not run" not in shown
                assert open_console.get(path).headers["content-type"] == "image/jpeg"
            with pytest.raises(BlockingIOError):
                stream.accept()
        finally:
            remove_camera(resolved.store, camera, operator="pytest", reason="the test is over")


def test_the_picture_of_a_trial_is_shown_without_a_second_look(
    open_console: TestClient, resolved: Town, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "walk.avi", walk(5))
    fields = {"camera": "d1/s1/b1/c5", "address": str(video)}
    try:
        shown = send(open_console, "/cameras", "/cameras", **fields).text
        assert "works" in shown and 'src="/cameras/d1/s1/b1/c5/tried"' in shown
        video.unlink()
        assert open_console.get("/cameras/d1/s1/b1/c5/tried").headers["content-type"] == "image/jpeg"
        assert open_console.get("/cameras/d1/s1/b1/c4/tried").status_code == 404
    finally:
        remove_camera(resolved.store, "d1/s1/b1/c5", operator="pytest", reason="the test is over")


def test_runs_come_page_by_page(open_console: TestClient, resolved: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.browsing.runs.read_runs.__defaults__", (None, None, 4))
    seen = 0
    path: str | None = "/runs"
    while path is not None:
        shown = open_console.get(path).text
        seen += shown.count('<th scope="row">')
        following = re.search(r'href="(/runs\?[^"]+)" rel="next"', shown)
        path = following and following[1].replace("&amp;", "&")
    with resolved.store.begin() as connection:
        assert seen == connection.scalar(text("SELECT count(*) FROM run"))
    assert "no unit" in open_console.get("/runs?unit=d7").text


def test_the_page_of_models_has_curves_as_pictures(open_console: TestClient) -> None:
    shown = open_console.get("/models").text
    assert "in use" in shown and shown.count('<figure class="curve">') >= 3
    assert "no model" in send(open_console, "/search", "/models/promote", name="none", reason="better").text
    already = send(open_console, "/search", "/models/promote", name="test", reason="better")
    assert already.status_code == 200


def test_settings_show_no_secret(open_console: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    console = open_console.app.state.console  # type: ignore[attr-defined]
    secret = {"camera_secrets": {"gate": "viewer:hunter2"}, "rtsp_password": "hunter2", "webhook_url": "http://hunter2"}
    of_server = {"database_url": "postgresql+psycopg2://a:hunter2@db/city", "prefect_url": "http://a:hunter2@p/api"}
    settings = type(console.store.settings).model_validate(
        console.store.settings.model_dump() | secret | of_server  # as they come from the environment
    )
    monkeypatch.setattr(console.store, "settings", settings)
    shown = open_console.get("/settings").text
    assert "hunter2" not in shown
    assert "names: gate" in shown and "URBAN_REID_ASSOCIATION__WINDOW_S" in shown
    runs = open_console.get("/runs").text
    assert "hunter2" not in runs and 'href="http://p"' in runs and ">http://p/api<" in shown


def test_settings_say_how_long_what_is_kept(open_console: TestClient, resolved: Town) -> None:
    shown = open_console.get("/settings").text
    assert "so they stay, where no rule says otherwise" in shown
    set_retention(resolved.store, "d1/s1", [Level.CAMERA], 168, actor="ada", reason="order 3/2026")
    set_retention(resolved.store, "", [Level.DISTRICT], None, actor="ada", reason="a data set")
    shown = open_console.get("/settings").text.partition('id="kept"')[2]
    whole, part = shown.partition('<th scope="row">the whole city')[2].split('<th scope="row">')
    assert "people of a district" in whole and "without an end" in whole and "a data set" in whole
    assert "pictures and passages" in part and "168 hours" in part and "ada" in part and "order 3/2026" in part


def test_the_audit_is_read_checked_and_taken_along(open_console: TestClient, resolved: Town) -> None:
    shown = open_console.get("/audit?action=audit.show").text
    assert "audit.show" in shown and "people.show</td>" not in shown
    assert "no action" in open_console.get("/audit?action=people.eat").text
    assert "Nobody changed the record" in send(open_console, "/audit", "/audit/verify").text
    packed = send(open_console, "/audit", "/audit/export", reason="yearly report")
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert {"audit/verify_audit.py", "audit/audit.md"} <= set(archive.namelist())
    with resolved.store.owning() as connection:  # an erasure looks there, where others put nothing
        written = connection.scalars(text("SELECT path FROM written_file WHERE kind = 'audit'")).all()
    assert written and all(Path(one).is_relative_to(resolved.store.settings.home) for one in written)
    assert not any(Path(one).parent.exists() for one in written)


def test_what_changes_is_sent_until_the_visit_ends(open_console: TestClient) -> None:
    console = open_console.app.state.console  # type: ignore[attr-defined]
    cookie = open_console.cookies[COOKIE]

    async def stays() -> bool:
        return False

    async def first_and_last() -> tuple[str, list[str]]:
        stream = changes(console, cookie, "overview", Place("anna"), stays)
        first = await anext(stream)
        console.visitors.leave(cookie)
        return first, [one async for one in stream]

    first, rest = asyncio.run(first_and_last())
    assert "people in 1 district" in json.loads(first.removeprefix("event: message\ndata: "))
    (last,) = rest
    assert last.startswith("event: over\n") and "Your visit has ended" in last
    assert open_console.get("/events/nothing").status_code in (200, 404)


PATHS = {"overview": "/", "words": "/words", "review": None}


@pytest.mark.parametrize("name", ["anna", "ben", "ada", "otto", "emil"])
def test_in_a_live_home_each_role_gets_its_pages_and_no_other(as_: As, name: str) -> None:
    roles = {"anna": "operator", "ben": "supervisor", "ada": "administrator", "otto": "auditor", "emil": "engineer"}
    client = as_(name)
    menu = client.get("/").text
    for page, allowed in PAGES.items():
        path = PATHS.get(page, f"/{page}")
        if path is None or page in ("search", "leads", "cases"):  # those ask for an authorization or have rules
            continue
        is_allowed = allowed is None or roles[name] in allowed
        assert client.get(path).status_code == (200 if is_allowed else 403), page
        if page not in ("words", "standing"):  # reached from other pages
            assert (f'<a href="{path}"' in menu) == is_allowed, page


def test_in_a_live_home_a_cameras_picture_needs_an_authorization(as_: As, resolved: Town) -> None:
    feed = Feed.model_validate({"camera": "d1/s1/b1/c8", "address": "rtsp://127.0.0.1:9/x"})
    add_cameras(resolved.store, [Wanted(feed)], operator="pytest")
    for name in ("anna", "emil", "otto"):
        for picture in ("picture", "tried"):
            assert as_(name).get(f"/cameras/d1/s1/b1/c8/{picture}").status_code == 403
    refused = send(as_("anna"), "/cameras", "/cameras/pause", camera="d1/s1/b1/c8", paused="true", reason="x")
    assert refused.status_code == 403
    file = send(as_("emil"), "/cameras", "/cameras", camera="d1/s1/b1/c7", address="/etc/passwd")
    assert file.status_code == 400 and "is a stream" in file.text
    write_secret(resolved.store.settings.home / FILE, "gate", "viewer", "hushhush")  # as of an earlier version
    elsewhere = {"camera": "d1/s1/b1/c7", "address": "rtsp://127.0.0.2:9/x", "sign_in": "gate"}
    learned = send(as_("emil"), "/cameras", "/cameras", **elsewhere)
    assert learned.status_code == 400 and "nobody has said that secret gate may be sent to 127.0.0.2" in learned.text
    send(as_("emil"), "/cameras", "/cameras/pause", camera="d1/s1/b1/c8", paused="true", reason="repair")
    with resolved.store.owning() as connection:
        (row,) = read_audit(connection, action=Action.CAMERA_PAUSE, unit="d1/s1/b1/c8")
    assert row.actor == "emil"
