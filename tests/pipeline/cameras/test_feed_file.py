from pathlib import Path

import pytest

from pipeline.cameras.feed_file import read_feed_file
from schemas.errors import UrbanReidError


def test_a_csv_file_has_a_camera_a_line(tmp_path: Path) -> None:
    path = tmp_path / "cameras.csv"
    path.write_bytes(
        b"\xef\xbb\xbfcamera,address,looks_per_s,region,masks,motion_gate,position,overlaps,start,secret\r\n"
        b'd1/s1/b1/c1,rtsp://10.0.0.5/a,2,"0,0,384,288","0,0 0.5,0 0,1; 0.5,0 1,0 1,1",yes,"1.5,-2",'
        b"d1/s1/b1/c2,,gate\r\n"
        b"\r\n"
        b"d1/s1/b1/c2,videos/plaza.avi,,,,,,,2026-01-01T08:00:00+01:00\r\n"
    )
    first, second = read_feed_file(path).cameras
    assert first.feed.masks == (((0.0, 0.0), (0.5, 0.0), (0.0, 1.0)), ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0)))
    assert (first.feed.looks_per_s, first.feed.region, first.feed.motion_gate) == (2.0, (0, 0, 384, 288), True)
    assert first.feed.secret == "gate" and second.feed.address == str(tmp_path / "videos/plaza.avi")
    assert first.unit == {"position": (1.5, -2), "overlaps": ("d1/s1/b1/c2",)} and second.unit == {}
    assert second.feed.start is not None and second.feed.start.hour == 7


def test_semicolons_may_stand_between_columns(tmp_path: Path) -> None:
    path = tmp_path / "cameras.CSV"
    path.write_text("camera;address;position\nd1/s1/b1/c1;rtsp://10.0.0.5/a;1,2\n")
    assert read_feed_file(path).cameras[0].unit == {"position": (1, 2)}


HEAD = "camera,address,fps\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no camera; its first line names the columns: camera, address, secret"),
        ("camera,address\n", "holds no camera"),
        ("camera,addres\n", r"line 1: unknown column 'addres'; did you mean 'address'\?"),  # codespell:ignore addres
        ("camera,address,camera\n", "line 1: the column camera is there twice"),
        ("address\n", "line 1: there is no column camera"),
        (HEAD + "\nd1/s1/b1/c1,rtsp://a/b,1,2\n", "line 3: has 4 cells for 3 columns"),
        (HEAD + "d1/s1/b1,rtsp://a/b\n", "line 2: camera: d1/s1/b1 is a building"),
        (HEAD + "d1/s1/b1/c1\n", "line 2: address: the address is empty"),
        (HEAD + "d1/s1/b1/c1,a.avi,-1\n", "line 2: fps: Input should be greater than 0"),
        (HEAD + "d1/s1/b1/c1,a.avi,fast\n", "line 2: fps: Input should be a valid number"),
        (HEAD + "d1/s1/b1/c1,a.avi\n\nd1/s1/b1/c1,b.avi\n", "line 4: d1/s1/b1/c1 is on line 2 already"),
        (HEAD + 'd1/s1/b1/c1,"a.avi\n', "line 2: unexpected end of data"),
        (HEAD + "d1/s1/b1/c1,rtsp://u:hushhush@a/b\n", "line 2: address: rtsp://a: an address holds no user"),
        ("camera,address,position\nd1/s1/b1/c1,a.avi,12\n", "line 2: position: '12': write x,y in meters"),
        ("camera,address,position\nd1/s1/b1/c1,a.avi,'1,nan'\n".replace("'", '"'), "line 2: position: .* finite"),
        (
            "camera,address,region\nd1/s1/b1/c1,a.avi,'0,0,9,inf'\n".replace("'", '"'),
            "line 2: region: '0,0,9,inf': write",
        ),
        ("camera,address,overlaps\nd1/s1/b1/c1,a.avi,D2\n", "line 2: overlaps: 'D2' is not a unit code"),
        ("camera,address,start\nd1/s1/b1/c1,a.avi,08:00\n", "line 2: start: '08:00' is not a time"),
        ("camera,address,masks\nd1/s1/b1/c1,a.avi,0.5\n", "line 2: masks: '0.5': write corners x,y"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "cameras.csv"
    path.write_text(content)
    with pytest.raises(UrbanReidError, match=message) as caught:
        read_feed_file(path)
    said = str(caught.value)
    assert said.startswith(str(path)) and "\n" not in said and "hushhush" not in said


def test_a_city_file_may_hold_feeds(tmp_path: Path) -> None:
    path = tmp_path / "city.yaml"
    path.write_text(
        "units:\n"
        "  - {code: d1, name: Center}\n  - {code: d1/s1}\n  - {code: d1/s1/b1}\n"
        "  - {code: d1/s1/b1/c1, position: [1, 2], feed: {address: plaza.avi, looks_per_s: 2}}\n"
        "  - {code: d1/s1/b1/c2}\n"
    )
    found = read_feed_file(path)
    (camera,) = found.cameras
    assert camera.feed.address == str(tmp_path / "plaza.avi") and camera.feed.looks_per_s == 2
    assert camera.unit == {"position": (1, 2)} and found.city is not None and found.city.units[0].name == "Center"
    path.write_text(path.read_text().replace("looks_per_s: 2", "looks_per_s: 99"))
    with pytest.raises(UrbanReidError, match=r"line 5, column 70, unit d1/s1/b1/c1, feed, looks_per_s: .*less than"):
        read_feed_file(path)
    path.write_text("units: [{code: d1}]\n")
    with pytest.raises(UrbanReidError, match="no camera has a feed"):
        read_feed_file(path)


def test_what_is_no_list_of_cameras_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"camera,address\nd1/s1/b1/c1,\xff\n")
    for name, message in (
        ("cameras.xlsx", "is no .csv, .yaml or .yml file"),
        ("missing.csv", "cannot be read"),
        ("latin.csv", "is not UTF-8"),
    ):
        with pytest.raises(UrbanReidError, match=message):
            read_feed_file(tmp_path / name)
