from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from schemas.feeds import Feed, shown_address

CAMERA = "d1/s1/b1/c1"


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("rtsp://10.0.0.5/stream", "stream"),
        ("rtsps://camera.example:322/a?channel=1", "stream"),
        ("rtsp://[fd00::5]:554/stream", "stream"),
        ("/videos/plaza.avi", "file"),
        ("/videos/a@b:c.avi", "file"),
        ("/recorder/c1/", "folder"),
    ],
)
def test_an_address_tells_the_kind(address: str, kind: str) -> None:
    assert Feed(camera=CAMERA, address=address).kind == kind


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("rtsp://viewer:verysecret@10.0.0.5/stream", "rtsp://10.0.0.5: an address holds no user or password"),
        ("rtsp://viewer@10.0.0.5/stream", "holds no user or password"),
        ("rtsp://10.0.0.5/stream?user=viewer&password=verysecret", "cameras secret set NAME"),
        ("rtsp://10.0.0.5/user=viewer_password=verysecret_channel=1", "holds no user or password"),
        ("http://10.0.0.5/verysecret", "http://10.0.0.5: is neither rtsp"),
        ("rtsp://:verysecret", "has no usable host"),
        ("rtsp://10.0.0.5:verysecret/", "has no usable host"),
        ("videos/plaza.avi", "is no absolute path"),
        ("", "is empty"),
        ("/videos/a\nb.avi", "control character"),
    ],
)
def test_an_address_that_cannot_be_kept_is_refused_without_its_secrets(address: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        Feed(camera=CAMERA, address=address)
    said = caught.value.errors(include_input=False)[0]["msg"]
    assert "verysecret" not in said and "verysecret" not in shown_address(address)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"camera": "d1/s1/b1"}, "is a building"),
        ({"looks_per_s": 0.1}, "greater than or equal to 0.5"),
        ({"looks_per_s": True}, "true is not a number"),
        ({"region": (0, 0, 0, 10)}, "at least 1 pixel"),
        ({"masks": [[(0, 0), (1, 1)]]}, "at least 3"),
        ({"masks": [[(0, 0), (0.5, 0.5), (1, 1)]]}, "enclose no area"),
        ({"masks": [[(0, 0), (2, 0), (1, 1)]]}, "less than or equal to 1"),
        ({"fps": 25}, "start and fps are of recorded files"),
        ({"start": datetime(2026, 1, 1, tzinfo=UTC)}, "start and fps are of recorded files"),
        ({"address": "/a/", "start": datetime(2026, 1, 1, tzinfo=UTC)}, "start is of one file"),
        ({"address": "/a.avi", "start": datetime(2026, 1, 1)}, "timezone"),  # noqa: DTZ001
        ({"address": "/a.avi", "secret": "gate"}, "needs no user and password"),
        ({"secret": "../gate"}, "pattern"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Feed.model_validate({"camera": CAMERA, "address": "rtsp://10.0.0.5/stream"} | fields)
