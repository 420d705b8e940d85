"""urban-reid cameras: from an address to a camera that can be looked at, without a password in sight."""

import json
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.cameras.rows import came_up, went_down, write_health
from pipeline.cameras.secrets import FILE, write_secret
from pipeline.store import Store
from schemas.feeds import Health
from schemas.settings import Settings
from schemas.settings import settings as read_settings
from tests.helpers.command_line import Run, environment_of, program
from tests.helpers.rtsp_camera import PASSWORD, USER, camera
from tests.helpers.video_files import walk, write_video

C1 = "d1/s1/b1/c1"
ADDRESS = "rtsp://10.0.0.5/stream"


def plain(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_camera_from_its_first_day_to_its_last(run_here: Run, tmp_path: Path) -> None:
    assert "no camera is taken in; `urban-reid cameras add" in run_here("cameras", "list").stdout
    added = run_here(
        "cameras", "add", C1, ADDRESS, "--position", "12,40.5", "--mask", "0,0 0.5,0 0,1", "--mask", "1,1 1,0 0.9,0"
    )
    assert added.returncode == 0 and f"{C1} is taken in from the stream {ADDRESS}" in added.stdout, added.stderr
    assert (
        "is taken in already" in run_here("cameras", "add", C1, ADDRESS, "--mask", "0,0 0.5,0 0,1;1,1 1,0 0.9,0").stdout
    )
    refused = run_here("cameras", "add", C1, "rtsp://10.0.0.6/stream")
    assert refused.returncode == 2 and f"`urban-reid cameras set {C1}` changes that" in refused.stderr
    assert plain(run_here("cameras", "set", C1, "--looks-per-s", "2", "--mask", "", "--json"))["outcome"] == "changed"
    (listed,) = plain(run_here("cameras", "list", "--json"))["cameras"]
    assert (listed["camera"], listed["state"], listed["health"]) == (C1, "unknown", None)
    assert (listed["feed"]["looks_per_s"], listed["feed"]["masks"], listed["feed"]["kind"]) == (2, [], "stream")
    blank = run_here("cameras", "pause", C1, "--reason", " ")
    assert blank.returncode == 2 and "--reason: may not be blank" in blank.stderr
    assert f"{C1} is paused" in run_here("cameras", "pause", C1, "--reason", "works").stdout
    assert "paused" in run_here("cameras", "list").stdout
    assert f"{C1} is looked at" in run_here("cameras", "resume", C1, "--reason", "done").stdout
    assert "its crops stay" in run_here("cameras", "remove", C1, "--reason", "taken down").stdout
    gone = run_here("cameras", "remove", C1, "--reason", "again")
    assert gone.returncode == 2 and f"{C1} is not taken in; `urban-reid cameras add {C1} ADDRESS`" in gone.stderr
    assert "North" not in run_here("city", "show").stdout and C1 in run_here("city", "show").stdout


REFUSED = [
    ((f"rtsp://{USER}:verysecret@10.0.0.5/stream",), "`urban-reid cameras secret set NAME`, and name that with"),
    (("rtsp://10.0.0.5/stream?password=verysecret",), "rtsp://10.0.0.5: an address holds no user or password"),
    (("gone.avi",), "gone.avi: cannot be read: No such file or directory"),
    ((ADDRESS, "--region", "1,2,3"), "--region: '1,2,3': write x,y,width,height in pixels"),
    ((ADDRESS, "--region", "0,0,0,5"), "region: its width and height must be at least 1 pixel"),
    ((ADDRESS, "--mask", "0,0 1,1"), "--mask: "),
    ((ADDRESS, "--looks-per-s", "40"), "--looks-per-s: Input should be less than or equal to 30"),
    ((ADDRESS, "--position", "here"), "--position: 'here': write x,y in meters"),
    ((ADDRESS, "--overlaps", "d9/s1/b1/c1"), "overlaps d9/s1/b1/c1, which is no other camera of the same building"),
    ((ADDRESS, "--secret", "gate"), "`urban-reid cameras secret set gate`"),
    ((ADDRESS, "--detector", "x"), "no detector 'x' in this home, which has hog"),
    ((ADDRESS, "--start", "2026-01-01T08:00:00Z"), "start and fps are of recorded files"),
]


def test_a_camera_that_cannot_be_is_refused_in_one_line(run_here: Run) -> None:
    for words, message in REFUSED:
        refused = run_here("cameras", "add", C1, *words)
        assert refused.returncode == 2 and message in refused.stderr
        assert refused.stderr.count("\n") == 1 and "verysecret" not in refused.stderr
    assert "no camera is taken in" in run_here("cameras", "list").stdout


def test_the_list_says_how_each_camera_fares(run_here: Run, store: Store, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    cameras = {f"d1/s1/b1/c{number}": f"rtsp://10.0.0.{number}/stream" for number in (1, 2, 3)}
    for code, address in cameras.items():
        assert run_here("cameras", "add", code, address).returncode == 0
    up, down, stale = cameras
    with store.begin() as connection:
        went_down(connection, up, now - timedelta(minutes=9), "stalled")
        came_up(connection, up, now - timedelta(minutes=5))
        went_down(connection, down, now - timedelta(minutes=2), "no route")
        fields: dict[str, Any] = {"at": now, "looks_per_s": 4.96, "people": 3, "last_frame_at": now}
        write_health(connection, Health(camera=up, state="up", frozen=True, clock_offset_s=-7.2, **fields))
        write_health(connection, Health(camera=down, state="down", at=now, detail="no route", reconnects=4))
        write_health(connection, Health(camera=stale, state="up", **fields | {"at": now - timedelta(minutes=3)}))
    listed = {one["camera"]: one for one in plain(run_here("cameras", "list", "--json"))["cameras"]}
    assert [listed[code]["state"] for code in cameras] == ["up", "down", "unknown"]
    assert listed[up]["since"] == (now - timedelta(minutes=5)).isoformat()
    assert listed[down]["since"] == (now - timedelta(minutes=2)).isoformat()
    rows = {line.split()[1]: line for line in run_here("cameras", "list").stdout.splitlines() if "d1/" in line}
    assert "5.0 of 5" in rows[up] and "picture frozen, its clock is 7 s behind" in rows[up]
    assert "no route, opened anew 4 times" in rows[down] and "not running" in rows[stale]
    assert "stream" not in rows[up], "an address may hold a key in its path"
    assert plain(run_here("status", "--json"))["cameras"] == {"up": 1, "down": 1, "unknown": 1}
    assert "cameras: 1 down, 1 not running, 1 up; `urban-reid cameras list`" in run_here("status").stdout


def test_cameras_of_a_file_come_all_or_none(run_here: Run, tmp_path: Path) -> None:
    file = tmp_path / "cameras.csv"
    file.write_text(f"camera,address,overlaps\n{C1},{ADDRESS},d1/s1/b1/c2\nd1/s1/b1/c2,rtsp://10.0.0.6/a,\n")
    bad = tmp_path / "bad.csv"
    bad.write_text(file.read_text() + "d1/s1/b1/c3,gone.avi,\n")
    refused = run_here("cameras", "import", str(bad))
    assert refused.returncode == 2 and "gone.avi: cannot be read" in refused.stderr
    assert plain(run_here("cameras", "list", "--json"))["cameras"] == []
    assert "2 cameras added, 0 changed, 0 as they were" in run_here("cameras", "import", str(file)).stdout
    file.write_text(file.read_text().replace("0.6/a", "0.7/a"))
    done = plain(run_here("cameras", "import", str(file), "--json"))
    assert (done["added"], done["changed"], done["unchanged"]) == (0, 1, 1)


def test_a_city_file_with_feeds_brings_its_names(run_here: Run, tmp_path: Path) -> None:
    file = tmp_path / "city.yaml"
    file.write_text(
        "timezone: Europe/Berlin\nunits:\n  - {code: d1, name: Center}\n  - {code: d1/s1}\n  - {code: d1/s1/b1}\n"
        f"  - {{code: {C1}, feed: {{address: '{ADDRESS}'}}}}\n"
    )
    loaded = run_here("city", "load", str(file))
    assert "1 camera has a feed: `urban-reid cameras import" in loaded.stderr
    assert plain(run_here("cameras", "list", "--json"))["cameras"] == []
    assert "1 cameras added" in run_here("cameras", "import", str(file)).stdout
    assert "Center" in run_here("city", "show").stdout


def test_a_secret_is_read_from_stdin_and_stays_in_its_file(settings: Settings, tmp_path: Path) -> None:
    def run(*words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            program("cameras", "secret", *words),
            env=environment_of(settings),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    done = run("set", "gate", "--host", "10.0.0.5", stdin=f"{USER}\n{PASSWORD}\n")
    path = settings.home / FILE
    assert done.returncode == 0 and f"gate stored in {path}" in done.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and PASSWORD not in done.stdout + done.stderr
    assert run("list").stdout == "gate\n"
    assert "must hold two lines" in run("set", "gate", "--host", "10.0.0.5", stdin=f"{USER}:{PASSWORD}\n").stderr
    assert run("remove", "gate").stdout == "gate removed\n"


def test_a_trial_opens_the_stream_with_its_secret(
    run_here: Run, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_secret(settings.home / FILE, "gate", USER, PASSWORD)
    write_secret(settings.home / FILE, "wrong", USER, "hushhush")
    picture = tmp_path / "c1.png"
    with camera(walk(30)) as serving:
        assert run_here("cameras", "add", C1, serving.address, "--secret", "gate").returncode == 0
        found = plain(run_here("cameras", "test", C1, "--picture", str(picture), "--json"))
    assert (found["width"], found["height"], found["detector"]) == (320, 240, "HOG") and serving.authorized
    assert stat.S_IMODE(picture.stat().st_mode) == 0o600 and np.asarray(cv2.imread(str(picture))).shape == (240, 320, 3)
    with camera(walk(30)) as serving:
        run_here("cameras", "set", C1, "--secret", "wrong", "--address", serving.address)
        refused = run_here("cameras", "test", C1, "--limit-s", "5")
    assert refused.returncode == 2 and f"{serving.address.removesuffix('/street')}: refuses its user" in refused.stderr
    assert "hushhush" not in refused.stderr and not serving.authorized
    monkeypatch.setenv("URBAN_REID_HARDWARE_DECODING", "dxva2")  # of another system
    read_settings.cache_clear()
    with camera(walk(30)) as serving:
        run_here("cameras", "set", C1, "--secret", "gate", "--address", serving.address)
        said = run_here("cameras", "test", C1).stdout
    assert ", decoded by the processor; a frame" in said and "no dxva2 to decode with" in said


def test_what_set_refuses_names_its_option(run_here: Run) -> None:
    assert run_here("cameras", "add", C1, ADDRESS).returncode == 0
    assert "error: the address is empty; write rtsp" in run_here("cameras", "add", "d1/s1/b1/c2", "").stderr
    for words, message in (
        (("--address", ""), "--address: the address is empty; write rtsp://host:port/path"),
        (("--looks-per-s", "0"), "--looks-per-s: "),
        (("--looks-per-s", "often"), "--looks-per-s: "),
        (("--mask", "0,0 1,1"), "--mask: one has fewer than three corners; write corners x,y"),
        (("--mask", "0,0 2,0 1,1"), "--mask: a corner lies outside the frame; write corners x,y"),
        (("--mask", "0,0 0.5,0.5 1,1"), "--mask: a mask's corners enclose no area"),
    ):
        refused = run_here("cameras", "set", C1, *words)
        assert refused.returncode == 2 and f"error: {message}" in refused.stderr, refused.stderr


def test_a_trial_of_files(run_here: Run, tmp_path: Path) -> None:
    folder = tmp_path / "recorder"
    folder.mkdir()
    assert run_here("cameras", "add", C1, str(folder)).returncode == 0
    empty = run_here("cameras", "test", C1)
    assert empty.returncode == 2 and "recorder: holds no video yet" in empty.stderr
    raw = write_video(folder / "part.mjpeg", walk(5))
    untimed = run_here("cameras", "test", C1)
    assert untimed.returncode == 2 and "part.mjpeg: states no times for its frames; give the rate" in untimed.stderr
    assert f"`urban-reid cameras set {C1} --fps 25`" in untimed.stderr
    raw.unlink()
    (folder / "part.txt").write_text("no video, and newer")
    write_video(folder / "part.avi", walk(5))
    done = run_here("cameras", "test", C1)
    assert f"{C1}: 320 x 240, MJPG, 10 frames/s; a frame after" in done.stdout
    assert "HOG sees nobody in it" in done.stdout
    (folder / "part.avi").write_text("no video")
    broken = run_here("cameras", "test", C1)
    assert broken.returncode == 2 and "is no video that can be read" in broken.stderr
    odd = run_here("cameras", "set", C1, "--region", "400,0,10,10")
    assert odd.returncode == 0
    write_video(folder / "part.avi", walk(5))
    assert "does not lie within the frame of 320 x 240" in run_here("cameras", "test", C1).stderr
    masked = run_here("cameras", "set", C1, "--region", "100,0,200,240", "--mask", "0,0 0.5,0 0.5,1 0,1")
    assert masked.returncode == 0
    picture = tmp_path / "masked.png"
    assert run_here("cameras", "test", C1, "--picture", str(picture)).returncode == 0
    saved = np.asarray(cv2.imread(str(picture)))
    assert saved.shape == (240, 200, 3) and not saved[:, :60].any() and saved[:, 62:].all()
