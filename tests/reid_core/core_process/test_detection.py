"""Detection in the core process: over the real socket, and its queue by itself."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from reid_core.core_process import detection
from reid_core.core_process.detection import Detectors
from reid_core.core_process.embedding import Embedders
from reid_core.detection import Frame, open_detector, remote_model
from reid_core.detection.detector import Found
from reid_core.detection.files import digest_of, keep_detector, make_default
from reid_core.detection.openvino_model import OpenVinoModel
from reid_core.detection.remote_model import RemoteModel
from reid_core.serving import client, wire
from reid_core.serving.client import CoreClient
from schemas.errors import CoreError, CoreUnavailable, ModelFileError
from schemas.settings import Settings
from tests.helpers.assets import asset
from tests.helpers.core_process import core_process
from tests.helpers.detectors import SIZE, red_detector, red_frame

RED = red_frame(16, 16, 16)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home with one small detector, its default."""
    found = Settings(home=tmp_path / "home")
    keep_detector(found, "red", [red_detector(tmp_path)])
    make_default(found, "red")
    return found


@pytest.fixture
def detectors(settings: Settings) -> Iterator[Detectors]:
    found = Detectors(settings)
    yield found
    found.close()


def digest(settings: Settings) -> str:
    return digest_of(settings.detectors_dir / "red" / "red.onnx")


class Held:
    """Keeps the detector from looking at pictures until it is released; counts the pictures of each batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.release, self.batches = threading.Event(), threading.Event(), list[int]()
        find = OpenVinoModel.find

        def slow(model: OpenVinoModel, pictures: NDArray[np.uint8]) -> list[Found]:
            self.batches.append(len(pictures))
            self.began.set()
            assert self.release.wait(60)
            return find(model, pictures)

        monkeypatch.setattr(OpenVinoModel, "find", slow)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    found = Held(monkeypatch)
    yield found
    found.release.set()


def test_the_same_people_as_in_process_from_four_cameras_at_once(settings: Settings, tmp_path: Path) -> None:
    name = "person-detection-retail-0013"
    files = [asset(f"models/{name}/{name}{suffix}") for suffix in (".xml", ".bin")]
    keep_detector(settings, name, files)
    capture = cv2.VideoCapture(str(asset("data/vtest.avi")))
    frames = [np.asarray(capture.read()[1], np.uint8) for _ in range(8)]
    frames = [frame[row * 10 :, : 768 - row * 20] for row, frame in enumerate(frames)]
    inside = open_detector(settings, name)
    expected = inside.detect(frames)
    with core_process(settings):
        outside = open_detector(settings, name)
        assert isinstance(outside._model, RemoteModel)  # type: ignore[attr-defined]
        assert (outside.name, outside.sure) == (inside.name, inside.sure)
        assert isinstance(open_detector(settings)._model, RemoteModel)  # type: ignore[attr-defined]

        def camera(number: int) -> bool:
            found = outside.detect([frames[number], frames[number + 1]])
            return all(map(np.array_equal, found, expected[number : number + 2]))

        with ThreadPoolExecutor(4) as cameras:
            assert all(cameras.map(camera, list(range(7)) * 3))
        assert outside.detect([]) == []
        many = outside.detect(frames * 5)  # more than one chunk
        assert all(map(np.array_equal, many, expected * 5))
        # A file that is not the home's runs in this process.
        assert not isinstance(open_detector(settings, files[0])._model, RemoteModel)  # type: ignore[attr-defined]
    with pytest.raises(CoreUnavailable, match="does not answer"):
        outside.detect(frames[:1])
    again = open_detector(settings, name).detect(frames[:1])
    assert np.array_equal(again[0], expected[0])


def test_bodies_that_are_no_pictures_of_the_detector_get_one_line(settings: Settings) -> None:
    with core_process(settings):
        transport = httpx.HTTPTransport(uds=str(settings.core_socket))
        with httpx.Client(timeout=60, transport=transport, base_url="http://core") as client:
            path = f"/detectors/{digest(settings)}/find"
            for shape in (f"1,{SIZE},{SIZE + 1},3", f"{SIZE},{SIZE},3", f"0,{SIZE},{SIZE},3", f"1,{SIZE},{SIZE},4"):
                count = int(np.prod([int(size) for size in shape.split(",")]))
                answer = client.post(path, content=bytes(count), headers={wire.SHAPE: shape})
                assert answer.status_code == 400 and answer.json()["error"] == "CoreError", shape
            answer = client.post(f"/detectors/{'0' * 64}/find", content=bytes(3), headers={wire.SHAPE: "1,1,1,3"})
            assert answer.status_code == 404 and answer.json()["error"] == "ModelFileError"
            found = client.get(f"/detectors/{digest(settings)}")
            assert found.json()["input"] == {"height": SIZE, "width": SIZE, "fit": "letterbox"}
        detector = open_detector(settings)
        (settings.detectors_dir / "red" / "red.onnx").write_bytes(b"changed")
        with pytest.raises(ModelFileError, match="no model"):
            detector.detect([RED])


def test_requests_that_wait_become_one_batch(settings: Settings, detectors: Detectors, held: Held) -> None:
    frames: list[Frame] = [red_frame(8 * place, 0, 8) for place in range(4)]
    for _ in range(4):
        detectors.enter()
    first = detectors.submit(digest(settings), frames[0][None])
    assert held.began.wait(60)
    others = [detectors.submit(digest(settings), frame[None]) for frame in frames[1:]]
    held.release.set()
    results = [future.result(60) for future in [first, *others]]
    assert held.batches == [1, 3] and detectors.jobs == 0
    for (model, found, seconds), frame in zip(results, frames, strict=True):
        (alone,) = model.find(frame[None])  # type: ignore[attr-defined]  # counts as a batch too
        assert np.array_equal(found[0], alone) and seconds > 0


def test_a_batch_has_an_end_and_another_detector_gets_its_turn(
    settings: Settings, detectors: Detectors, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "MOST_PICTURES", 3)
    order: list[str] = []
    other = red_detector(tmp_path / "other")
    other.write_bytes(other.read_bytes() + b"\x22\x00")  # the same network in another file
    keep_detector(settings, "other", [other])
    first = detectors.submit(digest(settings), RED[None])
    assert held.began.wait(60)
    jobs = [("red", digest(settings))] * 2 + [("other", digest_of(other))] + [("red", digest(settings))] * 3
    futures = []
    for _ in range(7):
        detectors.enter()
    for name, wanted in jobs:
        future = detectors.submit(wanted, RED[None])
        future.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
        futures.append(future)
    held.release.set()
    for future in [first, *futures]:
        future.result(60)
    assert order == ["red", "red", "red", "other", "red", "red"] and held.batches == [1, 3, 1, 2]


def test_a_full_queue_refuses_and_a_canceled_request_is_not_run(
    settings: Settings, detectors: Detectors, held: Held
) -> None:
    detectors.enter()
    running = detectors.submit(digest(settings), RED[None])
    assert held.began.wait(60)
    detectors.enter()
    waiting = detectors.submit(digest(settings), RED[None])
    for _ in range(detection.QUEUE - 2):
        detectors.enter()
    with pytest.raises(CoreUnavailable, match=f"busy with {detection.QUEUE} requests"):
        detectors.enter()
    assert waiting.cancel() and detectors.jobs == detection.QUEUE - 1
    held.release.set()
    running.result(60)
    assert held.batches == [1]


def test_opening_a_detector_waits_for_a_busy_process(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many cameras begin at once, and each that is refused would load the network itself."""
    monkeypatch.setattr(client, "PAUSE_S", 0.01)
    settings.core_socket.parent.mkdir(exist_ok=True)
    settings.core_socket.touch()
    said = {"input": {"height": SIZE, "width": SIZE, "fit": "letterbox"}, "sure": 0.5, "name": "red"}
    answers = [(503, b"{}"), (503, b"{}"), (200, json.dumps(said).encode())]
    monkeypatch.setattr(CoreClient, "get", lambda *_: (answers[0][0], None, answers.pop(0)[1]))
    found = open_detector(settings)
    assert isinstance(found._model, RemoteModel) and found.name == "red" and not answers  # type: ignore[attr-defined]
    monkeypatch.setattr(remote_model, "DEADLINE_S", 0.05)
    busy = json.dumps(wire.statement(CoreUnavailable("the core is busy with 128 requests; try again")))
    monkeypatch.setattr(CoreClient, "get", lambda *_: (503, None, busy.encode()))
    with pytest.raises(CoreUnavailable, match="is busy with 128 requests"):
        open_detector(settings)


def test_each_request_of_a_batch_learns_of_its_failure(
    settings: Settings, detectors: Detectors, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        detectors.enter()
    first = detectors.submit(digest(settings), RED[None])
    assert held.began.wait(60)
    others = [detectors.submit(digest(settings), RED[None]) for _ in range(2)]

    def broken(model: OpenVinoModel, pictures: NDArray[np.uint8]) -> list[Found]:
        raise RuntimeError("the device\nis gone")

    monkeypatch.setattr(OpenVinoModel, "find", broken)
    held.release.set()
    assert first.result(60)
    for future in others:
        with pytest.raises(CoreError, match=r"detector red.onnx [0-9a-f]{8} failed on 2 pictures: the device is gone"):
            future.result(60)
    detectors.enter()
    missing = detectors.submit("0" * 64, RED[None])
    with pytest.raises(ModelFileError):
        missing.result(60)
    assert detectors.jobs == 0


def test_detection_does_not_wait_for_a_long_embedding(settings: Settings, detectors: Detectors) -> None:
    """A backlog of embeddings holds the other queue's thread, and detection goes on."""
    embedders, release = Embedders(settings), threading.Event()
    try:
        blocked = embedders._worker.submit(release.wait, 60)
        began = time.monotonic()
        for _ in range(3):
            detectors.enter()
            detectors.submit(digest(settings), RED[None]).result(30)
        assert not blocked.done() and time.monotonic() - began < 30
    finally:
        release.set()
        embedders.close()
