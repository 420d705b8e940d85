import hashlib
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from reid_core.detection import Boxes, Detector, Frame, open_detector
from reid_core.detection.hog import HogDetector
from schemas.errors import ModelFileError, UsageError
from schemas.settings import Settings
from tests.helpers.assets import asset

SSD = "ssdlite320_mobilenet_v3_large"


def find(detector: Detector, frame: Frame) -> Boxes:
    return detector.detect([frame])[0]


def open_file(file: Path) -> Detector:
    return open_detector(Settings(home=file.parent / "home"), file)


@pytest.fixture
def plaza() -> Frame:
    """One frame of a public video with seven people."""
    capture = cv2.VideoCapture(str(asset("data/vtest.avi")))
    read, frame = capture.read()
    assert read
    return np.asarray(frame, np.uint8)


@pytest.fixture(params=["hog", "person-detection-retail-0013"])
def detector(request: pytest.FixtureRequest) -> Detector:
    if request.param == "hog":
        return HogDetector()
    return open_file(asset(f"models/{request.param}/{request.param}.xml"))


def test_people_are_found_in_pixels_of_the_frame(detector: Detector, plaza: Frame) -> None:
    boxes = find(detector, plaza)
    sure = boxes[boxes[:, 4] >= detector.sure]
    assert boxes.shape[1] == 5 and 2 <= len(sure) <= 8
    assert (boxes[:, 4] >= 0).all() and (boxes[:, 4] <= 1).all()
    assert (np.diff(boxes[:, 4]) <= 0).all()
    assert ((sure[:, 3] / sure[:, 2]) > 1.2).all()  # people are upright
    assert (sure[:, :2] > -20).all() and (sure[:, 0] + sure[:, 2] < 788).all() and (sure[:, 1] + sure[:, 3] < 596).all()
    assert np.array_equal(find(detector, plaza), boxes)


def test_no_sure_box_in_an_empty_scene(detector: Detector) -> None:
    boxes = find(detector, np.full((288, 384, 3), 90, np.uint8))
    assert (boxes[:, 4] < detector.sure).all()


def test_hog_finds_nothing_in_frames_smaller_than_its_window() -> None:
    assert find(HogDetector(), np.zeros((100, 50, 3), np.uint8)).shape == (0, 5)


def test_hog_runs_in_one_thread(plaza: Frame) -> None:
    """In several threads, OpenCV now and then pairs the boxes of one scale with the margins of another."""
    threads, seen, done = cv2.getNumThreads(), set(), threading.Event()
    cv2.setNumThreads(4)

    def watch() -> None:
        while not done.is_set():
            seen.add(cv2.getNumThreads())

    detector = HogDetector()
    watcher = threading.Thread(target=watch)
    try:
        watcher.start()
        find(detector, plaza)
    finally:
        done.set()
        watcher.join()
        after = cv2.getNumThreads()
        cv2.setNumThreads(threads)
    assert 1 in seen and after == 4


def test_hog_gives_the_same_boxes_however_many_threads_there_are(plaza: Frame) -> None:
    hog = HogDetector()
    first, threads = find(hog, plaza), cv2.getNumThreads()
    try:
        for number in (1, 2, 8):
            cv2.setNumThreads(number)
            assert np.array_equal(find(hog, plaza), first)
    finally:
        cv2.setNumThreads(threads)


def test_hog_in_several_threads_leaves_opencv_its_threads() -> None:
    """Else one that begins within another's one thread keeps all that come later at one."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        frame = np.zeros((160, 96, 3), np.uint8)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: HogDetector().detect([frame] * 3), range(100)))
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(threads)


def published(folder: Path, content: bytes) -> Path:
    path = folder / f"{SSD}_coco-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    path.write_bytes(content)
    return path


def test_torchvision_weights_are_read_and_used(tmp_path: Path, plaza: Frame) -> None:
    """The weights are random, so the boxes mean nothing; the way from the file to the boxes is the real one."""
    import torch
    from torchvision.models import detection

    torch.manual_seed(0)
    model = getattr(detection, SSD)(weights=None, weights_backbone=None, num_classes=91)
    torch.save(model.state_dict(), tmp_path / "weights")
    found = open_file(published(tmp_path, (tmp_path / "weights").read_bytes()))
    boxes = find(found, plaza)
    assert boxes.ndim == 2 and boxes.shape[1] == 5
    reference = model.eval()([torch.from_numpy(np.ascontiguousarray(plaza[..., ::-1])).permute(2, 0, 1) / 255])[0]
    person = (reference["labels"] == 1) & (reference["scores"] >= 0.2)
    assert len(boxes) == int(person.sum())


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil"),))


def test_files_that_cannot_be_trusted_are_refused(tmp_path: Path) -> None:
    import pickle

    with pytest.raises(ModelFileError, match="no such file"):
        open_file(tmp_path / "missing.xml")
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"is no detector; give an OpenVINO .xml, an .onnx or a torchvision .pth"):
        open_file(tmp_path / "a.jpg")
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(ModelFileError, match="OpenVINO cannot read it"):
        open_file(tmp_path / "a.onnx")
    (tmp_path / "a.xml").write_text("<net/>")
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(ModelFileError, match="OpenVINO cannot read it"):
        open_file(tmp_path / "a.xml")
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(ModelFileError, match=f"MODEL is one of .*{SSD}"):
        open_file(tmp_path / "weights.pth")
    (tmp_path / f"{SSD}_coco-00000000.pth").write_bytes(b"x")
    with pytest.raises(ModelFileError, match="SHA-256 does not begin with 00000000"):
        open_file(tmp_path / f"{SSD}_coco-00000000.pth")
    with pytest.raises(ModelFileError, match=f"does not fit {SSD}"):
        open_file(published(tmp_path, pickle.dumps(Evil())))
    assert not Path("evil").exists()


def test_a_model_of_another_shape_is_refused() -> None:
    with pytest.raises(ModelFileError, match="is no detector of a layout that is known here"):
        name = "person-reidentification-retail-0277"
        open_file(asset(f"models/{name}/{name}.xml"))


@pytest.mark.parametrize("folder", [b"\xff\xfe", b"with space", "\u00fc".encode()])
def test_a_model_below_any_folder_is_read(tmp_path: Path, folder: bytes, plaza: Frame) -> None:
    name = "person-detection-retail-0013"
    target = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + folder))
    target.mkdir()
    for suffix in (".xml", ".bin"):
        shutil.copy(asset(f"models/{name}/{name}{suffix}"), target)
    assert len(find(open_file(target / f"{name}.xml"), plaza))
    (target / f"{SSD}_coco-00000000.pth").write_bytes(b"x")
    with pytest.raises(ModelFileError, match="SHA-256 does not begin with 00000000"):
        open_file(target / f"{SSD}_coco-00000000.pth")
    with pytest.raises(ModelFileError, match=f"does not fit {SSD}"):
        open_file(published(target, b"no weights"))
