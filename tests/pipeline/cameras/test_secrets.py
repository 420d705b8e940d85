import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.cameras.secrets import (
    FILE,
    Secret,
    address_with_secret,
    check_host,
    read_secrets,
    remove_secret,
    secret_names,
    write_secret,
)
from schemas.errors import InputError
from schemas.feeds import Feed
from schemas.settings import Settings

PASSWORD = 'p@ss:/"\\ wörd😀'
STREAM = Feed(camera="d1/s1/b1/c1", address="rtsp://10.0.0.5:554/stream?channel=1", secret="gate.1")


@pytest.fixture
def ours(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_a_stored_secret_enters_the_address_and_nothing_else(ours: Settings) -> None:
    path = ours.home / FILE
    assert write_secret(path, "gate.1", "viewer", "old")
    assert not write_secret(path, "gate.1", "viewer", PASSWORD)
    assert write_secret(path, "yard", "viewer", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_secrets(path) == {"gate.1": Secret("viewer", PASSWORD), "yard": Secret("viewer", "")}
    assert PASSWORD not in repr(read_secrets(path))
    assert address_with_secret(STREAM, ours) == (
        "rtsp://viewer:p%40ss%3A%2F%22%5C%20w%C3%B6rd%F0%9F%98%80@10.0.0.5:554/stream?channel=1"
    )
    remove_secret(path, "gate.1")
    assert secret_names(ours) == ["yard"]
    with pytest.raises(InputError, match=r"no secret 'gate.1'; there are: yard"):
        remove_secret(path, "gate.1")


def test_the_environment_counts_before_the_file_and_the_common_secret_last(ours: Settings) -> None:
    write_secret(ours.home / FILE, "gate.1", "filed", "filed")
    given = ours.model_copy(update={"camera_secrets": {"gate.1": SecretStr("viewer:a:b")}})
    common = ours.model_copy(update={"rtsp_user": SecretStr("all"), "rtsp_password": SecretStr("x")})
    assert address_with_secret(STREAM, given).startswith("rtsp://viewer:a%3Ab@")
    assert address_with_secret(STREAM, common).startswith("rtsp://filed:filed@")
    without = STREAM.model_copy(update={"secret": None})
    assert address_with_secret(without, common).startswith("rtsp://all:x@")
    assert address_with_secret(without, ours) == STREAM.address
    assert address_with_secret(Feed(camera=STREAM.camera, address="/a.avi"), common) == "/a.avi"


def test_a_secret_that_is_not_there_is_named(ours: Settings) -> None:
    with pytest.raises(InputError, match=r"no secret .gate.1. in .*camera-secrets.toml.*cameras secret set gate.1"):
        address_with_secret(STREAM, ours)


def test_a_file_that_others_can_open_is_refused(ours: Settings) -> None:
    path = ours.home / FILE
    write_secret(path, "gate.1", "viewer", PASSWORD)
    path.chmod(0o640)
    with pytest.raises(InputError, match=r"can be opened by other users.*chmod 600"):
        address_with_secret(STREAM, ours)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[gate.1]\npassword = "hushhush"', r"\[gate\] must hold user and password"),
        ('[gate]\nuser = "hushhush"\npassword = 5', "must be text"),
        ('[gate]\nuser = ""\npassword = "hushhush"', "the user is empty"),
        ('[gate]\nuser = "a"\npassword = "hushhush', "is not TOML"),
        ('gate = "viewer:hushhush"', r"\[gate\] must hold user and password"),
    ],
)
def test_a_damaged_file_is_told_without_its_content(ours: Settings, content: str, message: str) -> None:
    path = ours.home / FILE
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_secrets(path)
    assert "hushhush" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "user", "password", "message"),
    [
        ("../x", "a", "b", "is no name of a secret"),
        ("gate", "", "b", "the user is empty"),
        ("gate", "a", "b\nc", "control characters"),
    ],
)
def test_what_cannot_be_a_secret_is_refused(ours: Settings, name: str, user: str, password: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_secret(ours.home / FILE, name, user, password)
    assert not (ours.home / FILE).exists()


def test_a_secret_goes_to_its_hosts_alone(ours: Settings) -> None:
    path = ours.home / FILE
    write_secret(path, "gate.1", "viewer", PASSWORD, ["10.0.0.5", "Camera.Example", "fe80::1"])
    assert read_secrets(path)["gate.1"].hosts == ("10.0.0.5", "camera.example", "fe80::1")
    for host in ("10.0.0.5:8554", "CAMERA.example", "[fe80::1]:554"):
        assert address_with_secret(STREAM.model_copy(update={"address": f"rtsp://{host}/x"}), ours)
    for host in ("10.0.0.6", "camera.example.org", "10.0.0.5.evil.example"):
        with pytest.raises(InputError, match=r"is for 10\.0\.0\.5, camera\.example, fe80::1, and not") as caught:
            address_with_secret(STREAM.model_copy(update={"address": f"rtsp://{host}/x"}), ours)
        assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("hosts", [[], ["10.0.0.5:554"], ["a@b"], ["rtsp://a"], [""], ["a/b"], ["[x"]])
def test_what_is_no_host_is_refused(ours: Settings, hosts: list[str]) -> None:
    with pytest.raises(InputError, match=r"is no host|one or more hosts"):
        write_secret(ours.home / FILE, "gate", "viewer", PASSWORD, hosts)


def test_whoever_adds_cameras_sends_no_password_where_nobody_said(ours: Settings) -> None:
    """Neither one that was stored before secrets had hosts, nor the common one, nor one of the environment."""
    write_secret(ours.home / FILE, "gate.1", "viewer", PASSWORD)
    common = ours.model_copy(update={"rtsp_user": SecretStr("all"), "rtsp_password": SecretStr("x")})
    given = ours.model_copy(update={"camera_secrets": {"gate.1": SecretStr("viewer:x")}})
    unnamed = STREAM.model_copy(update={"secret": None})
    theirs = {"camera": "d1/s1/b1/c2", "address": "rtsp://10.6.6.6/x"}
    for of, feed in ((ours, STREAM), (given, STREAM), (common, unnamed)):
        check_host(feed.model_copy(update={"camera": "d1/s1/b1/c2"}), of, [feed])  # where it is sent already
        with pytest.raises(InputError, match=r"nobody has said that .* may be sent to 10.6.6.6"):
            check_host(feed.model_copy(update=theirs), of, [feed])
    check_host(unnamed.model_copy(update=theirs), ours, [STREAM])  # that has no password
    write_secret(ours.home / FILE, "gate.1", "viewer", PASSWORD, ["10.6.6.6"])
    check_host(STREAM.model_copy(update=theirs), ours, [])
