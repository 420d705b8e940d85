"""The image: what it is made of."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import jsonschema
import yaml

from tests.helpers.deployed import DEPLOY

ROOT = DEPLOY.parent
DOCKERFILE = DEPLOY / "docker/Dockerfile"
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / name).read_text()))


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_images_lock_is_that_of_development_without_its_tools() -> None:
    image, whole = pins("requirements-image.lock"), pins("requirements.lock")
    assert image.items() <= whole.items()
    assert {"openvino", "onnxruntime", "s3fs", "torch", "prefect"} <= image.keys()
    assert not {"pytest", "mypy", "moto", "playwright"} & image.keys()
    assert (ROOT / "requirements-image.lock").read_text().count("==") <= (
        ROOT / "requirements-image.lock"
    ).read_text().count("--hash=")


def test_a_workflow_is_of_githubs_schema() -> None:
    published = files("check_jsonschema") / "builtin_schemas" / "vendor" / "github-workflows.json"
    validator = jsonschema.Draft7Validator(json.loads(published.read_text()))
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        found = yaml.safe_load(path.read_text())
        found["on"] = found.pop(True)  # YAML 1.1 reads the word as a truth
        assert [error.message for error in validator.iter_errors(found)] == [], path


def test_what_only_cuda_needs_is_left_out_of_the_cpu_image() -> None:
    left_out = set((DEPLOY / "docker/of-cuda.txt").read_text().split())
    torch = {"torch", "torchvision", "triton"}
    named = {name for name in pins("requirements-image.lock") if name.startswith(("nvidia-", "cuda-"))} | torch
    assert left_out == named


def test_the_image_has_every_package_of_the_wheel() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    copied = re.findall(r"^COPY (\w+) \1$", DOCKERFILE.read_text(), re.MULTILINE)
    let_in = (DEPLOY / "docker/Dockerfile.dockerignore").read_text().split()
    assert sorted(copied) == sorted(packages)
    assert {f"!{name}" for name in packages} <= set(let_in)


def test_files_name_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for path in (*DEPLOY.rglob("*.yaml"), DOCKERFILE):
        for named in re.findall(r"urban-reid:(\d+\.\d+\.\d+)-|appVersion: (\S+)", path.read_text()):
            assert version in named, path
