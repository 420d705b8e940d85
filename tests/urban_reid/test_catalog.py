"""The commands `urban-reid models catalog` and `urban-reid models get`, with the published files and a server."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from reid_core.attributes import open_attributes
from reid_core.catalog import catalog
from reid_core.detection import open_detector
from schemas.settings import Settings
from tests.helpers.assets import asset
from tests.helpers.command_line import Run, error_of
from tests.helpers.file_server import file_server
from tests.helpers.onnx_files import onnx_file

DETECTOR, EMBEDDER = "person-detection-retail-0013", "person-reidentification-retail-0286"


@pytest.fixture
def models() -> Path:
    return asset(f"models/{EMBEDDER}/{EMBEDDER}.xml").parent.parent


def test_the_catalog_is_listed(run_here: Run) -> None:
    found = json.loads(run_here("models", "catalog", "--json").stdout)["models"]
    assert [model["name"] for model in found] == [model.name for model in catalog()]
    listed = run_here("models", "catalog").stdout
    assert EMBEDDER in listed and "Rank-1 94.8 %, mAP 83.7 % on Market-1501" in listed
    (one,) = json.loads(run_here("models", "catalog", EMBEDDER, "--json").stdout)["models"]
    assert one["name"] == EMBEDDER and one["dims"] == 256
    shown = run_here("models", "catalog", EMBEDDER).stdout
    assert "Apache-2.0; training data: not published" in shown and "by Intel" in shown
    assert one["releases"][0]["files"][0]["sha384"] in shown
    assert "no whole hash a79551df" in run_here("models", "catalog", "ssdlite320_mobilenet_v3_large_coco").stdout
    assert "nearest: " in error_of(run_here("models", "catalog", "retail-0286"), 2)


def test_from_a_folder_to_models_in_use(run_here: Run, settings: Settings, models: Path) -> None:
    got = run_here("models", "get", DETECTOR, EMBEDDER, "--from", str(models))
    assert got.returncode == 0, got.stderr
    assert got.stdout.splitlines() == [
        f"{DETECTOR} is here, and is the default detector",
        f"{EMBEDDER} is registered, and is the model in use",
    ]
    assert open_detector(settings).name == open_detector(settings, DETECTOR).name == f"{DETECTOR}.xml c4ee7a5d"
    found = json.loads(run_here("models", "list", "--json").stdout)
    assert found["detectors"] == ["hog", DETECTOR] and found["default_detector"] == DETECTOR
    assert f"detectors: hog, {DETECTOR} (default)" in run_here("models", "list").stdout
    (listed,) = found["models"]
    assert (listed["name"], listed["in_use"], listed["dims"]) == (EMBEDDER, True, 256)
    assert listed["card"]["input"]["color"] == "bgr"
    assert not [path for path in (settings.home / "downloads").iterdir() if path.suffix != ".lock"]
    # Again, without a source: nothing is fetched.
    again = json.loads(run_here("models", "get", DETECTOR, EMBEDDER, "--json").stdout)["models"]
    assert [model["fetched"] for model in again] == [False, False]
    damaged = settings.detectors_dir / DETECTOR / f"{DETECTOR}.bin"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    mended = json.loads(run_here("models", "get", DETECTOR, "--from", str(models), "--json").stdout)["models"]
    assert mended == [{"name": DETECTOR, "fetched": True, "default": True}]
    open_detector(settings)


def test_a_model_in_use_stays_in_use(run_here: Run, models: Path, tmp_path: Path) -> None:
    onnx_file(tmp_path / "mean.onnx", ("n", 3, 64, 32))
    convention = ("--color", "bgr", "--range", "255", "--mean", "0,0,0", "--std", "1,1,1")
    run_here("models", "register", "mean", "mean.onnx", *convention)
    run_here("models", "use", "mean")
    got = run_here("models", "get", EMBEDDER, "--from", str(models))
    assert got.stdout.splitlines() == [f"{EMBEDDER} is registered; mean is in use"]


def test_the_catalog_knows_the_input_of_a_registered_file(run_here: Run, models: Path) -> None:
    register = ("models", "register", "mine", str(models / EMBEDDER / f"{EMBEDDER}.xml"))
    assert run_here(*register).returncode == 0
    assert "this model is registered already, as mine" in error_of(
        run_here("models", "get", EMBEDDER, "--from", str(models)), 2
    )


def test_a_file_that_the_catalog_does_not_know_is_refused(run_here: Run, settings: Settings, models: Path) -> None:
    """The 0277 among the test assets is a repackaged copy."""
    name = "person-reidentification-retail-0277"
    said = error_of(run_here("models", "get", name, "--from", str(models)), 1)
    assert f"{name}.xml: is not the published file of {name}" in said
    assert "`urban-reid models register` takes a file that you trust yourself" in said
    assert not (settings.models_dir / name).exists()


def test_a_tampered_detector_is_refused(run_here: Run, settings: Settings, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / DETECTOR, tmp_path / DETECTOR)
    weights = tmp_path / DETECTOR / f"{DETECTOR}.bin"
    weights.chmod(0o600)
    changed = bytearray(weights.read_bytes())
    changed[1000] ^= 1
    weights.write_bytes(changed)
    said = error_of(run_here("models", "get", DETECTOR, "--from", str(tmp_path)), 1)
    assert f"{weights}: is not the published file" in said and "`--detector FILE`" in said
    assert not settings.detectors_dir.exists()
    weights.unlink()
    assert f"holds neither {DETECTOR}/{DETECTOR}.bin nor" in error_of(
        run_here("models", "get", DETECTOR, "--from", str(tmp_path)), 2
    )
    assert "no such folder" in error_of(run_here("models", "get", DETECTOR, "--from", "nowhere"), 2)


def test_from_a_mirror(run_here: Run, settings: Settings, models: Path) -> None:
    files = [models / EMBEDDER / f"{EMBEDDER}{suffix}" for suffix in (".xml", ".bin")]
    with file_server() as mirror:
        mirror.files = {f"/m/{EMBEDDER}/{file.name}": file.read_bytes() for file in files}
        mirror.cuts[f"/m/{EMBEDDER}/{EMBEDDER}.bin"] = 1
        got = run_here("models", "get", EMBEDDER, "--from", f"{mirror.address}/m/")
        assert got.returncode == 0, got.stderr
        said = error_of(run_here("models", "get", DETECTOR, "--from", f"{mirror.address}/m"), 2)
    assert "the server answers 404" in said
    other = run_here("models", "get", DETECTOR, "--from", "ftp://a/m")
    assert "is no http:// or https:// address" in error_of(other, 2)


def test_a_file_without_a_published_hash_needs_one_from_the_user(
    run_here: Run, settings: Settings, tmp_path: Path
) -> None:
    content = b"a network"
    (tmp_path / "yolox_tiny.onnx").write_bytes(content)
    get = ("models", "get", "yolox_tiny", "--from", ".")
    assert "its publisher states no hash" in error_of(run_here(*get), 2)
    assert "write 64 hexadecimal digits" in error_of(run_here(*get, "--sha256", "abc"), 2)
    assert "is not the published file" in error_of(run_here(*get, "--sha256", "0" * 64), 1)
    got = run_here(*get, "--sha256", hashlib.sha256(content).hexdigest().upper())
    assert got.returncode == 0, got.stderr
    assert (settings.detectors_dir / "yolox_tiny" / "yolox_tiny.onnx").read_bytes() == content
    assert "is here already, and is the default" in run_here("models", "get", "yolox_tiny").stdout
    assert "its hash is published; leave --sha256 out" in error_of(
        run_here("models", "get", DETECTOR, "--sha256", "0" * 64), 2
    )
    ssd = ("models", "get", "ssdlite320_mobilenet_v3_large_coco", "--sha256", "0" * 64)
    assert "which begin with a79551df" in error_of(run_here(*ssd), 2)
    two = run_here("models", "get", "yolox_s", "yolox_nano", "--sha256", "0" * 64)
    assert "one model at a time" in error_of(two, 2)


def test_names_and_tasks_that_cannot_be_got(run_here: Run) -> None:
    assert "no model 'retail-0286' in the catalog; nearest: " in error_of(run_here("models", "get", "retail-0286"), 2)
    attributes = "person-attributes-recognition-crossroad-0234"
    assert "its outputs are not known here; person-attributes" in error_of(run_here("models", "get", attributes), 2)


def test_a_model_for_attributes_is_kept_and_listed(run_here: Run, settings: Settings, models: Path) -> None:
    name = "person-attributes-recognition-crossroad-0230"
    got = run_here("models", "get", name, "--from", str(models))
    assert got.returncode == 0 and f"{name} is here; resolves use it from now on" in got.stdout, got.stderr
    assert "is here already" in run_here("models", "get", name).stdout
    assert json.loads(run_here("models", "list", "--json").stdout)["attributes"] == [name]
    assert f"for attributes: {name}" in run_here("models", "list").stdout
    assert len(open_attributes(settings).recognize([np.zeros((160, 80, 3), np.uint8)])) == 1


def test_two_programs_do_not_fetch_one_model_at_a_time(run_here: Run, settings: Settings) -> None:
    from schemas.disk import make_folders, open_lock, try_lock

    make_folders(settings.home / "downloads")
    with open_lock(settings.home / "downloads" / f"{DETECTOR}.lock") as lock:
        assert try_lock(lock)
        waiting = run_here("models", "get", DETECTOR, "--from", ".")
        assert "another program fetches this model now" in error_of(waiting, 1)
