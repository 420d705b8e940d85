"""`urban-reid core` as other hosts meet it: Ray Serve in an environment of its own, replicas that die, promotions."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from reid_core.core_process import embedding
from reid_core.detection import open_detector
from reid_core.detection.files import keep_detector
from reid_core.serving.client import CoreClient
from reid_core.serving.factory import open_core
from reid_core.serving.local import LocalCore
from reid_core.serving.remote import RemoteCore
from reid_core.serving.token import FILE
from schemas.addresses import is_private
from schemas.errors import CoreUnavailable
from schemas.settings import Settings
from tests.helpers.detectors import red_detector, red_frame
from tests.helpers.ray_core import RayCore, ray_core
from tests.helpers.small_models import INPUT, small_model

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

IDLE_S = 3


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with two small models and a small detector."""
    found = Settings(home=tmp_path_factory.mktemp("home"), batch_size=8, threads=1, device="cpu")
    small_model(found.models_dir / "old")
    small_model(found.models_dir / "new", seed=1)
    keep_detector(found, "red", [red_detector(found.home)])
    return found


@pytest.fixture(scope="module")
def core(settings: Settings) -> Iterator[RayCore]:
    with ray_core(
        settings, URBAN_REID_BATCH_SIZE="8", URBAN_REID_THREADS="1", URBAN_REID_RAY_IDLE_S=str(IDLE_S)
    ) as found:
        yield found


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, INPUT.height, INPUT.width, 3), dtype=np.uint8)


def model(settings: Settings, name: str) -> RemoteCore:
    found = open_core(settings, settings.models_dir / name)
    assert isinstance(found, RemoteCore)
    return found


def wait_for(state: Callable[[], bool], within_s: float = 120) -> None:
    until = time.monotonic() + within_s
    while not state():
        assert time.monotonic() < until
        time.sleep(0.1)


def patient(call: Callable[[], np.ndarray]) -> np.ndarray:
    """What a caller does that finds the core busy or away: it tries again, as flows and cameras do."""
    until = time.monotonic() + 120
    while True:
        try:
            return call()
        except CoreUnavailable:
            assert time.monotonic() < until
            time.sleep(0.2)


def test_requests_of_many_callers_give_the_bits_of_each_alone(settings: Settings, core: RayCore) -> None:
    """Requests of 1 to 9 pictures, which are computed together in batches of 8."""
    remote, local = model(core.settings, "old"), LocalCore.open(settings, settings.models_dir / "old")
    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(lambda seed: remote.embed(pictures(1 + seed % 9, seed)), range(64)))
    for seed, features in enumerate(found):
        assert np.array_equal(features, local.embed(pictures(1 + seed % 9, seed))), seed
    assert 0 < remote.seconds < 120


def test_detectors(settings: Settings, core: RayCore) -> None:
    frames = [red_frame(8 * place, 0, 8) for place in range(4)]
    remote, local = open_detector(core.settings, "red"), open_detector(settings, "red")
    assert (remote.name, remote.sure) == (local.name, local.sure)
    assert all(map(np.array_equal, remote.detect(frames), local.detect(frames)))


def test_nothing_listens_outside_and_no_secret_is_on_a_command_line(settings: Settings, core: RayCore) -> None:
    secrets = [(settings.home / name).read_text().strip() for name in (FILE, "ray-token")]
    heard = []
    for process in core.family():
        try:
            line = " ".join(process.cmdline())
            heard += [one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
        except psutil.NoSuchProcess:
            continue
        assert not any(secret in line for secret in secrets), line
    assert len(heard) > 2 and all(map(is_private, heard)), heard
    assert (settings.home / "ray-token").stat().st_mode & 0o777 == 0o600


def test_a_killed_replica_is_replaced(core: RayCore) -> None:
    remote = model(core.settings, "old")
    expected = remote.embed(pictures(20))
    before = {process.pid for process in core.replicas()}
    for process in core.replicas():
        process.kill()
    assert np.array_equal(patient(lambda: remote.embed(pictures(20))), expected)
    assert {process.pid for process in core.replicas()} - before


def test_a_busy_core_refuses_and_keeps_no_queue(core: RayCore) -> None:
    """Callers are told at once, so that a camera looks less often; those that have a place are answered later."""
    remote = model(core.settings, "old")
    expected = remote.embed(pictures(3))
    stopped = core.replicas()
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(embedding.QUEUE + 8) as callers:
            calls = [callers.submit(remote.embed, pictures(3)) for _ in range(embedding.QUEUE + 8)]
            wait_for(lambda: sum(call.done() for call in calls) == 8)
            refused = [call.exception() for call in calls if call.done()]
            assert all(
                isinstance(error, CoreUnavailable) and "busy with 32 requests" in str(error) for error in refused
            )
            jobs = CoreClient(core.settings).get("/jobs")[2]
            assert b'"embedding":32' in jobs
            for process in stopped:
                process.send_signal(signal.SIGCONT)
            answered = [call.result(120) for call in calls if call.exception(120) is None]
    finally:
        for process in stopped:
            if process.is_running():
                process.send_signal(signal.SIGCONT)
    assert len(answered) == embedding.QUEUE
    assert all(np.array_equal(features, expected) for features in answered)


def test_a_promotion_replaces_without_a_failed_call(settings: Settings, core: RayCore) -> None:
    """Callers of the old model work while the new one comes up, then change over; the old one goes when it is idle."""
    old, new = (LocalCore.open(settings, settings.models_dir / name) for name in ("old", "new"))
    wanted = {"old": old.embed(pictures(3)), "new": new.embed(pictures(3))}
    in_use, faults, calls, ended = ["old"], list[str](), {"old": 0, "new": 0}, threading.Event()

    def caller() -> None:
        cores = {"old": model(core.settings, "old")}
        while not ended.is_set():
            name = in_use[0]
            try:
                if name not in cores:
                    cores[name] = model(core.settings, name)
                if not np.array_equal(cores[name].embed(pictures(3)), wanted[name]):
                    faults.append(f"{name}: other bits")
            except Exception as error:
                faults.append(f"{name}: {error}")
            calls[name] += 1

    callers = [threading.Thread(target=caller) for _ in range(3)]
    for thread in callers:
        thread.start()
    try:
        wait_for(lambda: calls["old"] > 20)
        replicas = {process.pid for process in core.replicas()}
        candidate = model(core.settings, "new")  # as the promotion does, which embeds every crop with it first
        assert np.array_equal(candidate.embed(pictures(3)), wanted["new"])
        assert {process.pid for process in core.replicas()} > replicas  # the old one is there
        in_use[0] = "new"
        wait_for(lambda: calls["new"] > 20)
        wait_for(lambda: len({process.pid for process in core.replicas()} & replicas) < len(replicas))
        done = calls["new"]
        wait_for(lambda: calls["new"] > done + 20)
    finally:
        ended.set()
        for thread in callers:
            thread.join(120)
    assert faults == []
    assert np.array_equal(model(core.settings, "old").embed(pictures(3)), wanted["old"])  # after a rollback


def test_a_model_that_cannot_be_opened_says_why(settings: Settings, core: RayCore, tmp_path: Path) -> None:
    """The second try is another one: the file may have been mended."""
    (settings.detectors_dir / "broken").mkdir(exist_ok=True)
    broken = red_detector(tmp_path)
    broken.write_bytes(broken.read_bytes()[:200])
    keep_detector(settings, "broken", [broken])
    for _ in range(2):
        with pytest.raises(Exception, match="does not come up on Ray Serve"):
            open_detector(core.settings, "broken")
