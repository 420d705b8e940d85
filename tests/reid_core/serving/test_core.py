"""The core in this process: features and distances that do not depend on their neighbors, and its errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reid_core.diff_attention import DiffAttention
from reid_core.files import load_model, save_model
from reid_core.models import build_model
from reid_core.preprocessing import normalized
from reid_core.serving.checks import check_vectors
from reid_core.serving.core import symmetric_distances
from reid_core.serving.devices import batch_size, choose_device, use_bfloat16
from reid_core.serving.factory import open_core
from reid_core.serving.local import LocalCore, fold_batch_norms
from schemas.cards import DiffAttentionSettings, InputConvention, ModelCard, ModelConfig
from schemas.errors import CoreError, OutOfDeviceMemory, VectorError
from schemas.settings import Settings
from tests.helpers.networks import trained

INPUT = InputConvention(height=64, width=32)
CARD = ModelCard(name="odd", engine="torch", architecture="none", dims=2, input=INPUT, sha256={})


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, INPUT.height, INPUT.width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small models: one plain, and two whose diff attention is far from its initial state."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    save_model(trained(build_model(ModelConfig(architecture="resnet10s", input=INPUT))), folder / "plain", name="plain")
    for transform in ("sub_abs", "sub"):
        settings = DiffAttentionSettings(transform=transform)
        model = trained(
            build_model(ModelConfig(architecture="resnet10s", input=INPUT, baseline="agw", diff_attention=settings))
        )
        assert model.diff_attention is not None
        torch.nn.init.normal_(model.diff_attention.mix)
        torch.nn.init.normal_(model.diff_attention.excite.weight, std=0.3)
        save_model(model, folder / transform, name=transform)
    return folder


def local(
    home: Path, name: str, precision: Literal["float32", "bfloat16"] = "float32", batch_size: int = 8
) -> LocalCore:
    core = open_core(Settings(home=home, precision=precision, batch_size=batch_size, device="cpu"), home / name)
    assert isinstance(core, LocalCore)
    return core


@pytest.mark.parametrize("name", ["plain", "sub_abs"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_feature_does_not_depend_on_its_neighbors(
    home: Path, name: str, precision: Literal["float32", "bfloat16"]
) -> None:
    core, many = local(home, name, precision), pictures(37)
    many[20] = many[9] = many[3]
    features = core.embed(many)
    assert features.shape == (37, 256) and features.dtype == np.float32
    assert np.array_equal(features[3], core.embed(many[3:4])[0])  # alone
    assert np.array_equal(features[:7], core.embed(many[:7]))  # in a batch of 7
    assert np.array_equal(features[3], features[9]) and np.array_equal(features[3], features[20])  # elsewhere
    assert np.array_equal(features[::-1], core.embed(many[::-1]))
    assert core.embed(many[:0]).shape == (0, 256)
    assert core.seconds > 0


@pytest.mark.parametrize("name", ["plain", "sub_abs"])
def test_the_core_computes_what_the_model_does(home: Path, name: str) -> None:
    many = pictures(5)
    with torch.inference_mode():
        expected = load_model(home / name)(normalized(torch.from_numpy(many), INPUT)).numpy()
    assert np.allclose(local(home, name).embed(many), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    rounded = local(home, name, "bfloat16").embed(many)
    assert np.abs(rounded - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.slow
def test_a_compiled_model_computes_the_same_whatever_its_neighbors(home: Path) -> None:
    settings = Settings(home=home, precision="float32", batch_size=8, device="cpu", compile="on")
    core, many = LocalCore.open(settings, home / "sub_abs"), pictures(11)
    features = core.embed(many)
    assert np.allclose(features, local(home, "sub_abs").embed(many), rtol=1e-3, atol=1e-4 * np.abs(features).max())
    assert np.array_equal(features[3], core.embed(many[3:4])[0])
    assert np.array_equal(features[::-1], core.embed(many[::-1]))


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_there_is_one_line(home: Path) -> None:
    with pytest.raises(CoreError, match=r"model plain cannot be compiled here .*URBAN_REID_COMPILE=auto") as caught:
        LocalCore.open(Settings(home=home, device="cpu", compile="on"), home / "plain")
    assert "\n" not in str(caught.value)


def test_folding_leaves_no_batch_norm_and_the_same_function() -> None:
    torch.manual_seed(0)
    model = trained(build_model(ModelConfig(architecture="resnet18", input=INPUT, baseline="agw"))).double()
    for name, parameter in model.backbone.named_parameters():
        if name.startswith("non_local.") and name.endswith(".bn.weight"):  # zero at the start
            torch.nn.init.normal_(parameter)
    images = torch.randn(2, 3, 64, 32, dtype=torch.float64)
    with torch.inference_mode():
        before = model.backbone(images)
        fold_batch_norms(model.backbone)
        assert torch.allclose(model.backbone(images), before)
    assert not [module for module in model.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("name", ["plain", "sub_abs", "sub"])
def test_a_distance_does_not_depend_on_its_neighbors(home: Path, name: str) -> None:
    core = local(home, name)
    left, right = np.random.default_rng(1).normal(size=(2, 1000, 256))
    together = core.distances(left, right)
    assert together.dtype == np.float64 and ((together >= 0) & (together <= 2)).all()
    for rows in (slice(0, 1), slice(63, 64), slice(64, 65), slice(999, 1000), slice(500, 507), slice(1, 1000)):
        assert np.array_equal(core.distances(left[rows], right[rows]), together[rows])
    assert not core.distances(left, left).any()
    assert core.distances(left[:0], right[:0]).shape == (0,)


def test_distances_are_the_attended_ones_in_float64(home: Path) -> None:
    left, right = np.random.default_rng(2).normal(size=(2, 70, 256))
    module = load_model(home / "sub").diff_attention
    assert isinstance(module, DiffAttention)
    with torch.inference_mode():
        attended = module.double()(torch.from_numpy(left), torch.from_numpy(right))
    x, y = (side.numpy() / np.linalg.norm(side.numpy(), axis=1, keepdims=True) for side in attended)
    core = local(home, "sub")
    assert np.allclose(core.distances(left, right), np.linalg.norm(x - y, axis=1), rtol=1e-9)
    forth, back = core.distances(left, right), core.distances(right, left)
    assert not np.allclose(forth, back)
    assert np.array_equal(symmetric_distances(core, left, right), (forth + back) / 2)
    assert np.array_equal(symmetric_distances(core, left, right), symmetric_distances(core, right, left))


def test_distances_without_diff_attention_are_of_the_directions(home: Path) -> None:
    core = local(home, "plain")
    left, right = np.random.default_rng(3).normal(size=(2, 70, 256))
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (left, right))
    assert np.allclose(core.distances(left, right), np.linalg.norm(x - y, axis=1), rtol=1e-12)
    assert np.allclose(core.distances(left * 100, right), core.distances(left, right), rtol=1e-12)
    assert np.array_equal(symmetric_distances(core, left, right), core.distances(left, right))


class Device:
    """A device that holds at most `room` pictures; a feature is the picture's mean and the batch size."""

    def __init__(self, room: int, error: Callable[[], Exception]) -> None:
        self.room, self.error = room, error
        self.batches: list[int] = []

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(batch))
        if len(batch) > self.room:
            raise self.error()
        means = batch.reshape(len(batch), -1).mean(axis=1)
        return np.stack([means + 1, np.full(len(batch), len(batch))], axis=1).astype(np.float32)


def _cpu_allocation() -> Exception:
    """What the CPU's allocator raises when more is asked for than any machine has."""
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("the machine has an exabyte")


ERRORS = [lambda: torch.OutOfMemoryError("CUDA out of memory"), MemoryError, _cpu_allocation]


@pytest.mark.parametrize("error", ERRORS)
def test_out_of_memory_halves_the_batch_until_it_fits(error: Callable[[], Exception]) -> None:
    device, many = Device(room=5, error=error), pictures(9)
    core = LocalCore(CARD, device, None, batch_size=16)
    features = core.embed(many)
    assert device.batches == [16, 8, 4, 4, 4]  # it stays halved
    assert np.allclose(features[:, 0], many.reshape(9, -1).mean(axis=1) + 1)
    core.embed(many[:1])
    assert device.batches[5:] == [4]


@pytest.mark.parametrize("error", ERRORS)
def test_when_not_even_one_picture_fits(error: Callable[[], Exception]) -> None:
    device = Device(room=0, error=error)
    with pytest.raises(OutOfDeviceMemory, match="not even one picture of 64x32") as caught:
        LocalCore(CARD, device, None, batch_size=6).embed(pictures(3))
    assert device.batches == [6, 3, 1] and "\n" not in str(caught.value)


class EngineError(Exception):
    """As onnxruntime's errors, which derive from nothing narrower."""


@pytest.mark.parametrize("error", [RuntimeError, ValueError, EngineError])
def test_any_other_failure_of_an_engine_is_one_line(error: type[Exception]) -> None:
    device = Device(room=0, error=lambda: error("the device\nis on fire"))
    with pytest.raises(CoreError, match=r"model odd failed on a batch of 6 pictures: the device is on fire$"):
        LocalCore(CARD, device, None, batch_size=6).embed(pictures(3))
    assert device.batches == [6]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([np.nan, 1], "holds NaN"),
        ([np.inf, 1], "holds a value over 65504"),
        ([1, -65_505], "holds a value over 65504"),
        ([0, 0], "is zero"),
        ([1e-9, -1e-9], "is zero"),  # in half precision
    ],
)
def test_features_that_the_store_cannot_hold(row: list[float], why: str) -> None:
    def embedder(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array([[1, 1], [2, 1], row, [1, 0]], np.float32)

    with pytest.raises(VectorError, match=f"vector 2 of 3 {why}"):
        LocalCore(CARD, embedder, None, batch_size=4).embed(pictures(3))
    core = LocalCore(CARD, embedder, None, batch_size=4)
    core.embed(pictures(2))  # rows of the padding are not checked
    with pytest.raises(VectorError, match=f"vector 0 of 1 {why}"):
        core.distances(np.array([row]), np.ones((1, 2)))


def test_the_limits_of_sound_vectors() -> None:
    check_vectors(np.array([[65_504, 0], [-65_504, 0], [6e-8, 0]]), 2, "here")
    with pytest.raises(VectorError, match="shape"):
        check_vectors(np.ones((3, 5)), 2, "here")
    with pytest.raises(VectorError, match="on the left"):
        LocalCore(CARD, Device(9, MemoryError), None, batch_size=1).distances(np.ones((2, 2)), np.ones((3, 2)))


def test_the_device_and_its_precision() -> None:
    cpu = choose_device(Settings(device="cpu"))
    assert cpu.type == "cpu"
    assert use_bfloat16(Settings(precision="bfloat16"), cpu) and not use_bfloat16(Settings(precision="float32"), cpu)
    assert isinstance(use_bfloat16(Settings(), cpu), bool)
    if not torch.cuda.is_available():
        with pytest.raises(CoreError, match="finds no CUDA device"):
            choose_device(Settings(device="cuda"))


def test_the_batch_size_of_each_device() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert (batch_size(Settings(), cpu), batch_size(Settings(), cuda)) == (16, 64)
    assert batch_size(Settings(batch_size=5), cpu) == batch_size(Settings(batch_size=5), cuda) == 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_a_feature_does_not_depend_on_its_neighbors(home: Path) -> None:
    settings = Settings(home=home, precision="float32", device="cuda")
    core, many = LocalCore.open(settings, home / "sub_abs"), pictures(150)
    features = core.embed(many)
    assert core.batch_size == 64
    assert np.array_equal(features[3], core.embed(many[3:4])[0])
    assert np.array_equal(features[::-1], core.embed(many[::-1]))
    expected = local(home, "sub_abs").embed(many)
    assert np.allclose(features, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
