"""The detectors of a home."""

from pathlib import Path

import numpy as np
import pytest

from reid_core.detection import open_detector
from reid_core.detection.files import default_detector, detector_names, keep_detector, make_default
from reid_core.detection.hog import HogDetector
from schemas.errors import CoreError, HomeError, ModelFileError
from schemas.settings import Settings
from tests.helpers.detectors import red_detector, red_frame


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_hog_is_the_default_until_another_is(settings: Settings, tmp_path: Path) -> None:
    assert isinstance(open_detector(settings), HogDetector) and default_detector(settings) is None
    keep_detector(settings, "red", [red_detector(tmp_path)])
    assert isinstance(open_detector(settings), HogDetector) and detector_names(settings) == ["red"]
    make_default(settings, "red")
    assert open_detector(settings).name == open_detector(settings, "red").name
    assert isinstance(open_detector(settings, "hog"), HogDetector)
    assert len(open_detector(settings).detect([red_frame(16, 16, 16)])[0])


def test_a_detector_is_replaced_as_a_whole(settings: Settings, tmp_path: Path) -> None:
    file = red_detector(tmp_path)
    (tmp_path / "more.txt").write_text("x")
    keep_detector(settings, "red", [file, tmp_path / "more.txt"])
    keep_detector(settings, "red", [file])
    assert [path.name for path in (settings.detectors_dir / "red").iterdir()] == ["red.onnx"]
    assert [path.name for path in settings.detectors_dir.iterdir()] == ["red"]


def test_what_is_not_there_is_told(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"blue: no such file, and no detector of this home, which has hog$"):
        open_detector(settings, "blue")
    keep_detector(settings, "red", [red_detector(tmp_path)])
    make_default(settings, "gone")
    with pytest.raises(ModelFileError, match="gone: no such file, and no detector of this home, which has hog, red"):
        open_detector(settings)
    (settings.detectors_dir / "red" / "second.onnx").write_bytes(b"x")
    with pytest.raises(ModelFileError, match="holds 2 files of a detector, and must hold one"):
        open_detector(settings, "red")
    (settings.detectors_dir / "default").write_bytes(b"\xff")
    with pytest.raises(HomeError, match="`urban-reid models get NAME` writes it anew"):
        open_detector(settings)


def test_a_device_that_is_not_there_is_told(settings: Settings, tmp_path: Path) -> None:
    """Detectors follow URBAN_REID_DEVICE; those in OpenVINO ran on the CPU whatever it said."""
    with pytest.raises(CoreError, match="URBAN_REID_DEVICE=cuda, but OpenVINO finds no GPU here"):
        open_detector(settings.model_copy(update={"device": "cuda"}), red_detector(tmp_path))


def test_frames_of_any_size(settings: Settings, tmp_path: Path) -> None:
    detector = open_detector(settings, red_detector(tmp_path))
    for height, width in ((1, 1), (1, 500), (500, 1), (2160, 3840)):
        (found,) = detector.detect([np.full((height, width, 3), 90, np.uint8)])
        assert found.shape == (0, 5)
