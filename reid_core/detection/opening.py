"""Opens a detector by its file or by its name in this home."""

from pathlib import Path

from reid_core.detection.detector import Detector, ModelDetector
from reid_core.detection.files import detector_file, detector_names
from reid_core.detection.hog import HogDetector
from schemas.errors import ModelFileError, UsageError
from schemas.settings import Settings


def open_detector(settings: Settings, which: str | Path | None = None) -> Detector:
    """The detector of a model file, or the one of this home with this name; None: the home's default.

    A file is an OpenVINO `.xml` or a torchvision `.pth`. The home's detectors lie in `detectors/NAME/`, and
    `detectors/default` is a link to one of them; HOG is the default without it, and can be named as `hog`. Raises
    UsageError for another kind of file, ModelFileError for one that is not there or cannot be read or trusted.
    """
    place = settings.detectors_dir
    if which is None:
        return _open(detector_file(place / "default")) if (place / "default").is_symlink() else HogDetector()
    if which == "hog":
        return HogDetector()
    names = detector_names(settings)
    if which in names:
        return _open(detector_file(place / which))
    if not Path(which).is_file():
        raise ModelFileError(
            f"{which}: no such file, and no detector of this home, which has {', '.join(['hog', *names])}"
        )
    return _open(Path(which))


def _open(file: Path) -> Detector:
    if file.suffix == ".xml":
        from reid_core.detection.openvino_model import OpenVinoModel

        return ModelDetector(OpenVinoModel(file))
    if file.suffix == ".pth":
        from reid_core.detection.torchvision_model import TorchvisionModel

        return ModelDetector(TorchvisionModel(file))
    raise UsageError(f"{file}: is no detector; give an OpenVINO .xml or a torchvision .pth file")
