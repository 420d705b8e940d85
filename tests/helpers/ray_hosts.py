"""A Ray cluster of three hosts, one of which also serves callers, and what is done to it while callers embed.

Each host has a replica of the model. Whatever happens to one of those that only compute, every call is answered, with
the bits that a core in the caller's own process gives.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from psutil import Process

from reid_core.on_ray.cluster import FILE
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from reid_core.serving.local import LocalCore
from reid_core.serving.token import make_secret
from schemas.errors import CoreUnavailable
from schemas.settings import Settings
from tests.helpers.hosts import Host, Network
from tests.helpers.ray_core import ROOT, is_replica, ray_python
from tests.helpers.services import waited_for
from tests.helpers.small_models import INPUT, small_model

_RAY_PORT, _PORT = 6379, 8440
_OBJECTS_BYTES = 200_000_000
_CALLERS, _PICTURES = 4, 5
#: Callers are at work for so long before a fault.
_BEFORE_S = 5.0


@dataclass(frozen=True)
class Calls:
    """What callers met between a fault and its end.

    wrong: answers that are not those of a core in their own process; failed: what they were told, a line each;
    longest_s: the longest call, seconds.
    """

    fault: str
    answered: int
    wrong: int
    failed: tuple[str, ...]
    longest_s: float


class RayHosts:
    """The hosts, and callers on a fourth. `folder`: their data directory, as on a file system that they share."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._settings = Settings(home=folder, device="cpu", batch_size=8, threads=1)
        self._model = small_model(self._settings.models_dir / "it")
        self._desk = network.host("callers")
        make_secret(folder / FILE)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_"))}
        self._environment = inherited | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / FILE)}
        self.hosts = [network.host(f"compute{number}") for number in (1, 2, 3)]
        self._address = f"{self.hosts[0].address}:{_RAY_PORT}"
        # As docs/many-machines.md says it: without the last one, pictures could go to disks, and the core refuses.
        no_disk = '--system-config={"automatic_object_spilling_enabled":false}'
        head = ("--head", f"--port={_RAY_PORT}", "--include-dashboard=false", f"--temp-dir={folder}", no_disk)
        self.start(self.hosts[0], *head)
        for host in self.hosts[1:]:
            self.start(host)
        called = self._settings.model_copy(update={"core_url": self._start_core()})
        self._pictures = _pictures()
        self._expected = LocalCore.open(self._settings, self._model).embed(self._pictures)
        with self._desk.entered():
            self._core = waited_for(lambda: _opened(called, self._model), "the model to come up")

    def start(self, host: Host, *options: str) -> None:
        """Starts Ray in the background of a host: a node that joins the cluster, unless the options say otherwise."""
        where = (*(options or (f"--address={self._address}",)), f"--node-ip-address={host.address}")
        room = ("--num-cpus=1", f"--object-store-memory={_OBJECTS_BYTES}", "--disable-usage-stats")
        command = (str(ray_python().with_name("ray")), "start", *where, *room)
        host.run(*command, env=self._environment, cwd=self._settings.home)

    def _start_core(self) -> str:
        host, log = self.hosts[0], self._settings.home / "core.log"
        variables = {
            "URBAN_REID_HOME": str(self._settings.home),
            "URBAN_REID_DEVICE": "cpu",
            "URBAN_REID_BATCH_SIZE": "8",
            "URBAN_REID_THREADS": "1",
            "URBAN_REID_RAY_ADDRESS": self._address,
            "URBAN_REID_RAY_CPUS": "1",  # of the one of each host, so that each has a replica
            "URBAN_REID_RAY_MIN_REPLICAS": "3",
            "URBAN_REID_RAY_MAX_REPLICAS": "3",
        }
        listen = f"{host.address}:{_PORT}"
        command = (str(ray_python()), "-P", "-m", "urban_reid.cli", "core", "--listen", listen, "--json")
        process: subprocess.Popen[str] = host.start(*command, env=self._environment | variables, cwd=ROOT, log=log)
        waited_for(lambda: '"url"' in log.read_text(), f"the core, see {log}", process)
        line = next(one for one in log.read_text().splitlines() if '"url"' in one)
        return str(json.loads(line)["url"])

    def replicas(self) -> list[int]:
        """How many replicas each host has."""
        return [sum(map(is_replica, map(Process, host.processes()))) for host in self.hosts]

    @contextmanager
    def called(self) -> Iterator["_Callers"]:
        """Callers embed on a host of their own for as long as the block lasts."""
        callers = _Callers()
        with ThreadPoolExecutor(_CALLERS) as threads:
            running = [threads.submit(self._call, number, callers) for number in range(_CALLERS)]
            try:
                yield callers
            finally:
                callers.ended.set()
        for one in running:
            one.result()

    def _call(self, number: int, callers: "_Callers") -> None:
        with self._desk.entered():
            while not callers.ended.is_set():
                began, said = time.monotonic(), ""
                try:
                    is_right = np.array_equal(self._core.embed(self._pictures), self._expected)
                except CoreUnavailable as error:
                    is_right, said = False, str(error)
                    time.sleep(0.2)
                callers.done.append(_Call(number, began, time.monotonic(), is_right, said))


@dataclass(frozen=True)
class _Call:
    """`said`: the error; empty where there was an answer."""

    caller: int
    began: float
    ended: float
    is_right: bool
    said: str


@dataclass
class _Callers:
    """What several callers met until now."""

    done: list[_Call] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def since(self, fault: str, began: float) -> Calls:
        """Waits until each caller has been answered a call that it began after `began`."""
        waited_for(
            lambda: len({one.caller for one in list(self.done) if one.began > began and one.is_right}) == _CALLERS,
            "an answer for each caller",
        )
        found = [one for one in list(self.done) if one.ended > began]
        return Calls(
            fault,
            answered=sum(one.is_right for one in found),
            wrong=sum(not one.is_right and not one.said for one in found),
            failed=tuple(dict.fromkeys(one.said for one in found if one.said)),
            longest_s=max(one.ended - one.began for one in found),
        )


def _pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (_PICTURES, INPUT.height, INPUT.width, 3), dtype=np.uint8)


def _opened(settings: Settings, model: Path) -> ReIDCore | None:
    try:
        return open_core(settings, model)
    except CoreUnavailable:
        return None


# ---- faults


def a_host_loses_its_power(cluster: RayHosts, _: float) -> Calls:
    """It is there again afterwards, with a replica."""
    with cluster.called() as callers:
        time.sleep(_BEFORE_S)
        began, dead = time.monotonic(), cluster.hosts[2]
        dead.kill()
        found = callers.since("a host that computes loses its power", began)
    dead.boot()
    cluster.start(dead)
    waited_for(lambda: cluster.replicas() == [1, 1, 1], "a replica on the host that died")
    return found


def a_host_is_cut_off(cluster: RayHosts, seconds: float) -> Calls:
    with cluster.called() as callers:
        time.sleep(_BEFORE_S)
        began = time.monotonic()
        cluster.hosts[1].unplug()
        time.sleep(seconds)  # the fault itself
        cluster.hosts[1].plug()
        return callers.since(f"a host that computes is cut off for {seconds:.0f} s", began)


FAULTS = (a_host_loses_its_power, a_host_is_cut_off)
