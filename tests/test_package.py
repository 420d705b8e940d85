"""The wheel in an environment of its own, run in a folder that has packages of the same names."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.system
PACKAGES = ("schemas", "synthetic", "reid_core", "pipeline", "flows", "urban_reid", "migrations")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("urban_reid-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it, which uses our dependencies but not our checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run([*install, "--disable-pip-version-check"], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # A folder named in a .pth file goes behind the environment's own, and its own .pth files are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture
def strange_folder(tmp_path: Path) -> Path:
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    return tmp_path


def test_what_the_wheel_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata_name = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(metadata_name).decode())
        scripts = archive.read(metadata_name.replace("METADATA", "entry_points.txt")).decode()
    about = metadata_name.removesuffix("/METADATA")
    ours = {name for name in names if not name.startswith(f"{about}/")}
    assert ours == {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {f"{package}/py.typed" for package in PACKAGES} < ours
    assert {
        "migrations/versions/0001_city.py",
        "reid_core/weights/demo/card.json",
        "reid_core/weights/demo/weights.safetensors",
    } < ours
    assert any(name.startswith("pipeline/report/templates/") and name.endswith(".jinja") for name in ours)
    assert f"{about}/licenses/LICENSE" in names
    assert "urban-reid = urban_reid.cli:main" in scripts
    assert metadata["Version"] == version("urban-reid")
    assert [url.partition(", ")[0] for url in metadata.get_all("Project-URL", [])] == [
        "Repository",
        "Issues",
        "Changelog",
    ]
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["Description-Content-Type"] == "text/markdown"
    assert not [needed for needed in metadata.get_all("Requires-Dist", []) if " @ " in needed]


def test_it_works_where_others_have_packages_of_the_same_names(
    environment: Path, strange_folder: Path, home: Path
) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "URBAN_REID_"))}
    variables |= {"URBAN_REID_HOME": str(home)}

    def run(program: str, *arguments: str) -> str:
        command = [str(environment / "bin" / program), *arguments]
        done = subprocess.run(command, env=variables, cwd=strange_folder, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        return done.stdout

    imported = f"import {', '.join(PACKAGES)}, sys; print([sys.modules[name].__file__ for name in {PACKAGES}])"
    assert all(str(environment) in file for file in run("python", "-P", "-c", imported).split(","))

    upgraded = json.loads(run("urban-reid", "db", "upgrade", "--json"))
    assert upgraded["before"] is None and upgraded["after"]
    found = json.loads(run("urban-reid", "demo", "--cameras", "2", "--people", "3", "--json"))
    assert found["crops"] > 0 and found["levels"]["camera"] >= found["levels"]["district"] > 0
    assert Path(found["report"]).is_file()
    assert len(Path(found["assignments"]).read_text().splitlines()) == found["crops"]
    again = json.loads(run("urban-reid", "resolve", "--unit", "d1", "--json"))
    assert (again["written"], again["digest"]) == (0, found["digest"])
