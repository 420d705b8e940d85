"""Foreign embedders: a tiny ONNX file written here, and a published OpenVINO model on real people."""

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from reid_core.files import write_card
from reid_core.preprocessing import prepare
from reid_core.serving.factory import open_core
from reid_core.serving.foreign import ForeignEmbedder, foreign_card, foreign_files
from reid_core.serving.local import LocalCore
from schemas.cards import InputConvention
from schemas.errors import CoreError, ModelFileError
from schemas.settings import Settings
from tests.helpers.onnx_files import onnx_file

PLAIN = InputConvention(height=32, width=16, mean=(0, 0, 0), std=(1, 1, 1))
RETAIL = "person-reidentification-retail-0277"


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(1, 256, (count, 32, 16, 3), dtype=np.uint8)


def directory(tmp_path: Path, file: Path, convention: InputConvention) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for part in foreign_files(file):
        shutil.copy(part, folder)
    write_card(foreign_card(file, "foreign", convention, Settings(precision="float32")), folder)
    return folder


@pytest.mark.parametrize("shape", [(1, 3, 32, 16), ("batch", 3, "height", "width")])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_an_onnx_file_is_a_core(tmp_path: Path, shape: tuple[int | str, ...], color: str) -> None:
    convention = PLAIN.model_copy(update={"color": color, "range": 255})
    folder = directory(tmp_path, onnx_file(tmp_path / "m.onnx", shape), convention)
    core = open_core(Settings(home=tmp_path), folder)
    assert isinstance(core, LocalCore)
    assert (core.card.engine, core.card.dims, core.card.input) == ("onnx", 3, convention)
    means = pictures(9).reshape(9, -1, 3).mean(axis=1)
    features = core.embed(pictures(9))
    assert features.dtype == np.float32
    assert np.allclose(features, means if color == "rgb" else means[:, ::-1], rtol=1e-5)
    assert np.array_equal(core.embed(pictures(9)[4:5])[0], features[4])


def test_the_file_fixes_the_inputs_size(tmp_path: Path) -> None:
    card = foreign_card(onnx_file(tmp_path / "m.onnx", ("n", 3, 48, 24)), "m", PLAIN, Settings())
    assert (card.input.height, card.input.width) == (48, 24)


@pytest.mark.parametrize("shape", [(4, 3, 32, 16), (1, 1, 32, 16), (1, 3), (1, 32, 16, 3), (1, 3, 5000, 16)])
def test_inputs_that_are_no_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelFileError, match="finds no picture embedder") as caught:
        foreign_card(onnx_file(tmp_path / "m.onnx", shape), "m", PLAIN, Settings())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"<net", b"\x00" * 1000])
def test_files_that_are_no_models(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(ModelFileError, match="finds no picture embedder") as caught:
        foreign_card(tmp_path / name, "m", PLAIN, Settings())
    assert "\n" not in str(caught.value)


def test_operators_that_the_engine_lacks_files_of_other_kinds_and_weights_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="finds no picture embedder"):
        foreign_card(onnx_file(tmp_path / "m.onnx", (1, 3, 32, 16), "Explode"), "m", PLAIN, Settings())
    (tmp_path / "m.tflite").write_bytes(b"TFL3")
    with pytest.raises(ModelFileError, match="not a model file"):
        foreign_card(tmp_path / "m.tflite", "m", PLAIN, Settings())
    (tmp_path / "m.xml").write_bytes(b"<net/>")
    with pytest.raises(ModelFileError, match="are not beside it"):
        foreign_card(tmp_path / "m.xml", "m", PLAIN, Settings())


@pytest.mark.parametrize(
    ("name", "extra", "module"), [("m.onnx", "onnx", "onnxruntime"), ("m.xml", "openvino", "openvino")]
)
def test_an_engine_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as Python itself marks what cannot be imported
    (tmp_path / name).write_bytes(b"<net/>")
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(CoreError, match=rf"needs {module}: pip install 'urban-reid\[{extra}\]'"):
        foreign_card(tmp_path / name, "m", PLAIN, Settings())


def retail(settings: Settings, tmp_path: Path) -> LocalCore:
    """The published embedder, as `urban-reid models register` would keep it."""
    if settings.test_assets is None:
        pytest.skip("URBAN_REID_TEST_ASSETS is not set")
    file = settings.test_assets / "models" / RETAIL / f"{RETAIL}.xml"
    convention = InputConvention(color="bgr", range=255, mean=(0, 0, 0), std=(1, 1, 1))
    core = open_core(settings, directory(tmp_path, file, convention))
    assert isinstance(core, LocalCore)
    return core


def test_a_published_openvino_model(tmp_path: Path) -> None:
    core = retail(Settings(home=tmp_path), tmp_path)
    assert (core.card.engine, core.card.dims) == ("openvino", 256)
    assert (core.card.input.height, core.card.input.width) == (256, 128)
    many = np.random.default_rng(0).integers(0, 256, (5, 256, 128, 3), dtype=np.uint8)
    features = core.embed(many)
    assert np.array_equal(core.embed(many[::-1]), features[::-1])
    assert np.array_equal(core.embed(many[3:4])[0], features[3])
    assert not core.distances(features.astype(np.float64), features.astype(np.float64)).any()


def read(folder: Path, camera: int, convention: InputConvention) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Prepared pictures and identities of one camera's files, named as Market-1501 names them."""
    found = [(path, *path.name.split("_")[:2]) for path in sorted(folder.glob("*.jpg"))]
    chosen = [(path, int(identity)) for path, identity, where in found if where.startswith(f"c{camera}s")]
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path, _ in chosen]
    return np.stack([prepare(image, convention) for image in images]), np.array([identity for _, identity in chosen])


@pytest.mark.slow
def test_the_published_models_figures_on_real_people(tmp_path: Path) -> None:
    """Rank-1 82.9 and mAP 81.1 are the model's known figures on this set, camera 1 against camera 2."""
    settings = Settings(home=tmp_path)
    if settings.real_set is None:
        pytest.skip("URBAN_REID_REAL_SET is not set")
    core = retail(settings, tmp_path)
    queries, wanted = read(settings.real_set / "query", 1, core.card.input)
    gallery, known = read(settings.real_set / "bounding_box_test", 2, core.card.input)
    x, y = (core.embed(side).astype(np.float64) for side in (queries, gallery))
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y))
    first, precisions = [], []
    for similarities, identity in zip(x @ y.T, wanted, strict=True):
        hits = np.flatnonzero(known[np.argsort(-similarities, kind="stable")] == identity)
        first.append(hits[0] == 0)
        precisions.append(np.mean(np.arange(1, len(hits) + 1) / (hits + 1)))
    assert 100 * np.mean(first) == pytest.approx(82.9, abs=1.0)
    assert 100 * np.mean(precisions) == pytest.approx(81.1, abs=0.5)


def test_features_are_flattened_to_one_row_a_picture(tmp_path: Path) -> None:
    embedder = ForeignEmbedder(onnx_file(tmp_path / "m.onnx", (1, 3, 32, 16)), PLAIN, Settings())
    assert embedder.dims == 3 and embedder(pictures(4)).shape == (4, 3)
