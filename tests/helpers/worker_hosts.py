"""Several hosts of a city on one machine: homes that share a database, pictures and a Prefect server."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import text

from pipeline.store import Store
from schemas.settings import Settings
from tests.helpers import waiting
from tests.helpers.command_line import environment_of, program
from tests.helpers.homes import new_home, remove_home

#: How long tests of hosts wait for a state.
PATIENCE_S = 300.0


def wait_until(done: Callable[[], Any], said: Callable[[], object] = lambda: "") -> Any:
    return waiting.wait_until(done, PATIENCE_S, said)


@contextmanager
def other_home(first: Settings) -> Iterator[Path]:
    """The home of another host: pictures and their keys are those of the first, models and secrets are its own."""
    home = new_home()
    for shared in ("crops", "keys", "context"):
        (first.home / shared).mkdir(mode=0o700, exist_ok=True)
        (home / shared).symlink_to(first.home / shared)
    for own in ("models", "detectors", "camera-secrets.toml"):
        if (first.home / own).is_dir():
            shutil.copytree(first.home / own, home / own)
        elif (first.home / own).exists():
            shutil.copy2(first.home / own, home / own)
    try:
        yield home
    finally:
        remove_home(home)


class Host:
    """`urban-reid worker` on a home, with the variables given; its output goes to HOME/worker.out."""

    def __init__(self, name: str, settings: Settings, home: Path, *words: str, **variables: str) -> None:
        self.name, self.home = name, home
        self._environment = environment_of(settings.model_copy(update={"home": home})) | {
            "URBAN_REID_HOST_NAME": name,
            "URBAN_REID_KEY_FILE": str(settings.home / "key-file"),
            "URBAN_REID_OPERATOR": name,
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        self._words = words
        self.start()

    def start(self) -> None:
        with (self.home / "worker.out").open("ab") as out:
            self.process = subprocess.Popen(
                program("worker", *self._words), env=self._environment, cwd=self.home, stdout=out, stderr=out
            )

    def kill(self) -> None:
        """Ends all its processes at once and without a word, as a power cut does."""
        if self.process.poll() is not None:
            return
        for process in (self.process.pid, *_below(self.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Ends it as Ctrl-C does."""
        self.process.terminate()
        self.process.wait(PATIENCE_S)

    def said(self) -> str:
        """All that its logs hold."""
        logs = [self.home / "worker.out", *self.home.glob("*.log"), *(self.home / "prefect").glob("*.log")]
        return "\n".join(f"{self.name} {log.name}: {log.read_text(errors='replace')}" for log in logs if log.exists())


@contextmanager
def hosts(*made: Host) -> Iterator[None]:
    """Kills what is left of them at the end."""
    try:
        yield
    finally:
        for host in made:
            host.kill()


def turns_at(store: Store, camera: str) -> list[str]:
    """The hosts, as operators, that took a camera's crops, by the time of the crops: a name for each turn."""
    query = text(
        "SELECT b.operator FROM crop c JOIN ingest_batch b ON b.id = c.batch_id WHERE c.camera = :camera "
        "ORDER BY c.captured_at, b.id"
    )
    with store.begin() as connection:
        return [host for host, _ in groupby(connection.execute(query, {"camera": camera}).scalars())]


def _below(process: int) -> list[int]:
    """The processes that a process has started, theirs, and so on."""
    found: list[int] = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                found += [child, *_below(child)]
    return found
