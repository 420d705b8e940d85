"""What `import reid_core` offers, used as a library user does."""

import inspect
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import reid_core
from reid_core.evaluation.evaluate import evaluate as evaluate_directory
from reid_core.serving.local import LocalCore
from schemas.errors import CoreError, InputError, ModelFileError, PictureError, UsageError, VectorError
from schemas.settings import settings
from tests.helpers.onnx_files import onnx_file


@pytest.fixture(scope="module")
def model() -> reid_core.Model:
    return reid_core.open_model(reid_core.DEMO_MODEL, device="cpu")


@pytest.fixture(scope="module")
def people() -> reid_core.Dataset:
    return reid_core.open_dataset("rendered:5:8")


@pytest.fixture(scope="module")
def pictures(people: reid_core.Dataset) -> list[np.ndarray]:
    """Six pictures, uint8 RGB, of several sizes."""
    return [sample.read() for sample in people.query[:6]]


@pytest.fixture(scope="module")
def features(model: reid_core.Model, pictures: list[np.ndarray]) -> np.ndarray:
    return model.embed(pictures)


def test_importing_the_package_loads_no_torch() -> None:
    script = "import sys, reid_core; dir(reid_core); print(sorted({'torch', 'cv2', 'pydantic'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_is_there_and_says_what_it_is() -> None:
    assert dir(reid_core) == reid_core.__all__ == sorted(reid_core.__all__)
    for name in reid_core.__all__:
        found = getattr(reid_core, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            said = inspect.getdoc(found)
            assert said and not said.startswith(f"{name}("), f"{name} has no docstring of its own"
    with pytest.raises(AttributeError, match="'reid_core' has no attribute 'open_modle'"):
        _ = reid_core.open_modle  # type: ignore[attr-defined]


def test_files_and_arrays_give_the_same_features(
    model: reid_core.Model, pictures: list[np.ndarray], features: np.ndarray, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        cv2.imwrite(str(file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert features.shape == (6, model.card.dims) and features.dtype == np.float32
    mixed: list[reid_core.Picture] = [files[0], str(files[1]), *pictures[2:]]
    assert np.array_equal(model.embed(iter(mixed)), features)
    assert model.embed([]).shape == (0, model.card.dims)


def test_any_number_of_pictures_is_embedded_in_their_order(
    model: reid_core.Model, pictures: list[np.ndarray], features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reid_core.library._HELD", 4)
    assert np.array_equal(model.embed(pictures), features)


def test_flip_is_the_mean_with_the_mirror_image(model: reid_core.Model, pictures: list[np.ndarray]) -> None:
    mirrored = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]
    mean = (model.embed(pictures) + model.embed(mirrored)) / 2
    assert model.embed(pictures, flip=True) == pytest.approx(mean, abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((64, 32), np.uint8), r"picture 1 is an array of uint8 \(64, 32\)"),
        (np.zeros((64, 32, 4), np.uint8), r"picture 1 is an array of uint8 \(64, 32, 4\)"),
        (np.zeros((64, 32, 3), np.float32), r"picture 1 is an array of float32"),
        (np.zeros((0, 32, 3), np.uint8), r"picture 1 is an array of uint8 \(0, 32, 3\)"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(
    model: reid_core.Model, pictures: list[np.ndarray], wrong: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.embed([pictures[0], wrong])


def test_a_single_picture_and_a_missing_file_are_refused(model: reid_core.Model, pictures: list[np.ndarray]) -> None:
    for single in (pictures[0], "a.jpg", Path("a.jpg")):
        with pytest.raises(InputError, match=r"write model\.embed\(\[picture\]\)"):
            model.embed(single)  # type: ignore[arg-type]
    with pytest.raises(PictureError, match=r"none\.jpg: no such file"):
        model.embed(["none.jpg"])


def test_distances_are_those_of_the_city(model: reid_core.Model, features: np.ndarray) -> None:
    core = LocalCore.open(settings(), reid_core.DEMO_MODEL)
    queries, gallery = features[:2].astype(np.float64), features.astype(np.float64)
    expected = [core.distances(np.repeat(query[None], len(gallery), 0), gallery) for query in queries]
    found = model.distances(features[:2], features)
    assert found.shape == (2, 6) and found.dtype == np.float64
    assert found == pytest.approx(np.array(expected), abs=1e-12)
    assert found[0].argmin() == 0 and found[1].argmin() == 1


def test_plain_distances_are_euclidean_of_unit_vectors(model: reid_core.Model, features: np.ndarray) -> None:
    unit = features / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    expected = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    found = model.distances(features, features, plain=True)
    assert found == pytest.approx(expected, abs=1e-7)
    assert not np.allclose(found, model.distances(features, features), atol=1e-3)
    assert model.distances(features[:0], features, plain=True).shape == (0, 6)


def test_vectors_of_another_model_are_refused(model: reid_core.Model, features: np.ndarray) -> None:
    with pytest.raises(VectorError, match=r"gallery: an array of shape \(6, 3\)"):
        model.distances(features, features[:, :3])
    with pytest.raises(VectorError, match="queries: vector 1 of 2 is zero"):
        model.distances(features[:2] * [[1], [0]], features)


def test_evaluate_scores_as_the_command_does(model: reid_core.Model, people: reid_core.Dataset) -> None:
    query, gallery = (people.load(split, model.card.input) for split in ("query", "gallery"))
    expected = evaluate_directory(settings(), reid_core.DEMO_MODEL, query, gallery, rerank=True)
    assert reid_core.evaluate(model, people, rerank=True) == expected
    assert list(reid_core.evaluate(model, "rendered:5:8")) == ["plain", "attended"]


def test_evaluate_normalizes_as_the_command_does(model: reid_core.Model, people: reid_core.Dataset) -> None:
    query, gallery, training = (people.load(split, model.card.input) for split in ("query", "gallery", "train"))
    expected = evaluate_directory(settings(), reid_core.DEMO_MODEL, query, gallery, normalize=True, basis=training)
    assert reid_core.evaluate(model, people, normalize="cameras", basis="train") == expected
    assert list(expected) == ["plain", "attended", "normalized", "basis"]
    features = model.embed(training.pictures)
    cameras = list(map(str, training.cameras))
    space = reid_core.learn_means(features, cameras)
    with pytest.raises(InputError, match="this feature space has no basis"):
        reid_core.evaluate(model, people, basis=space)
    basis = reid_core.learn_basis(space.apply(features, cameras), training.identities.tolist())
    learned = reid_core.FeatureSpace(space.units, space.means, basis)
    assert reid_core.evaluate(model, people, normalize="cameras", basis=learned)["basis"] == expected["basis"]


def test_evaluate_needs_queries(model: reid_core.Model, people: reid_core.Dataset) -> None:
    empty = reid_core.Dataset("nobody", people.train, (), people.gallery)
    with pytest.raises(InputError, match="nobody: 0 queries and 48 gallery pictures"):
        reid_core.evaluate(model, empty)


def test_a_foreign_file_opens_as_a_model(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    convention = reid_core.InputConvention(color="rgb", range=255, mean=(0, 0, 0), std=(1, 1, 1))
    opened = reid_core.open_model(onnx_file(tmp_path / "my mean.onnx", ("n", 3, 64, 32)), convention=convention)
    assert repr(opened) == "Model('my-mean', foreign, 3 dims, plain distances, cpu)"
    assert opened.diff_attention is None
    means = [cv2.resize(p, (32, 64), interpolation=cv2.INTER_AREA).mean(axis=(0, 1)) for p in pictures]
    assert opened.embed(pictures) == pytest.approx(np.array(means), abs=0.5)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or model directory"):
        reid_core.open_model(tmp_path / "none.onnx")
    with pytest.raises(InputError, match=r"what pictures it takes is not known; give --color"):
        reid_core.open_model(onnx_file(tmp_path / "mean.onnx", ("n", 3, 64, 32)))
    with pytest.raises(ModelFileError, match=r"card\.json"):
        reid_core.open_model(tmp_path)
    with pytest.raises(InputError, match="give none"):
        reid_core.open_model(reid_core.DEMO_MODEL, convention=reid_core.InputConvention())
    with pytest.raises(UsageError, match="device 'gpu': write one of auto, cpu, cuda"):
        reid_core.open_model(reid_core.DEMO_MODEL, device="gpu")  # type: ignore[arg-type]
    (tmp_path / "model.pth").write_bytes(b"\x80\x02}.")
    with pytest.raises(ModelFileError, match="pickle"):
        reid_core.open_model(tmp_path / "model.pth")
    with pytest.raises(reid_core.UrbanReidError):
        raise CoreError
