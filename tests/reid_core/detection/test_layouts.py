"""The layouts of detection networks, against torch and in files that OpenVINO reads."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.ops import nms

from pipeline.ingest.tracking import overlaps
from reid_core.detection import Boxes, Detector, open_detector
from reid_core.detection.layouts import LEAST, OVERLAP, layout_of
from schemas.settings import Settings
from tests.helpers.assets import asset
from tests.helpers.detectors import red_detector, red_frame
from tests.helpers.onnx_files import onnx_graph

STRIDES = (8, 16, 32)


def in_pixels(found: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """By confidence, corners in pixels."""
    rows = found * [width, height, width, height, 1]
    return np.asarray(rows[np.argsort(-rows[:, 4])])


@pytest.mark.parametrize(("height", "width"), [(64, 96), (416, 416)])
def test_yolox_is_read_as_its_authors_do(height: int, width: int) -> None:
    """Their demo in torch: cells to pixels, objectness times class, non-maximum suppression."""
    torch.manual_seed(1)
    grids, strides = [], []
    for stride in STRIDES:
        ys, xs = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        grids.append(torch.stack((xs, ys), 2).reshape(-1, 2))
        strides.append(torch.full((len(grids[-1]), 1), stride))
    cells, scale = torch.cat(grids), torch.cat(strides)
    output = torch.rand(1, len(cells), 85) * 1.5
    output[..., 4] = output[..., 4] ** 3 / 3.375
    found = layout_of(height, width, [output.shape])
    assert found is not None and found.name == "yolox" and found.input.fit == "letterbox"

    center, size = (output[0, :, :2] + cells) * scale, output[0, :, 2:4].exp() * scale
    corners = torch.cat([center - size / 2, center + size / 2], 1).double()
    confidence = (output[0, :, 4] * output[0, :, 5]).double()
    likely = confidence >= LEAST
    corners, confidence = corners[likely], confidence[likely]
    kept = nms(corners, confidence, OVERLAP)
    expected = torch.cat([corners[kept], confidence[kept, None]], 1).numpy()
    assert len(expected) > 3
    np.testing.assert_allclose(in_pixels(found.decode([output.numpy()]), height, width), expected, rtol=1e-5)


@pytest.mark.parametrize(("size", "bins", "strides"), [(416, 11, STRIDES), (320, 8, (*STRIDES, 64))])
def test_nanodet_is_read_as_its_authors_do(size: int, bins: int, strides: Sequence[int]) -> None:
    """In torch: the mean of each side's distribution, times the stride, from the center of the cell."""
    torch.manual_seed(2)
    classes, sides, corners, confidences = [], [], [], []
    for stride in strides:
        side = size // stride
        classes.append(torch.rand(1, side * side, 80) ** 8)
        sides.append(torch.randn(1, side * side, 4 * bins) * 3)
        ys, xs = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        center = (torch.stack((xs, ys), 2).reshape(-1, 2) + 0.5) * stride
        distance = (sides[-1][0].reshape(-1, 4, bins).softmax(2) * torch.arange(bins)).sum(2) * stride
        corners.append(torch.cat([center - distance[:, :2], center + distance[:, 2:]], 1))
        confidences.append(classes[-1][0, :, 0])
    outputs = [*classes, *sides] if bins == 8 else [part for both in zip(classes, sides, strict=True) for part in both]
    found = layout_of(size, size, [output.shape for output in outputs])
    assert found is not None and found.name == "nanodet"

    boxes, confidence = torch.cat(corners).double(), torch.cat(confidences).double()
    likely = confidence >= LEAST
    boxes, confidence = boxes[likely], confidence[likely]
    kept = nms(boxes, confidence, OVERLAP)
    expected = torch.cat([boxes[kept], confidence[kept, None]], 1).numpy()
    assert len(expected) > 3
    got = in_pixels(found.decode([output.numpy() for output in outputs]), size, size)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)

    together = torch.cat([torch.cat([one, two], 2) for one, two in zip(classes, sides, strict=True)], 1)
    found = layout_of(size, size, [together.shape])
    assert found is not None and found.name == "nanodet"
    assert np.array_equal(in_pixels(found.decode([together.numpy()]), size, size), got)


def test_rows_of_ssd_end_where_the_network_says_so() -> None:
    rows = np.array(
        [
            [0, 1, 0.9, 0.1, 0.2, 0.3, 0.4],
            [0, 0, 0.8, 0.0, 0.0, 1.0, 1.0],  # another label
            [0, 1, 0.1, 0.0, 0.0, 1.0, 1.0],  # not likely
            [-1, 1, 0.9, 0.0, 0.0, 1.0, 1.0],
            [0, 1, 0.9, 0.0, 0.0, 1.0, 1.0],  # left over from an earlier picture
        ]
    )
    for person in (1, 0):
        found = layout_of(320, 544, [(1, 1, 5, 7)], person)
        assert found is not None
        expected = [[0.1, 0.2, 0.3, 0.4, 0.9]] if person else [[0.0, 0.0, 1.0, 1.0, 0.8]]
        assert found.decode([rows.reshape(1, 1, 5, 7)]).tolist() == expected


def test_boxes_beside_labels_are_in_pixels_of_the_picture() -> None:
    found = layout_of(480, 864, [(100, 5), (100,)])
    assert found is not None and found.name == "boxes"
    boxes = np.zeros((100, 5), np.float32)
    boxes[0] = [86.4, 48, 432, 240, 0.75]
    assert found.decode([np.zeros(100), boxes]) == pytest.approx(np.array([[0.1, 0.1, 0.5, 0.5, 0.75]]))


@pytest.mark.parametrize("shapes", [[(1, 256)], [(1, 8400, 6)], [(1, 100, 80), (1, 100, 32)], [], [(1, 1, 200, 6)]])
def test_other_outputs_are_no_detector(shapes: list[tuple[int, ...]]) -> None:
    assert layout_of(640, 640, shapes) is None


def find(file: Path, *frames: NDArray[np.uint8]) -> list[Boxes]:
    return opened(file).detect(frames)


def opened(file: Path) -> Detector:
    return open_detector(Settings(home=file.parent / "home"), file)


def test_an_onnx_file_finds_its_people_in_any_frame(tmp_path: Path) -> None:
    """Frames that are wider, higher and larger than the network's picture are letterboxed into it."""
    file = red_detector(tmp_path)
    frames = [red_frame(16, 32, 16), red_frame(32, 64, 32, 128, 256), red_frame(0, 0, 64, 256, 64)]
    found = find(file, *frames)
    for boxes, expected in zip(found, ([16, 32, 16, 16], [32, 64, 32, 32], [0, 0, 64, 64]), strict=True):
        assert len(boxes) and boxes[0, 4] == 1
        left, top = boxes[:, :2].min(axis=0)
        right, bottom = (boxes[:, :2] + boxes[:, 2:4]).max(axis=0)
        assert [left, top, right - left, bottom - top] == pytest.approx(expected, abs=1)


def test_labels_of_ssd_begin_where_its_background_says(tmp_path: Path) -> None:
    """Open Model Zoo's retail-0013 states background 0 and people 1, its 0200 to 0202 people 0."""
    import openvino as ov
    from openvino import opset8

    for background, person in ((0, 1), (1, 0)):
        image = opset8.parameter([1, 3, 32, 32], np.float32, name="image")
        both = opset8.reduce_mean(image, np.array([1, 2, 3]), keep_dims=False)
        certain = opset8.multiply(both, np.float32(0))
        scores = np.zeros((1, 2), np.float32)
        scores[0, person] = 0.9
        confidence = opset8.add(opset8.reshape(certain, np.array([1, 1]), False), scores)
        boxes = opset8.add(opset8.reshape(certain, np.array([1, 1]), False), np.zeros((1, 4), np.float32))
        priors = np.array([[[0.25, 0.25, 0.75, 0.75], [0.1, 0.1, 0.2, 0.2]]], np.float32)
        attributes = {
            "background_label_id": background, "top_k": 10, "keep_top_k": [10], "nms_threshold": 0.5,
            "confidence_threshold": 0.01, "code_type": "caffe.PriorBoxParameter.CENTER_SIZE", "normalized": True,
            "share_location": True, "variance_encoded_in_target": False,
        }  # fmt: skip
        output = opset8.detection_output(boxes, confidence, priors, attributes)
        ov.save_model(ov.Model([output], [image]), tmp_path / f"{background}.xml")
        (found,) = find(tmp_path / f"{background}.xml", np.full((64, 64, 3), 9, np.uint8))
        assert found[:, :4].round(3).tolist() == [[16, 16, 32, 32]] and found[0, 4] == pytest.approx(0.9, abs=1e-3)


def test_a_batch_gives_each_frame_what_it_gives_alone(tmp_path: Path) -> None:
    """Bit by bit, whatever else is in it, and in whatever order."""
    capture = cv2.VideoCapture(str(asset("data/vtest.avi")))
    frames = [np.asarray(capture.read()[1], np.uint8) for _ in range(6)]
    frames += [frames[0][:300, :400], frames[1][100:]]  # of other cameras
    for name in ("person-detection-retail-0013", "nanodet"):
        detector = opened(asset(f"models/{name}/{name}.xml"))
        alone = [detector.detect([frame])[0] for frame in frames]
        assert sum(map(len, alone)) > 20
        for found, expected in zip(detector.detect(frames), alone, strict=True):
            assert np.array_equal(found, expected)
        for found, expected in zip(detector.detect(frames[::-1]), alone[::-1], strict=True):
            assert np.array_equal(found, expected)
    assert detector.detect([]) == []


def test_threads_share_a_detector(tmp_path: Path) -> None:
    frames = [red_frame(8 * place, 0, 8) for place in range(8)]
    detector = opened(red_detector(tmp_path))
    expected = detector.detect(frames)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda row: detector.detect([frames[row]])[0], list(range(8)) * 20))
    assert all(map(np.array_equal, found, expected * 20))


def test_nanodet_finds_whom_the_ssd_finds() -> None:
    capture = cv2.VideoCapture(str(asset("data/vtest.avi")))
    frames = [np.asarray(capture.read()[1], np.uint8) for _ in range(200)][::20]
    ssd = opened(asset("models/person-detection-retail-0013/person-detection-retail-0013.xml")).detect(frames)
    other = opened(asset("models/nanodet/nanodet.xml")).detect(frames)
    both = [overlaps(a[a[:, 4] >= 0.5, :4], b[:, :4]) for a, b in zip(ssd, other, strict=True)]
    found = [(shared.max(axis=1, initial=0) >= 0.5).tolist() for shared in both]
    assert sum(map(len, found)) >= 30 and sum(map(sum, found)) >= 0.9 * sum(map(len, found))


def test_a_network_with_outputs_of_its_own_is_refused(tmp_path: Path) -> None:
    from schemas.errors import ModelFileError

    onnx_graph(tmp_path / "mean.onnx", (1, 3, 64, 64), [("GlobalAveragePool", ("image",), "feature", {})])
    with pytest.raises(
        ModelFileError, match=r"no detector of a layout that is known here .* outputs are \[1, 3, 1, 1\]"
    ):
        opened(tmp_path / "mean.onnx")
