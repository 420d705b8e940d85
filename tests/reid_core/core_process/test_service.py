"""The core process: real processes, a real socket, a real small model."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from reid_core.core_process import embedding, loaded
from reid_core.core_process.application import application
from reid_core.core_process.detection import Detectors
from reid_core.core_process.embedding import Embedders, digest_of
from reid_core.core_process.folders import Folders
from reid_core.feature_space import learn_means
from reid_core.files import model_digest, read_card, save_model, save_space, write_card
from reid_core.models import build_model
from reid_core.serving import wire
from reid_core.serving.client import stated_error
from reid_core.serving.core import compared_features
from reid_core.serving.factory import open_core
from reid_core.serving.local import LocalCore
from reid_core.serving.remote import RemoteCore
from schemas.cards import Arithmetic, DiffAttentionSettings, InputConvention, ModelCard, ModelConfig
from schemas.errors import CoreError, CoreUnavailable, HomeError, ModelFileError, VectorError
from schemas.settings import Settings
from tests.helpers.core_process import answers, core_process
from tests.helpers.small_models import small_model

INPUT = InputConvention(height=64, width=32)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with one small model that has diff attention."""
    found = Settings(home=tmp_path_factory.mktemp("home"), batch_size=8)
    torch.manual_seed(0)
    model = build_model(
        ModelConfig(architecture="resnet10s", input=INPUT, diff_attention=DiffAttentionSettings(transform="sub"))
    )
    save_model(model, found.models_dir / "small", name="small")
    return found


@pytest.fixture(scope="module")
def process(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    with core_process(settings, URBAN_REID_BATCH_SIZE="8") as running:
        yield running


def client(settings: Settings) -> httpx.Client:
    return httpx.Client(
        timeout=60, transport=httpx.HTTPTransport(uds=str(settings.core_socket)), base_url="http://core"
    )


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, INPUT.height, INPUT.width, 3), dtype=np.uint8)


#: What a flow's process does with the core: writes features of the pictures in argv[1] to argv[2].
CLIENT = """
import sys
import numpy as np
from pathlib import Path
from reid_core.serving.factory import open_core
from schemas.settings import settings
core = open_core(settings(), settings().models_dir / "small")
np.save(sys.argv[2], core.embed(np.load(sys.argv[1])))
assert type(core).__name__ == "RemoteCore" and "torch" not in sys.modules
"""


@pytest.mark.usefixtures("process")
def test_four_processes_at_once(settings: Settings, tmp_path: Path) -> None:
    environment = os.environ | {"URBAN_REID_HOME": str(settings.home), "URBAN_REID_BATCH_SIZE": "8"}
    clients = []
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", pictures(20, seed=number))
        paths = [str(tmp_path / f"{number}.npy"), str(tmp_path / f"features{number}.npy")]
        clients.append(subprocess.Popen([sys.executable, "-P", "-c", CLIENT, *paths], env=environment))
    assert [client.wait(300) for client in clients] == [0, 0, 0, 0]
    local = LocalCore.open(settings, settings.models_dir / "small")
    for number in range(4):
        assert np.array_equal(np.load(tmp_path / f"features{number}.npy"), local.embed(pictures(20, seed=number)))


@pytest.mark.usefixtures("process")
def test_the_same_answers_as_in_process(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    local = LocalCore.open(settings, settings.models_dir / "small")
    remote = open_core(settings, settings.models_dir / "small")
    assert isinstance(remote, RemoteCore)
    generator = np.random.default_rng(1)
    left, right = generator.normal(size=(2, 333, 256))
    monkeypatch.setattr(wire, "CHUNK_BYTES", 100_000)  # many chunks, the last ones short
    assert np.array_equal(remote.embed(pictures(37)), local.embed(pictures(37)))
    assert np.array_equal(remote.distances(left, right), local.distances(left, right))
    assert remote.embed(pictures(0)).shape == (0, 256) and remote.distances(left[:0], right[:0]).shape == (0,)
    assert 0 < remote.seconds < 60
    with pytest.raises(VectorError, match="vector 0 of 1 is zero"):
        remote.distances(np.zeros((1, 256)), right[:1])
    with pytest.raises(CoreError, match="takes uint8"):
        remote.embed(pictures(2)[:, :-1])


@pytest.mark.usefixtures("process")
def test_a_feature_space_gives_the_same_as_in_process(settings: Settings) -> None:
    """Pictures become raw features of the base; they go into the space here, and are compared without its base's
    diff attention.
    """
    base, folder = settings.models_dir / "small", settings.models_dir / "space"
    raw = LocalCore.open(settings, base).embed(pictures(12))
    learned = learn_means(raw, ["d1/s1/b1/c1"] * 6 + ["d1/s1/b1/c2"] * 6)
    save_space(learned, base, folder, name="space", learned_from="noise", crops=12, tracklets={})
    try:
        remote, local = open_core(settings, folder), LocalCore.open(settings, folder)
        assert isinstance(remote, RemoteCore) and remote.card.diff_attention is None
        assert np.array_equal(remote.embed(pictures(12)), raw) and np.array_equal(local.embed(pictures(12)), raw)
        codes = ["d1/s1/b1/c1"] * 6 + ["d1/s1/b1/later"] * 6
        placed = compared_features(remote, raw, codes)
        assert np.array_equal(placed, compared_features(local, raw, codes))
        assert np.array_equal(placed, learned.apply(raw, codes))
        found = remote.distances(placed[:6], placed[6:])
        assert np.array_equal(found, local.distances(placed[:6], placed[6:]))
        assert found == pytest.approx(np.linalg.norm(placed[:6] - placed[6:], axis=1))
    finally:
        shutil.rmtree(folder)


def test_a_base_and_its_space_open_one_network(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    base, opened = settings.models_dir / "small", list[Path]()
    open_local = LocalCore.open

    def counted(settings: Settings, directory: Path) -> LocalCore:
        opened.append(directory)
        return open_local(settings, directory)

    raw = open_local(settings, base).embed(pictures(4))
    folders = settings.models_dir / "space", settings.models_dir / "kept"
    means = learn_means(raw, ["d1/s1/b1/c1"] * 4)
    for folder, space in zip(folders, (means, replace(means, recentered=True)), strict=True):
        save_space(space, base, folder, name=folder.name, learned_from="noise", crops=4, tracklets={})
    monkeypatch.setattr(LocalCore, "open", counted)
    device = Embedders(settings)
    try:
        for folder in (*folders, base):
            device.enter()
            digest = model_digest(read_card(folder)).hex()
            features, _ = device.submit(digest, lambda core: core.embed(pictures(4))).result(60)
            assert np.array_equal(features, raw)
            device.enter()
            distances, _ = device.submit(digest, lambda core: core.distances(*np.split(raw.astype(float), 2))).result(
                60
            )
            assert np.array_equal(distances, open_local(settings, folder).distances(*np.split(raw.astype(float), 2)))
        assert opened == [base]
        base.rename(settings.models_dir / ".away")
        device.enter()
        with pytest.raises(ModelFileError):
            device.submit(digest, lambda core: core.embed(pictures(1))).result(60)
        alone = Embedders(settings)
        alone.enter()
        digest = model_digest(read_card(folders[0])).hex()
        assert np.array_equal(alone.submit(digest, lambda core: core.embed(pictures(4))).result(60)[0], raw)
        assert opened == [base, folders[0]]  # whole by itself
        alone.close()
    finally:
        device.close()
        if (settings.models_dir / ".away").exists():
            (settings.models_dir / ".away").rename(base)
        for folder in folders:
            shutil.rmtree(folder)


@pytest.mark.usefixtures("process")
def test_a_model_that_the_home_does_not_have_runs_in_process(settings: Settings, tmp_path: Path) -> None:
    save_model(build_model(ModelConfig(architecture="resnet10s", input=INPUT)), tmp_path, name="other")
    assert isinstance(open_core(settings, tmp_path), LocalCore)


@pytest.mark.usefixtures("process")
def test_it_says_how_many_requests_it_has(settings: Settings, process: object) -> None:
    with client(settings) as core:
        assert core.get("/jobs").json() == {"embedding": 0, "detection": 0}


@pytest.mark.parametrize(
    ("what", "body", "shape", "message"),
    [
        ("embed", b"x" * 10, "1,64,32,3", "does not have the shape"),
        ("embed", b"x" * 10, None, "does not have the shape"),
        ("embed", b"x" * 10, "-1,-10", "does not have the shape"),
        ("embed", b"x" * 12, "2,2,1,3", "takes uint8"),
        ("embed", b"", "0,64,32,3", "a tensor of shape"),
        ("embed", b"x" * (wire.MAX_BODY_BYTES + 1), f"{wire.MAX_BODY_BYTES + 1}", "more than"),
        ("distances", b"x" * 8 * 3, "3,1,1", "a tensor of shape"),
        ("distances", b"x" * 8 * 4, "2,1,2", "2 dims|256 dims"),
    ],
)
def test_bodies_that_do_not_fit_their_shape_get_one_line(
    settings: Settings, what: str, body: bytes, shape: str | None, message: str
) -> None:
    digest = model_digest(card_of(settings)).hex()
    headers = {} if shape is None else {wire.SHAPE: shape}
    with client(settings) as opened:
        answer = opened.post(f"/models/{digest}/{what}", content=body, headers=headers)
    assert answer.status_code == 400
    assert re.search(message, answer.json()["message"]) and "\n" not in answer.json()["message"]


def test_an_error_keeps_what_helps_apart_from_what_was_wrong(settings: Settings) -> None:
    model = settings.models_dir / "small"
    kept = card_of(settings).model_copy(update={"arithmetic": Arithmetic(engine="torch", precision="float32")})
    other = settings.model_copy(update={"home": settings.home.parent / "other", "precision": "bfloat16"})
    shutil.copytree(model, other.models_dir / "small")
    write_card(kept, other.models_dir / "small")
    embedders, detectors = Embedders(other), Detectors(other)
    try:
        with TestClient(application(embedders, detectors)) as opened:
            batch = pictures(1)
            headers = {wire.SHAPE: wire.format_shape(batch.shape)}
            path = f"/models/{model_digest(kept).hex()}/embed"
            answer = opened.post(path, content=batch.tobytes(), headers=headers)
    finally:
        embedders.close()
        detectors.close()
    found = stated_error(answer.status_code, answer.content)
    assert isinstance(found, CoreError) and found.fact.endswith("would mix them with others")
    assert found.do == "unset it, or export the model, register that and promote it"


def card_of(settings: Settings) -> ModelCard:
    return read_card(settings.models_dir / "small")


@pytest.mark.usefixtures("process")
def test_a_deadline_that_passes(settings: Settings) -> None:
    with pytest.raises(CoreUnavailable, match="busy"):
        RemoteCore(settings, card_of(settings), deadline_s=1e-9).embed(pictures(300))


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("deadline", ["soon", "", "nan", "0", "-1"])
def test_a_deadline_that_is_no_time_gets_one_line(settings: Settings, deadline: str) -> None:
    headers = {wire.SHAPE: "1,64,32,3", wire.DEADLINE: deadline}
    with client(settings) as opened:
        path = f"/models/{model_digest(card_of(settings)).hex()}/embed"
        answer = opened.post(path, content=pictures(1).tobytes(), headers=headers)
    assert answer.status_code == 400 and answer.json()["error"] == "CoreError"
    assert answer.json()["message"] == f"the deadline {deadline!r} is not a number of seconds above 0"


def test_a_deadline_is_at_most_the_default() -> None:
    assert wire.parse_deadline(None) == wire.parse_deadline("inf") == wire.parse_deadline("1e9") == wire.DEADLINE_S
    assert wire.parse_deadline("0.5") == 0.5


def test_a_job_that_outlives_its_deadline_is_counted_until_it_ends(settings: Settings) -> None:
    device, digest, release = Embedders(settings), model_digest(card_of(settings)).hex(), threading.Event()
    began = threading.Event()

    def slow(core: object) -> np.ndarray:
        began.set()
        assert release.wait(60)
        return np.zeros(1, np.float32)

    try:
        device.enter()
        running = device.submit(digest, slow)
        assert began.wait(60)
        device.enter()
        waiting = device.submit(digest, slow)
        with pytest.raises(TimeoutError):
            running.result(0.01)  # its client gives up
        assert not running.cancel() and device.jobs == 2
        assert waiting.cancel() and device.jobs == 1  # it has not begun
        for _ in range(embedding.QUEUE - 1):
            device.enter()
        with pytest.raises(CoreUnavailable, match=f"busy with {embedding.QUEUE} requests"):
            device.enter()
        release.set()
        running.result(60)
        device.enter()
    finally:
        release.set()
        device.close()


def test_a_client_that_gives_up_leaves_its_job_counted(settings: Settings) -> None:
    """From the request to the end of its job, over the interface itself."""
    device, detectors, release = Embedders(settings), Detectors(settings), threading.Event()
    path = f"/models/{model_digest(card_of(settings)).hex()}/embed"

    async def ask(deadline_s: float, count: int) -> httpx.Response:
        transport = httpx.ASGITransport(app=application(device, detectors))
        headers = {wire.SHAPE: f"{count},64,32,3", wire.DEADLINE: str(deadline_s)}
        async with httpx.AsyncClient(transport=transport, base_url="http://core") as opened:
            return await opened.post(path, content=pictures(count).tobytes(), headers=headers)

    try:
        blocked = device._worker.submit(release.wait, 60)
        busy = asyncio.run(ask(0.05, 1))
        assert busy.status_code == 503 and busy.json()["error"] == "CoreUnavailable"
        assert device.jobs == 0  # its job had not begun, and does not any more
        assert asyncio.run(ask(0.05, 0)).status_code == 400 and device.jobs == 0
        release.set()
        assert blocked.result(60) and asyncio.run(ask(60, 1)).status_code == 200
        deadline = time.monotonic() + 60
        while device.jobs and time.monotonic() < deadline:
            time.sleep(0.01)
        assert device.jobs == 0
    finally:
        release.set()
        device.close()
        detectors.close()


def test_threads_that_ask_at_once_load_a_model_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    load = LocalCore.open

    def counting(settings: Settings, folder: Path) -> LocalCore:
        opened.append(folder)
        return load(settings, folder)

    monkeypatch.setattr(LocalCore, "open", counting)
    device, digest = Embedders(settings), model_digest(card_of(settings)).hex()
    try:
        jobs = []
        for seed in range(4):
            device.enter()
            jobs.append(device.submit(digest, lambda core, seed=seed: core.embed(pictures(20, seed))))  # type: ignore[misc]
        features = [job.result(60)[0] for job in jobs]
    finally:
        device.close()
    assert opened == [settings.models_dir / "small"]
    assert len({found.tobytes() for found in features}) == 4


def test_a_lookup_reads_a_model_again_only_after_a_change(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = settings.model_copy(update={"home": tmp_path})
    home.models_dir.mkdir()
    shutil.copytree(settings.models_dir / "small", home.models_dir / "one")
    (home.models_dir / "damaged").mkdir()
    read: list[str] = []

    def counting(folder: Path) -> ModelCard:
        read.append(folder.name)
        return read_card(folder)

    monkeypatch.setattr(embedding, "read_card", counting)
    folders, digest = Folders(home.models_dir, digest_of), model_digest(card_of(settings)).hex()
    for _ in range(3):
        assert folders.find(digest).name == "one"
    assert read == ["damaged", "one"]
    weights = home.models_dir / "one" / "weights.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))  # of the same size
    with pytest.raises(ModelFileError, match="no model"):
        folders.find(digest)
    weights.write_bytes(kept)
    assert folders.find(digest).name == "one" and read == ["damaged", "one", "one", "one"]
    (home.models_dir / "one").rename(home.models_dir / "two")
    assert folders.find(digest).name == "two"
    shutil.rmtree(home.models_dir / "two")
    with pytest.raises(ModelFileError, match="no model"):
        folders.find(digest)


def test_a_model_that_nobody_asks_for_leaves_memory_when_another_comes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a program that runs for months would keep each candidate and each model of before a promotion."""
    opened = list[str]()
    open_local = LocalCore.open

    def counted(settings: Settings, directory: Path) -> LocalCore:
        opened.append(directory.name)
        return open_local(settings, directory)

    folders = [small_model(settings.models_dir / f"of-{seed}", seed=seed) for seed in (11, 12, 13)]
    digests = [model_digest(read_card(folder)).hex() for folder in folders]
    monkeypatch.setattr(LocalCore, "open", counted)
    device = Embedders(settings)
    try:
        for digest in digests:
            device.load(digest)
        device.load(digests[0])
        assert opened == ["of-11", "of-12", "of-13"]  # all three were asked for within the hour
        monkeypatch.setattr(loaded, "IDLE_S", 0.0)
        device.load(model_digest(read_card(settings.models_dir / "small")).hex())
        device.load(digests[0])  # the one asked for last was kept
        assert opened == ["of-11", "of-12", "of-13", "small"]
        device.load(digests[1])
        assert opened[4:] == ["of-12"]
    finally:
        device.close()
        for folder in folders:
            shutil.rmtree(folder)


def test_a_model_that_is_removed_is_no_longer_answered_for(settings: Settings, tmp_path: Path) -> None:
    home = settings.model_copy(update={"home": tmp_path})
    shutil.copytree(settings.models_dir, home.models_dir)
    with core_process(home):
        core = open_core(home, home.models_dir / "small")
        assert isinstance(core, RemoteCore)
        core.embed(pictures(1))
        shutil.rmtree(home.models_dir / "small")
        assert RemoteCore.connect(home, core.card) is None
        with pytest.raises(ModelFileError, match="no model"):
            core.embed(pictures(1))


@pytest.mark.usefixtures("process")
def test_the_socket_is_its_owners_and_one_process_serves_it(settings: Settings) -> None:
    assert settings.core_socket.stat().st_mode & 0o777 == 0o600
    environment = os.environ | {"URBAN_REID_HOME": str(settings.home)}
    second = subprocess.run(
        [sys.executable, "-P", "-m", "reid_core.core_process.service"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert second.stderr.endswith(f" {settings.core_socket}: a core process serves this home already\n")
    assert second.stderr.count("\n") == 1
    assert answers(settings)


def test_killed_in_the_middle_and_started_again(settings: Settings, tmp_path: Path) -> None:
    home = settings.model_copy(update={"home": tmp_path})
    home.models_dir.parent.mkdir(exist_ok=True)
    home.models_dir.symlink_to(settings.models_dir)
    with core_process(home) as process:
        core = open_core(home, home.models_dir / "small")
        assert isinstance(core, RemoteCore)
        before = core.embed(pictures(20))
        process.send_signal(signal.SIGSTOP)  # so that the request is under way when the process dies
        result: list[BaseException] = []

        def embed() -> None:
            try:
                core.embed(pictures(20))
            except CoreUnavailable as error:
                result.append(error)

        caller = threading.Thread(target=embed)

        caller.start()
        caller.join(0.3)
        process.kill()
        caller.join(30)
        assert len(result) == 1 and "does not answer" in str(result[0])
        assert home.core_socket.exists(), "kill -9 leaves a stale socket behind"
        with pytest.raises(CoreUnavailable):
            core.embed(pictures(1))
        assert isinstance(open_core(home, home.models_dir / "small"), LocalCore)
    with core_process(home) as process:
        assert np.array_equal(core.embed(pictures(20)), before)
        process.terminate()
        assert process.wait(20) == 0
        assert not home.core_socket.exists(), "an orderly end removes the socket"


def test_a_home_too_deep_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="shorten URBAN_REID_HOME"):
        wire.socket_path(Settings(home=tmp_path / ("x" * 100)))
