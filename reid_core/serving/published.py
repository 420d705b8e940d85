"""Input conventions of published embedders, recognized by the SHA-384 or SHA-256 of their file.

Intel's models, of the Open Model Zoo 2023.0, have mean and std in the network and read BGR; hashes are those of their
`model.yml`. YoutuReID is OpenCV Zoo's.
"""

import hashlib
from pathlib import Path
from typing import Any

_INTEL = {"color": "bgr", "range": 255, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
_IMAGENET = {"color": "rgb", "range": 1, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

_CONVENTIONS: dict[str, dict[str, Any]] = {
    # person-reidentification-retail-0277: FP32, FP16
    "8b9bd45ee44c67f08b88c82c33cff1bb0f9e7e687c52741461577badbdb7cde146e49fffedb1f813230cd47420af3470": _INTEL,
    "554b403108fea776cb54c971c4c8acfaaeaae3884b5945eefbcbad8b9ed3c84f0382cb72c666c02c07129826a668d79e": _INTEL,
    # person-reidentification-retail-0286: FP32, FP16
    "8c8cc966c330c577ca7bc3a851dd68341f671a6b0345c75e8df8d9928e4545899577d52b879723103e12fc5ca8478f6b": _INTEL,
    "8bee621289b7b8f29ffdaf1eb86af4f0b9bd3077d134676f2f53c5fd86f9103405a2ce5c605f548ae9261dead48849e2": _INTEL,
    # person-reidentification-retail-0287: FP32, FP16, FP16-INT8
    "a8a6956dec193dfa0095319c5f0bfccd5b9eaaac4d30ddc12a79aa7a99f0dcf953aae7b76764239d383ff39f8f8a1477": _INTEL,
    "922cc5560fa298a9f02cac5bad5cbeeaee2a913ec435ae6f446d0c783936598b333c017ce1a702b605c2fd7fa33a6ee7": _INTEL,
    "c317a6fb90ac76b3ef7f67b72dff23ba4c9b7947d8df7bf6c42ca724f88b428acd49be3a0224a803da152e7cafdd2538": _INTEL,
    # person-reidentification-retail-0288: FP32, FP16
    "25082c8e783ad358396039d6c3969f9d862512de0cd3dd87b23c2e5790fabc64e288336e5d42369fcc4c347be15c19f2": _INTEL,
    "18814c6445b35224987bc44bcbdb47da6c3826e5da0b6aa00a88c06bf71491a8c4f42e1f62424c077cce46e76a41f7a2": _INTEL,
    # person_reid_youtu_2021nov.onnx
    "0579683334d4b9440221606dcb461656dd0dc64143b18f48faedaced9b4f580d": _IMAGENET,
}


def published_convention(file: Path) -> dict[str, Any]:
    """The input convention of a published .xml or .onnx file, by field of InputConvention; empty if it is not known."""
    with file.open("rb") as stream:
        for algorithm in ("sha384", "sha256"):
            stream.seek(0)
            found = _CONVENTIONS.get(hashlib.file_digest(stream, algorithm).hexdigest())
            if found is not None:
                return found
    return {}
