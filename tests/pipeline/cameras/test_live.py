"""What cameras see now, over the socket of the cameras' process."""

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from sqlalchemy import text

from pipeline.cameras.live_client import read_live
from pipeline.cameras.live_server import serving
from pipeline.cameras.secrets import FILE, write_secret
from pipeline.crops.privacy import without_faces
from pipeline.governance.audit import Action, read_audit
from pipeline.store import Store, embedded
from reid_core.detection import Frame
from schemas.errors import CoreError, CoreUnavailable, InputError
from tests.helpers.console import send
from tests.helpers.governed import Governed
from tests.helpers.homes import become_live, superuser_of
from tests.helpers.rtsp_server import PASSWORD, USER
from tests.helpers.rtsp_server import serving as playing
from tests.pipeline.cameras.conftest import Stepped
from urban_reid.console.app import make_app
from urban_reid.console.visitors import COOKIE, new_link

C1 = "d1/s1/b1/c1"


def seen(camera: str) -> Frame:
    """Stripes, which cells turn gray."""
    if camera == "d1/s1/b1/c2":
        raise InputError(f"{camera}: nothing looks at this camera now")
    if camera == "d1/s1/b1/c3":
        raise CoreUnavailable("the camera's process ended and is started again; try again")
    assert camera == C1
    frame = np.zeros((360, 480, 3), np.uint8)
    frame[:, ::2] = 255
    return frame


def decoded(data: bytes | None) -> NDArray[np.uint8]:
    assert data is not None
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def files(home: Path) -> set[Path]:
    return set(home.rglob("*"))


def test_a_picture_comes_without_faces_where_people_are_seen(
    city_store: Store, server: embedded.EmbeddedServer
) -> None:
    settings, connect = city_store.settings, superuser_of(server, city_store.settings)
    before = files(settings.home)
    with city_store.owning() as connection:
        connection.execute(text("UPDATE city SET kind = 'synthetic'"))
    with serving(city_store, seen):
        assert settings.cameras_socket.stat().st_mode & 0o777 == 0o600
        assert np.abs(decoded(read_live(settings, C1)).astype(int) - seen(C1)).mean() < 10, "rendered people"
        become_live(connect)
        shown = decoded(read_live(settings, C1))
        assert np.abs(shown.astype(int) - without_faces(seen(C1))).mean() < 10
        assert shown.std() < 10, "not a stripe is left"
        with pytest.raises(InputError, match="d1/s1/b1/c2: nothing looks"):
            read_live(settings, "d1/s1/b1/c2")
        with pytest.raises(CoreUnavailable, match="started again"):
            read_live(settings, "d1/s1/b1/c3")
        with pytest.raises(CoreError, match="cameras' process serves this home already"), serving(city_store, seen):
            pass
        socket_and_lock = {settings.cameras_socket, settings.cameras_socket.with_suffix(".lock")}
        assert files(settings.home) - before == socket_and_lock, "nothing is written"
    assert read_live(settings, C1) is None


def test_a_socket_of_a_process_that_was_killed_is_none(city_store: Store) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(city_store.settings.cameras_socket))
    assert read_live(city_store.settings, C1) is None
    with serving(city_store, seen):
        assert read_live(city_store.settings, C1)


def test_only_a_standing_authorization_of_now_shows_it_after_a_row_of_the_audit(
    city_store: Store, server: embedded.EmbeddedServer
) -> None:
    governed = Governed(city_store, superuser_of(server, city_store.settings))
    governed.past_rules("UPDATE authorization_limits SET standing = true")
    day, now = timedelta(days=1), datetime.now(UTC)
    asked: list[str] = []

    def newest(camera: str) -> Frame:
        with city_store.owning() as connection:
            asked.append(read_audit(connection, action=Action.CAMERA_LOOK, unit=camera)[-1].actor)
        return seen(camera)

    standing: dict[str, Any] = {
        "kind": "standing",
        "from_time": now - day,
        "to_time": now + day,
        "expires_at": now + day,
    }
    holds = governed.authorized("case 1", **standing)
    elsewhere = governed.authorized("case 2", **standing | {"units": ("d1/s1/b2",)})
    over = governed.authorized("case 3")
    with (
        serving(city_store, newest),
        TestClient(make_app(city_store, ["testserver"]), follow_redirects=True) as client,
    ):

        def looks(authorization: UUID | None) -> int:
            governed.as_("anna", authorization)
            token = city_store.settings.token
            governed.as_(None)
            assert token is not None
            client.cookies.clear()
            client.cookies.set(COOKIE, token.get_secret_value())
            return client.get(f"/cameras/{C1}/picture").status_code

        assert [looks(one) for one in (None, elsewhere, over)] == [403] * 3 and not asked
        assert looks(holds) == 200 and asked == ["anna"]


@pytest.mark.system
def test_a_camera_that_allows_one_connection_is_seen_on_the_page(
    cameras: Stepped, plaza: Path, detector: str, tmp_path: Path
) -> None:
    store = cameras.store
    write_secret(store.settings.home / FILE, "gate", USER, PASSWORD)
    with playing({"gate": [str(plaza)]}, clients=1) as server:
        cameras.feed(camera=C1, address=server.address("gate"), secret="gate", detector=detector)
        cameras.until(lambda: (health := cameras.health().get(C1)) and health.state == "up" and health.looks_per_s)
        with (
            serving(store, cameras.service.newest),
            TestClient(make_app(store, ["testserver"]), follow_redirects=True) as client,
        ):
            client.get(new_link("", client.app.state.console.visitors.key))  # type: ignore[attr-defined]
            assert f'src="/cameras/{C1}/picture"' in client.get("/cameras").text
            first = client.get(f"/cameras/{C1}/picture")
            assert first.status_code == 200 and decoded(first.content).shape == (360, 480, 3)
            cameras.until(lambda: client.get(f"/cameras/{C1}/picture").content != first.content)
            tried = send(client, "/cameras", "/cameras/try", camera=C1)
            assert "does not work" in tried.text, "a second connection is refused, so none was made before"
            assert cameras.state(C1) == "up" and cameras.health()[C1].reconnects == 0
            server.kill()
            cameras.until(lambda: cameras.state(C1) == "down")
            assert client.get(f"/cameras/{C1}/picture").status_code == 404, "what was seen before is not now"
    with store.owning() as connection:
        assert len(read_audit(connection, action=Action.CAMERA_LOOK, unit=C1)) >= 2
