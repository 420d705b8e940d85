"""Opens a detector by its file or by its name in this home."""

from pathlib import Path

from reid_core.detection.detector import DetectionModel, Detector, ModelDetector
from reid_core.detection.files import HOG, default_detector, detector_file, detector_names
from reid_core.detection.hog import HogDetector
from reid_core.detection.remote_model import RemoteModel
from schemas.errors import ModelFileError, UsageError
from schemas.settings import Settings


def open_detector(settings: Settings, which: str | Path | None = None) -> Detector:
    """The detector of a model file, or the one of this home with this name; None: the home's default.

    A file is an OpenVINO `.xml`, an `.onnx` (YOLOX, NanoDet) or a torchvision `.pth`. The home's detectors lie in
    `detectors/NAME/`, and `detectors/default` names one of them; without it the default is HOG, whose name is
    `hog`. A detector of the home runs in the core process if that has it, otherwise in this process. Raises UsageError
    for another kind of file, ModelFileError for one that is not there or cannot be read or trusted.
    """
    if which is None:
        which = default_detector(settings) or HOG
    if which == HOG:
        return HogDetector()
    names = detector_names(settings)
    if which in names:
        file = detector_file(settings.detectors_dir / which)
        return ModelDetector(RemoteModel.connect(settings, file) or open_model(file, settings))
    if not Path(which).is_file():
        raise ModelFileError(
            f"{which}: no such file, and no detector of this home, which has {', '.join([HOG, *names])}"
        )
    return ModelDetector(open_model(Path(which), settings))


def open_model(file: Path, settings: Settings) -> DetectionModel:
    """The network of a detector's file in this process. Raises as `open_detector`."""
    if file.suffix in (".xml", ".onnx"):
        from reid_core.detection.openvino_model import OpenVinoModel

        return OpenVinoModel(file, settings)
    if file.suffix == ".pth":
        from reid_core.detection.torchvision_model import TorchvisionModel

        return TorchvisionModel(file, settings)
    raise UsageError(f"{file}: is no detector; give an OpenVINO .xml, an .onnx or a torchvision .pth file")
