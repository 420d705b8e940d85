"""Unusable input at the command line: one clear line, the right exit code, nothing written.

The tests of the functions behind a command are beside their modules.
"""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml
from sqlalchemy import text

from pipeline.city.units import read_city_file, store_city
from pipeline.registry import register_model, use_model
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from reid_core.files import read_card, write_card
from schemas.settings import Settings
from schemas.settings import settings as read_settings
from tests.helpers.command_line import environment_of, error_of, program
from tests.helpers.homes import fresh_settings
from tests.helpers.pictures import UNITS, picture
from tests.helpers.town import PACKAGED
from urban_reid.cli import main

C1 = "d1/s1/b1/c1"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def line(path: str, **fields: Any) -> str:
    return json.dumps({"path": path, "camera": C1, "time": "2026-01-01T08:00:00.120Z"} | fields)


def saying_it_is(width: int, height: int, jpeg: bytes) -> bytes:
    """The same JPEG with another size in its header."""
    size = jpeg.index(b"\xff\xc0") + 5  # behind the marker, the segment's length and the precision
    return jpeg[:size] + struct.pack(">HH", height, width) + jpeg[size + 4 :]


def write_pictures(folder: Path) -> None:
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(picture(number))
    (folder / "empty.jpg").touch()
    (folder / "cut.jpg").write_bytes(picture(5)[:-300])
    (folder / "pixel.png").write_bytes(cv2.imencode(".png", cv2.UMat(1, 1, cv2.CV_8UC3).get())[1].tobytes())
    (folder / "huge.jpg").write_bytes(saying_it_is(50_000, 50_000, picture(6)))
    with zipfile.ZipFile(folder / "archive.jpg", "w") as archive:
        archive.writestr("0.jpg", picture(0))


def write_models(folder: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, folder / "pickle.pth")
    (folder / "pickle.xml").write_bytes((folder / "pickle.pth").read_bytes())
    for name, data in (("lies", struct.pack("<Q", 2**62) + b"{}"), ("other", b"something else")):
        (folder / name).mkdir()
        (folder / name / "weights.safetensors").write_bytes(data)
    lying = hashlib.sha256((folder / "lies" / "weights.safetensors").read_bytes()).hexdigest()
    card = read_card(PACKAGED)
    write_card(card.model_copy(update={"sha256": {"weights.safetensors": lying}}), folder / "lies")
    write_card(card, folder / "other")


def write_cities(folder: Path) -> None:
    cities = {
        "city": {"units": UNITS},
        "larger": {"units": (*UNITS, {"code": "d2"})},
        "twice": {"units": (*UNITS, {"code": "d1"})},
        "under-street": {"units": (*UNITS[:2], {"code": "d1/s1/c1", "position": [0, 0]})},
    }
    for name, city in cities.items():
        (folder / f"{name}.yaml").write_text(json.dumps(city))
    (folder / "tag.yaml").write_text("units: !!python/object/apply:os.system ['touch ran']")
    bomb = "\n".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 12))
    (folder / "bomb.yaml").write_text(f"b0: &b0 [x]\n{bomb}\nunits: *b11")


def write_sets(folder: Path) -> None:
    for name, files in {
        "strange": [f"{number:02}.jpg" for number in range(12)],
        "junk": ["-1_c1s1_000001_01.jpg"],
        "distractor": ["0000_c1s1_000001_01.jpg"],
        "elsewhere": ["0002_c7s1_000001_01.jpg"],
    }.items():
        (folder / name / "query").mkdir(parents=True)
        for file in files:
            (folder / name / "query" / file).write_bytes(picture(0))
    (folder / "empty").mkdir()
    (folder / "empty-split" / "query").mkdir(parents=True)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of unusable input, which no test changes."""
    around = tmp_path_factory.mktemp("around")
    (around / "outside.jpg").write_bytes(picture(9))
    folder = around / "material"
    folder.mkdir()
    for write in (write_pictures, write_models, write_cities, write_sets):
        write(folder)
    os.mkfifo(folder / "pipe")
    (folder / "out.jpg").symlink_to("../outside.jpg")
    (folder / "text.avi").write_text("no video")
    writer = cv2.VideoWriter(str(folder / "no-frames.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    writer.release()
    manifests = {
        "escape": line("../outside.jpg"),
        "link": line("out.jpg"),
        "scheme": line("https://example.org/a.jpg"),
        "root": line(f"file://{around}/outside.jpg"),
        "camera": line("1.jpg", camera="d1/s1/b1/c11"),
        "no-zone": line("1.jpg", time="2026-01-01T08:00:00"),
        "future": line("1.jpg", time="2999-01-01T08:00:00Z"),
        "track": line("1.jpg", track="a\nb"),
        "no-json": "path,camera,time",
        "none-usable": line("empty.jpg"),
    }
    for name, second in manifests.items():
        first = [] if name == "none-usable" else [line("0.jpg")]
        (folder / f"{name}.jsonl").write_text("\n".join([*first, second]))
    return folder


@pytest.fixture(scope="module")
def settings(server: EmbeddedServer) -> Iterator[Settings]:
    """One home for all tests that write nothing: the small city, the demo's model, no crops."""
    with fresh_settings(server) as fresh:
        with Store.open(fresh, "pytest") as store:
            store_city(store, read_city_file_of(fresh))
            register_model(store, fresh, PACKAGED, "demo")
            use_model(store, "demo")
        yield fresh


def read_city_file_of(settings: Settings) -> Any:
    path = settings.home / "city.yaml"
    path.write_text(json.dumps({"units": UNITS}))
    return read_city_file(path)


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings, "pytest") as opened:
        yield opened


@pytest.fixture
def empty_settings(server: EmbeddedServer) -> Iterator[Settings]:
    with fresh_settings(server) as fresh:
        yield fresh


@pytest.fixture
def run(
    material: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs one command in this process, among the material; what it wrote to its two streams, and its exit code."""
    monkeypatch.chdir(material)

    def call(*arguments: str, on: Settings = settings) -> "subprocess.CompletedProcess[str]":
        for name, value in environment_of(on).items():
            monkeypatch.setenv(name, value)
        read_settings.cache_clear()
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        shown = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), shown.out, shown.err)

    yield call
    read_settings.cache_clear()


def everything(settings: Settings) -> tuple[dict[str, int], set[str]]:
    """Rows by table, and the files of the data directory."""
    with Store.open(settings, "pytest") as store, store.owning() as connection:
        tables = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        rows = {table: connection.scalar(text(f'SELECT count(*) FROM "{table}"')) or 0 for table in tables}
    files = {str(path.relative_to(settings.home)) for path in settings.home.rglob("*") if path.is_file()}
    return rows, files


SEARCH = ("search", "--unit", "d1", "--reason", "case 17", "--probe")
DATASET = ("ingest", "dataset", "--layout", "market1501", "--city", "city.yaml")
VIDEO = ("ingest", "video", "--camera", C1)

REFUSED: list[tuple[tuple[str, ...], int, str]] = [
    # folders and names
    ((*DATASET, "missing"), 2, "missing: no such folder"),
    ((*DATASET, "empty"), 2, "holds no folder bounding_box_train"),
    ((*DATASET, "empty-split"), 2, "holds no picture"),
    ((*DATASET, "strange"), 2, "unlike '00.jpg', '01.jpg'"),
    ((*DATASET, "junk"), 2, "junk: every picture is junk"),
    ((*DATASET, "elsewhere"), 2, "no camera of the city has the source c7 (1 pictures)"),
    ((*DATASET, "junk", "--times", "frames:0"), 2, "write frames:25"),
    (
        ("ingest", "dataset", "distractor", "--layout", "market1501", "--city", "larger.yaml"),
        2,
        "another city is loaded",
    ),
    # pictures
    ((*SEARCH, "missing.jpg"), 2, "nor a picture"),
    ((*SEARCH, "."), 2, "nor a picture: is no regular file"),
    ((*SEARCH, "/dev/zero"), 2, "nor a picture: is no regular file"),
    ((*SEARCH, "empty.jpg"), 2, "--probe empty.jpg: the file is empty"),
    ((*SEARCH, "cut.jpg"), 2, "--probe cut.jpg: the picture is damaged"),
    ((*SEARCH, "pixel.png"), 2, "--probe pixel.png: the picture is 1 x 1 pixels"),
    ((*SEARCH, "huge.jpg"), 2, "--probe huge.jpg: the picture is too large"),
    ((*SEARCH, "archive.jpg"), 2, "--probe archive.jpg: is no JPEG"),
    (("ingest", "manifest", "none-usable.jsonl"), 2, "none of the 1 pictures can be used"),
    # videos
    ((*VIDEO, "missing.avi"), 2, "missing.avi: no such file"),
    ((*VIDEO, "text.avi"), 2, "text.avi: is no video"),
    ((*VIDEO, "no-frames.avi"), 2, "no-frames.avi: "),
    ((*VIDEO, "no-frames.avi", "--start", "2999-01-01T00:00:00Z"), 2, "lies in the future"),
    ((*VIDEO, "no-frames.avi", "--start", "2026-01-01T00:00:00"), 2, "has no zone"),
    ((*VIDEO, "no-frames.avi", "--detector", "missing.xml"), 1, "missing.xml"),
    (("ingest", "video", "no-frames.avi", "--camera", "d1/s1/b1/c2"), 2, "nearest: d1/s1/b2/c2, d1/s1/b1/c1"),
    ((*VIDEO, "no-frames.avi", "--detector", "archive.jpg"), 2, "archive.jpg: is no detector; give an OpenVINO .xml"),
    ((*VIDEO, "no-frames.avi", "--detector", "pickle.pth"), 1, "pickle.pth: "),
    ((*VIDEO, "rtsp://me:s3cret@127.0.0.1:1/a"), 2, "leave user and password out of it"),
    # manifests
    (("ingest", "manifest", "missing.jsonl"), 2, "missing.jsonl: cannot be read"),
    (("ingest", "manifest", "empty"), 2, "empty: cannot be read: Is a directory"),
    (("ingest", "manifest", "empty.jpg"), 2, "empty.jpg: holds no line"),
    (("ingest", "manifest", "archive.jpg"), 2, "line 1: "),
    (("ingest", "manifest", "no-json.jsonl"), 2, "line 2: Invalid JSON"),
    (("ingest", "manifest", "escape.jsonl"), 2, "line 2: the path '../outside.jpg' leaves"),
    (("ingest", "manifest", "link.jsonl"), 2, "line 2: the path 'out.jpg' leads to a place outside"),
    (("ingest", "manifest", "scheme.jsonl"), 2, "lies below no allowed root"),
    (("ingest", "manifest", "root.jsonl"), 2, "leads to a place outside"),
    (("ingest", "manifest", "camera.jsonl"), 2, "line 2: no camera 'd1/s1/b1/c11' in this city; nearest: d1/s1/b1/c1"),
    (("ingest", "manifest", "no-zone.jsonl"), 2, "has no zone"),
    (("ingest", "manifest", "future.jsonl"), 2, "lies in the future"),
    (("ingest", "manifest", "track.jsonl"), 2, "holds the control character U+000A"),
    # paths that the system refuses
    *(
        (command, 2, f"{'x' * 200}: File name too long")
        for command in (
            (*DATASET, "x" * 300),
            (*VIDEO, "x" * 300),
            (*VIDEO, "no-frames.avi", "--detector", "x" * 300),
            ("models", "register", "m", "x" * 300),
            ("resolve", "--unit", "d1", "--export", "x" * 300),
            ("reproduce", "table1", "--dataset", "rendered:1:4", "--pretrained", "x" * 300),
        )
    ),
    # the city
    (("city", "load", "missing.yaml"), 2, "missing.yaml: cannot be read"),
    (("city", "load", "archive.jpg"), 2, "archive.jpg: is no"),
    (("city", "load", "tag.yaml"), 2, "tag.yaml, line 1, column 8: the tag"),
    (("city", "load", "bomb.yaml"), 2, "bomb.yaml, line 1, column 5: anchors and aliases are not allowed"),
    (("city", "load", "twice.yaml"), 2, "unit codes are there twice: d1"),
    (("city", "load", "under-street.yaml"), 2, "d1/s1/c1 is a building by its depth"),
    (("resolve", "--unit", "d2"), 2, "no unit 'd2' in this city; nearest: d1"),
    (("report", "--unit", "d2", "--out", "report"), 2, "no unit 'd2' in this city; nearest: d1"),
    (("review", "list", "--unit", "d2"), 2, "no unit 'd2' in this city; nearest: d1"),
    (("review", "agreement", "--unit", "d2"), 2, "no unit 'd2' in this city; nearest: d1"),
    (("report", "--unit", "d1", "--out", "0.jpg"), 2, "0.jpg is a file"),
    (("report", "--unit", "d1", "--out", "junk"), 2, "holds other files"),
    (("demo", "--people", "1", "--cameras", "2"), 1, "holds a city that is not the demo's"),
    (("resolve", "--unit", "d1", "--export", "empty"), 2, "it exists and is not a plain file"),
    (("resolve", "--unit", "d1", "--export", "pipe"), 2, "it exists and is not a plain file"),
    # searches
    (("search", "--unit", "d1/s2", "--reason", "x", "--probe", "a" * 64), 2, "nearest: d1/s1"),
    (("search", "--unit", "d1/s2", "--reason", "x", "--probe", "0.jpg"), 2, "nearest: d1/s1"),
    (("search", "--unit", "d1", "--reason", " \n\t", "--probe", "0.jpg"), 2, "--reason: may not be blank"),
    (("search", "--unit", "d1", "--reason", "\x00", "--probe", "0.jpg"), 2, "--reason: may not be blank"),
    (("search", "--unit", "d1", "--reason", "x" * 2001, "--probe", "0.jpg"), 2, "--reason: "),
    (("search", "--unit", "d1", "--reason", "\udcff", "--probe", "0.jpg"), 2, "--reason: "),
    # models
    (("models", "register", "m", "missing.onnx"), 2, "missing.onnx: no such file"),
    (("models", "register", "m", "empty"), 1, "a model directory holds card.json"),
    (("models", "register", "m", "pickle.pth"), 1, "pickle.pth: is a pickle or an archive"),
    (("models", "register", "m", "pickle.xml"), 1, "pickle.xml: is a pickle or an archive"),
    (("models", "register", "m", "0.jpg"), 1, "0.jpg: not a model file"),
    (("models", "register", "m", "lies"), 1, "its header claims 4611686018427387904 bytes"),
    (("models", "register", "m", "other"), 1, "its SHA-256 is not the one in card.json"),
    (("models", "register", "../m", "lies"), 2, "'../m' is not a valid model name"),
    (("models", "use", "dem"), 2, "there are: demo"),
    (("models", "calibrate", "demo", "--dataset", "market1501:missing"), 2, "missing: no such folder"),
    (
        ("models", "calibrate", "demo", "--dataset", "market1501:strange"),
        2,
        "has the form 0002_c1s1_000451_03.jpg, unlike '00.jpg', '01.jpg'",
    ),
    (("models", "calibrate", "demo", "--dataset", "rendered:1,1"), 2, "seeds must be different whole numbers"),
    (("models", "calibrate", "demo", "--dataset", "manifest:missing.jsonl"), 2, "missing.jsonl: cannot be read"),
    (("models", "calibrate", "demo", "--dataset", "elsewhere"), 2, "calibrate on rendered:SEED"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), REFUSED, ids=[ascii(" ".join(a))[1:70] for a, _, _ in REFUSED])
def test_refused_with_one_line_and_nothing_written(
    run: Run, settings: Settings, material: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    before = everything(settings), sorted(material.iterdir())
    shown = error_of(run(*arguments), code)
    assert said in shown
    assert "s3cret" not in shown and len(shown) < 2000
    assert (everything(settings), sorted(material.iterdir())) == before


def test_a_data_set_that_is_refused_brings_no_city(run: Run, empty_settings: Settings) -> None:
    for folder in ("strange", "junk", "elsewhere"):
        before = everything(empty_settings)
        error_of(run(*DATASET, folder, on=empty_settings), 2)
        assert everything(empty_settings) == before


def test_unusable_pictures_among_good_ones_are_counted_and_told(
    run: Run, empty_settings: Settings, material: Path, tmp_path: Path
) -> None:
    assert run("city", "load", "city.yaml", on=empty_settings).returncode == 0
    names = ["0.jpg", "empty.jpg", "cut.jpg", "1.jpg", "pixel.png", "huge.jpg", "archive.jpg", "gone.jpg"]
    manifest = material / "mixed.jsonl"
    # The same picture under two cameras is two crops; a clock that is set back is told.
    lines = [line(name, track="1", time=f"2026-01-01T08:00:0{8 - i}Z") for i, name in enumerate(names)]
    manifest.write_text("\n".join([*lines, line("0.jpg", camera="d1/s1/b2/c2")]))
    try:
        first = run("ingest", "manifest", "mixed.jsonl", "--json", on=empty_settings)
        assert first.returncode == 0, first.stderr
        report = json.loads(first.stdout)
        assert (report["read"], report["written"], report["skipped_count"]) == (9, 3, 6)
        for name, reason in {
            "empty.jpg": "empty",
            "cut.jpg": "damaged",
            "pixel.png": "1 x 1 pixels",
            "huge.jpg": "too large",
            "archive.jpg": "is no JPEG",
            "gone.jpg": "No such file",
        }.items():
            assert any(name in told and reason in told for told in report["skipped"])
        assert "was its clock set back?" in report["notes"][0]

        before = everything(empty_settings)
        shown = run("ingest", "manifest", "mixed.jsonl", on=empty_settings)
        assert shown.returncode == 0
        assert shown.stdout == "9 read, 0 written, 3 already there, 6 left out; batch 1\n"
        assert shown.stderr.count("note: ") == 7
        assert everything(empty_settings) == before
    finally:
        manifest.unlink()


HOSTILE = "<script>alert(1)</script> [red]\x1b[31m ../..\n{{7*7}} \u202eturned\u202c \U0001f6b6"
#: What must not be printed: control characters of a terminal, and marks that change the direction of writing.
UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.system
def test_hostile_text_stays_text(
    server: EmbeddedServer, city_files: Path, model_folder: Path, lines: list[str], tmp_path: Path
) -> None:
    """Names, file names, truths and reasons: kept as they were given, and harmless wherever they are shown."""
    files = shutil.copytree(city_files, tmp_path / "files")
    city = yaml.safe_load((files / "city.yaml").read_text())
    for unit in city["units"]:
        unit["name"] = HOSTILE
    (files / "city.yaml").write_text(json.dumps(city, ensure_ascii=False))
    bad = json.dumps(json.loads(lines[0]) | {"path": f"pictures/{HOSTILE.replace('/', '')}.jpg"})
    truth = re.sub(r"[\x1b\n]", "", HOSTILE)  # a truth with control characters is refused
    kept = [json.dumps(json.loads(entry) | {"truth": truth}) for entry in lines[:60]]
    (files / "manifest.jsonl").write_text("\n".join([*kept, bad]))
    with fresh_settings(server) as settings:

        def shown(*arguments: str) -> str:
            done = subprocess.run(
                program(*arguments),
                env=environment_of(settings) | {"URBAN_REID_OPERATOR": HOSTILE, "COLUMNS": "300"},
                cwd=files,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            assert not UNSAFE.search(done.stdout + done.stderr), ascii(done.stdout + done.stderr)
            return done.stdout + done.stderr

        shown("city", "load", "city.yaml")
        assert "<script>alert(1)</script> [red] [31m ../.. {{7*7}}" in shown("city", "show")
        shown("models", "register", "demo", str(model_folder))
        shown("models", "use", "demo")
        assert "61 read, 60 written, 0 already there, 1 left out" in shown("ingest", "manifest", "manifest.jsonl")
        shown("resolve", "--unit", "d1", "--export", "out.jsonl")
        exported = [json.loads(row) for row in (files / "out.jsonl").read_text().splitlines()]
        assert {row["truth"] for row in exported} == {truth}
        assert "1" in shown("search", "--unit", "d1", "--probe", exported[0]["crop"], "--reason", HOSTILE)
        with Store.open(settings, "pytest") as store, store.signed_in() as connection:
            said = connection.execute(text("SELECT reason, actor FROM audit WHERE action = 'search.start'")).one()
        assert tuple(said) == (HOSTILE, HOSTILE)
        shown("report", "--unit", "d1", "--out", "report")
        for page in (files / "report").glob("*.html"):
            content = page.read_text()
            assert "<script" not in content and not UNSAFE.search(content)
        assert "&lt;script&gt;alert(1)" in (files / "report" / "index.html").read_text()
