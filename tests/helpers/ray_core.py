"""`urban-reid core` in an environment of its own, made from requirements-ray.lock, as on another machine."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil

from schemas.settings import Settings

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements-ray.lock"
#: Kept between runs, and made anew when the lock has changed.
PLACE = ROOT / "build" / "ray"


@cache
def ray_python() -> Path:
    """The interpreter of an environment with what requirements-ray.lock names, and this checkout."""
    python, stamp = PLACE / "bin" / "python", PLACE / "made-from"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(PLACE, ignore_errors=True)
        uv = [str(Path(sys.executable).with_name("uv"))]
        for step in (
            ["venv", "--quiet", "--python", sys.executable, str(PLACE)],
            ["pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(LOCK)],
        ):
            subprocess.run([*uv, *step], check=True, cwd=ROOT)
        (site,) = PLACE.glob("lib/python3*/site-packages")
        (site / "checkout.pth").write_text(f"{ROOT}\n")
        stamp.write_text(wanted)
    return python


class RayCore:
    """`urban-reid core` on a free port of loopback."""

    def __init__(self, settings: Settings, process: "subprocess.Popen[str]", url: str) -> None:
        self.process = process
        #: Of a caller: the same home, whose core is there.
        self.settings = settings.model_copy(update={"core_url": url})

    def family(self) -> list[psutil.Process]:
        """The process itself and all that it started, Ray's included."""
        ours = psutil.Process(self.process.pid)
        return [ours, *ours.children(recursive=True)]

    def computing(self) -> list[psutil.Process]:
        """The process that answers and those that compute."""
        return [psutil.Process(self.process.pid), *self.replicas()]

    def replicas(self) -> list[psutil.Process]:
        """The processes that compute."""
        return [process for process in self.family() if is_replica(process)]


def is_replica(process: psutil.Process) -> bool:
    """Whether a process of Ray's computes with a model."""
    try:
        return "Replica" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


@contextmanager
def ray_core(settings: Settings, **variables: str) -> Iterator[RayCore]:
    """`urban-reid core` of this home, once it listens, until the block ends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_"))}
    environment |= {"URBAN_REID_HOME": str(settings.home), "URBAN_REID_DEVICE": "cpu"} | variables
    command = [str(ray_python()), "-P", "-m", "urban_reid.cli", "core", "--listen", "127.0.0.1:0", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the core ended with status {process.wait(60)}"
        yield RayCore(settings, process, json.loads(line)["url"])
        process.terminate()
        process.wait(120)
    finally:
        for one in psutil.Process().children(recursive=True) if process.poll() is None else []:
            if one.pid == process.pid or process.pid in [parent.pid for parent in one.parents()]:
                one.kill()
        process.wait(120)
        process.stdout.close()
