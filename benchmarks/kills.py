"""Each of five processes of `urban-reid up` killed again and again during a run.

    python -m benchmarks.kills [--kills 10] [--people 10]

Renders a city of 8 cameras and resolves it once undisturbed; then, for each of database, core, Prefect server, runner
of flows and resolver, takes it in anew under `up`, hands a resolve over, and kills (SIGKILL) the process that many
times, each time as soon as it serves again. Prints the seconds until it served again (median, longest), and whether the
decision digest equals that of the undisturbed resolve.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from benchmarks.home import home
from benchmarks.overhead import PROGRAM, make_model, render
from pipeline.store.embedded import running

T = TypeVar("T")

#: Until a killed process serves again, and until a run ends, seconds.
_PATIENCE_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--people", type=int, default=10)
    arguments = parser.parse_args()
    with home() as folder:
        render(folder / "city", arguments.people)
        make_model("demo", folder / "model")
        quiet = City(folder / "quiet", folder)
        quiet.run("resolve", "--unit", "d1")
        digest = quiet.digest()
        print(f"{'killed':<10} {'times':>5} {'median s':>9} {'longest s':>9}   digest", flush=True)
        for name in ("database", "core", "prefect", "runner", "resolver"):
            city = City(folder / name, folder)
            seconds = city.disturb(name, arguments.kills)
            same = "equal" if city.digest() == digest else "DIFFERS"
            middle, longest = statistics.median(seconds), max(seconds)
            print(f"{name:<10} {len(seconds):>5} {middle:>9.1f} {longest:>9.1f}   {same}", flush=True)


class City:
    """A data directory with the city's crops, none of them resolved."""

    def __init__(self, at: Path, folder: Path) -> None:
        self._home = at
        self._serving = at / "prefect" / "serving"
        self._environment = {**os.environ, "URBAN_REID_HOME": str(at)}
        self.run("city", "load", str(folder / "city" / "city.yaml"))
        self.run("models", "register", "demo", str(folder / "model"))
        self.run("models", "use", "demo")
        self.run("ingest", "manifest", str(folder / "city" / "manifest.jsonl"))

    def run(self, *arguments: str) -> dict[str, object]:
        done = subprocess.run([*PROGRAM, *arguments, "--json"], env=self._environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"urban-reid {' '.join(arguments)}: {done.stderr}")
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def digest(self) -> object:
        return self.run("status")["digest"]

    def disturb(self, name: str, kills: int) -> list[float]:
        """Kills the process of that name during a resolve. Returns the seconds until it served again, for each kill.

        What the resolve has left, because a kill ended the run, is resolved at the end.
        """
        with (self._home / "up.log").open("wb") as log:
            up = subprocess.Popen([*PROGRAM, "up"], env=self._environment, stdout=log, stderr=log)
        try:
            _wait(lambda: self._serving.exists() and self._process("core") is not None)
            self.run("resolve", "--unit", "d1", "--no-wait")
            seconds = []
            for _ in range(kills):
                seconds.append(self._kill(name))
            self.run("resolve", "--unit", "d1")
            return seconds
        finally:
            up.send_signal(signal.SIGINT)
            up.wait()

    def _kill(self, name: str) -> float:
        process = _wait(lambda: self._process(name))
        if name == "runner":
            self._serving.unlink(missing_ok=True)  # made again by the next runner when it serves
        os.kill(process, signal.SIGKILL)
        began = time.monotonic()
        _wait(lambda: self._process(name) not in (None, process) and self._serves(name))
        return time.monotonic() - began

    def _process(self, name: str) -> int | None:
        """The process's id; None while there is none."""
        with suppress(OSError, ValueError, KeyError, IndexError):
            if name == "database":
                return int((self._home / "postgres" / "postmaster.pid").read_text().split()[0])
            if name == "prefect":
                return int(json.loads((self._home / "prefect" / "server.json").read_bytes())["pid"])
        module = {
            "core": "reid_core.core_process.service",
            "runner": "flows.deployments",
            "resolver": "urban_reid.resolver",
        }.get(name)
        mine = f"URBAN_REID_HOME={self._home}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes().split(b"\0")
                if module and module.encode() in command and mine in (folder / "environ").read_bytes():
                    return int(folder.name)
        return None

    def _serves(self, name: str) -> bool:
        """Whether the process answers: core and server a call, the database a query; the runner says that it polls; the
        resolver is there."""
        if name == "database":
            return running(self._home)
        if name == "core":
            with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
                probe.connect(str(self._home / "core.sock"))
                return True
        elif name == "prefect":
            url = json.loads((self._home / "prefect" / "server.json").read_bytes())["url"]
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with suppress(OSError), opener.open(f"{url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        elif name == "runner":
            return self._serving.exists()
        else:
            return True
        return False


def _wait(done: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + _PATIENCE_S
    while not (found := done()):
        if time.monotonic() > deadline:
            sys.exit("waited in vain")
        time.sleep(0.05)
    return found


if __name__ == "__main__":
    main()
