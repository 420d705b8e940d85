"""What listens for other hosts, without Ray: the token, the addresses, the body; over real sockets."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import uvicorn
from pydantic import ValidationError

from reid_core.core_process import application as protocol
from reid_core.core_process.application import application
from reid_core.core_process.detection import Detectors
from reid_core.core_process.embedding import Embedders
from reid_core.detection import open_detector
from reid_core.detection.files import keep_detector
from reid_core.files import model_digest, read_card
from reid_core.on_ray import deployments, replicas
from reid_core.on_ray.cluster import _connect
from reid_core.on_ray.deployments import Models
from reid_core.on_ray.replicas import _settings_here, settings_of_replica
from reid_core.on_ray.service import _listening, guarded
from reid_core.serving import client as requests
from reid_core.serving.client import CoreClient
from reid_core.serving.factory import open_core
from reid_core.serving.local import LocalCore
from reid_core.serving.remote import RemoteCore
from reid_core.serving.token import FILE, core_token, made_token
from schemas.addresses import host_and_port, is_private
from schemas.errors import CoreError, CoreUnavailable, HomeError, ModelFileError, UsageError
from schemas.settings import Settings
from tests.helpers.detectors import red_detector, red_frame
from tests.helpers.small_models import INPUT, small_model
from tests.helpers.tls_proxy import write_certificate

PICTURES = np.random.default_rng(0).integers(0, 256, (5, INPUT.height, INPUT.width, 3), dtype=np.uint8)


@contextmanager
def serving(settings: Settings, certificate: Path | None = None) -> Iterator[Settings]:
    """The home's models behind the token, on a port of loopback; yields the settings of a caller with that token.

    certificate: cert.pem beside its key, where it is reached over TLS, as behind a reverse proxy.
    """
    key = None if certificate is None else certificate.with_name("key.pem")
    token = made_token(settings)
    embedders, detectors = Embedders(settings), Detectors(settings)
    with _listening("127.0.0.1:0") as listener:
        app = guarded(application(embedders, detectors, "core"), token)
        config = uvicorn.Config(
            app,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{listener.getsockname()[1]}"
            yield settings.model_copy(update={"core_url": url})
        finally:
            server.should_exit = True
            thread.join(30)
            embedders.close()
            detectors.close()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with a small model and a small detector."""
    found = Settings(home=tmp_path_factory.mktemp("home"), batch_size=4)
    small_model(found.models_dir / "small")
    keep_detector(found, "red", [red_detector(found.home)])
    return found


@pytest.fixture(scope="module")
def caller(settings: Settings) -> Iterator[Settings]:
    with serving(settings) as found:
        yield found


def test_the_same_answers_as_in_process(settings: Settings, caller: Settings) -> None:
    folder = settings.models_dir / "small"
    local, remote = LocalCore.open(settings, folder), open_core(caller, folder)
    assert isinstance(remote, RemoteCore)
    features = local.embed(PICTURES)
    assert np.array_equal(remote.embed(PICTURES), features)
    left, right = features[:2].astype(float), features[2:4].astype(float)
    assert np.array_equal(remote.distances(left, right), local.distances(left, right))
    frame = red_frame(16, 16, 16)
    assert np.array_equal(
        open_detector(caller, "red").detect([frame])[0], open_detector(settings, "red").detect([frame])[0]
    )
    assert CoreClient(caller).get("/jobs")[0] == 200


def test_who_has_another_token_is_refused_before_the_body_is_read(caller: Settings, tmp_path: Path) -> None:
    wrong = caller.model_copy(update={"home": tmp_path})
    (tmp_path / FILE).write_text("x" * 40)
    (tmp_path / FILE).chmod(0o600)
    folder = caller.models_dir / "small"
    with pytest.raises(CoreError, match="refuses the token"):
        open_core(wrong, folder)
    with pytest.raises(CoreError, match="refuses the token"):
        RemoteCore(wrong, read_card(folder)).embed(PICTURES)
    with pytest.raises(CoreError, match="refuses the token"):
        CoreClient(wrong).get("/jobs")


def test_without_a_token_nothing_is_sent(caller: Settings, tmp_path: Path) -> None:
    nobody = caller.model_copy(update={"home": tmp_path})
    with pytest.raises(HomeError, match=f"copy {FILE} from the data directory of its host"):
        CoreClient(nobody)
    (tmp_path / FILE).write_text("x" * 40)
    (tmp_path / FILE).chmod(0o644)
    with pytest.raises(HomeError, match="open to other users"):
        CoreClient(nobody)
    (tmp_path / FILE).chmod(0o600)
    (tmp_path / FILE).write_text("short\n")
    with pytest.raises(HomeError, match="holds no secret"):
        CoreClient(nobody)


def test_the_token_is_made_once_and_private(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    token = made_token(settings)
    assert token == made_token(settings) == core_token(settings) and len(token) >= 32
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    given = Settings(home=tmp_path / "other", core_token="given-given-given-given-given-given")
    assert made_token(given) == "given-given-given-given-given-given" and not (tmp_path / "other").exists()


def test_a_model_that_the_host_lacks_is_no_model_of_this_process(caller: Settings, tmp_path: Path) -> None:
    other = small_model(tmp_path / "other", seed=1)
    with pytest.raises(ModelFileError, match="no model"):
        open_core(caller, other)


def test_where_nobody_answers_no_other_core_is_taken(settings: Settings) -> None:
    with _listening("127.0.0.1:0") as unused:
        port = unused.getsockname()[1]
    gone = settings.model_copy(update={"core_url": f"http://127.0.0.1:{port}"})
    made_token(settings)
    with pytest.raises(CoreUnavailable, match="does not answer"):
        open_core(gone, settings.models_dir / "small")
    with pytest.raises(CoreUnavailable, match="does not answer"):
        open_detector(gone, "red")


def test_tls_to_a_host_whose_certificate_is_trusted(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path, "127.0.0.1")
    with serving(settings, certificate) as caller:
        with pytest.raises(CoreUnavailable, match="certificate verify failed"):
            CoreClient(caller).get("/jobs")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        remote = open_core(caller, settings.models_dir / "small")
        assert np.array_equal(
            remote.embed(PICTURES), LocalCore.open(settings, settings.models_dir / "small").embed(PICTURES)
        )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://8.8.8.8:8440", "unencrypted"),
        ("http://0.0.0.0:8440", "unencrypted"),
        ("http://[2001:db8::1]", "unencrypted"),
        ("ftp://10.0.0.5", "is no address"),
        ("http://user:word@10.0.0.5", "is no address"),
        ("https://host/path", "is no address"),
        ("http://", "is no address"),
        ("http://10.0.0.5:0", "is no address"),
        ("http://10.0.0.5:99999", "is no address"),
    ],
)
def test_addresses_that_are_not_asked(url: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Settings(core_url=url)


def test_addresses_that_are_asked() -> None:
    for url in ("http://10.0.0.5:8440", "http://[fd00::5]:1", "http://core.lan", "https://8.8.8.8", "http://10.0.0.5/"):
        assert Settings(core_url=url).core_url == url.rstrip("/")
    for address in ("8.8.8.8:6379", "head:6379", "10.0.0.5"):
        with pytest.raises(ValidationError, match="loopback or private"):
            Settings(ray_address=address)
    with pytest.raises(ValidationError, match="below URBAN_REID_RAY_MIN_REPLICAS"):
        Settings(ray_min_replicas=2)


def test_a_name_that_leads_out_of_the_house_gets_no_token(caller: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which address a name leads to is known once it is connected to; nothing has been sent then."""
    monkeypatch.setattr(requests, "is_private", lambda _: False)
    with pytest.raises(CoreError, match="would go unencrypted"):
        CoreClient(caller).get("/jobs")


def test_a_request_that_never_ends_keeps_no_place(
    settings: Settings, caller: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "BODY_WITHIN_S", 0.1)
    asking = CoreClient(caller)
    connection = asking._connection(30)
    connection.putrequest("POST", "/models/0/embed")
    for name, value in {**asking._headers, "content-length": "100", "x-shape": "1,1,1,100"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"begun")
    answer = connection.getresponse()
    assert answer.status == 503 and b"no whole request" in answer.read()
    connection.close()
    until = time.monotonic() + 30
    while b'"embedding":0' not in asking.get("/jobs")[2] and time.monotonic() < until:
        time.sleep(0.05)
    assert b'"embedding":0' in asking.get("/jobs")[2]


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("0.0.0.0:8440", "neither a loopback nor a private address"),
        ("8.8.8.8:8440", "neither a loopback nor a private address"),
        ("[::]:8440", "neither a loopback nor a private address"),
        ("[2001:db8::1]:8440", "neither a loopback nor a private address"),
        ("core.example:8440", "neither a loopback nor a private address"),
        ("8440", "write HOST:PORT"),
        ("127.0.0.1:99999", "write HOST:PORT"),
        ("10.255.255.254:8440", "cannot be listened on"),
    ],
)
def test_addresses_that_are_not_listened_on(listen: str, why: str) -> None:
    with pytest.raises(UsageError, match=why), _listening(listen):
        pytest.fail("it listens")


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.31.0.1", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("192.0.2.1", False),
        ("169.254.1.1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("::1", True),
        ("fd12::1", True),
        ("fe80::1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_private_addresses(address: str, private: bool) -> None:
    assert is_private(address) is private


def test_hosts_and_ports() -> None:
    assert host_and_port("[fd00::5]:80") == ("fd00::5", 80) and host_and_port("a.b:0") == ("a.b", 0)
    assert host_and_port("a b:1") is host_and_port("x") is host_and_port("h:70000") is None


def test_requests_that_have_no_room_in_memory_go_to_no_disk(tmp_path: Path) -> None:
    """Ray would put its store into a folder on a disk, silently; it is not even started."""
    with pytest.raises(CoreError, match=r"GiB free, .* need 1000 GiB of shared memory; enlarge it"):
        _connect(None, Settings(home=tmp_path, ray_max_replicas=1000), str(tmp_path))


def test_a_model_that_finds_no_room_says_what_it_waits_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Models, "_deploy", lambda *_: None)  # never up, as on a cluster whose GPUs are all taken
    models = Models(settings.model_copy(update={"ray_gpus": 0.25}))
    digest = model_digest(read_card(settings.models_dir / "small")).hex()
    for _ in range(2):
        with pytest.raises(CoreUnavailable, match="comes up on Ray Serve; try again"):
            models.find(digest)
    monkeypatch.setattr(deployments, "_COMES_UP_S", 0.0)
    for _ in range(2):
        with pytest.raises(CoreUnavailable, match=r"needs 0\.25 of a GPU and 0 cores; try again"):
            models.find(digest)
    assert len([record for record in caplog.records if "no room for a replica" in record.getMessage()]) == 1


def test_replicas_of_a_host_share_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of threads that was set goes with the settings; else each host counts its own cores."""
    nodes = SimpleNamespace(nodes=lambda: [{"Alive": True}, {"Alive": True}, {"Alive": False}])
    monkeypatch.setitem(sys.modules, "ray", nodes)
    monkeypatch.setattr(replicas, "usable_cores", lambda: 16)
    found = Settings(home=tmp_path, ray_max_replicas=3)
    assert _settings_here(settings_of_replica(found)).threads == 10
    assert _settings_here(settings_of_replica(found.model_copy(update={"ray_max_replicas": 1}))).threads == 16
    set_ = Settings(home=tmp_path, ray_max_replicas=3, threads=5)
    assert _settings_here(settings_of_replica(set_)).threads == 5
