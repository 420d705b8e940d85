"""A user's own backbone: registered by a decorator or an entry point, and what is refused."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reid_core import backbones
from reid_core.backbones import RegisteredBackbone, build_backbone, register_backbone
from reid_core.backbones.weights import convert_weights
from reid_core.files import load_model, save_model
from reid_core.models import build_model, refuse_config
from reid_core.preprocessing import normalized
from reid_core.serving.local import LocalCore
from reid_core.tensors import read_tensors
from schemas.cards import InputConvention, ModelConfig
from schemas.errors import CoreError, ModelFileError, UsageError
from schemas.settings import Settings
from tests.helpers.own_backbone import install_backbone

INPUT = InputConvention(height=32, width=16)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing registered by a test outlives it."""
    monkeypatch.setattr(backbones, "_registered", {})
    yield
    sys.modules.pop("mynet", None)


class Mean(nn.Module):
    """The color of each quarter of the picture's height."""

    dims = 3

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.scale = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images * self.scale, (4, 1))


def test_a_decorator_registers_a_class() -> None:
    assert register_backbone("mean")(Mean) is Mean
    backbone = build_backbone("mean", size=(32, 16))
    assert isinstance(backbone, RegisteredBackbone)
    assert (backbone.dims, backbone.pooled) == (3, False) and backbone.training
    images = torch.rand(2, 3, 32, 16)
    assert torch.equal(backbone(images), Mean((32, 16))(images)) and backbone.net.size == (32, 16)
    with torch.device("meta"):  # as a configuration is checked
        refuse_config(ModelConfig(architecture="mean", input=INPUT))
    model = build_model(ModelConfig(architecture="mean", input=INPUT, baseline="agw"))
    assert model.dims == 3 and [name for name, _ in model.named_parameters() if "pool" in name] == ["pool.p"]


def test_registering_again_replaces_as_a_cell_of_a_notebook_does() -> None:
    register_backbone("mean")(Mean)

    @register_backbone("mean")
    def narrow(size: tuple[int, int]) -> nn.Module:
        net = Mean(size)
        net.pooled = True  # type: ignore[assignment]
        net.forward = lambda images: images.mean((2, 3), keepdim=True)  # type: ignore[method-assign]
        return net

    assert build_backbone("mean").pooled
    with pytest.raises(UsageError, match="mean pools by itself"):
        build_model(ModelConfig(architecture="mean", baseline="agw"))


@pytest.mark.parametrize("name", ["", "a b", "timm:mine", "-x", "a" * 65, "é"])
def test_names_that_are_not_valid(name: str) -> None:
    with pytest.raises(UsageError, match="not a valid name for a backbone"):
        register_backbone(name)


def test_a_built_in_name_is_taken() -> None:
    with pytest.raises(UsageError, match="'resnet50' is built in"):
        register_backbone("resnet50")


def fails(size: tuple[int, int]) -> nn.Module:
    raise ValueError("needs\nmore")


class Positions(Mean):
    """Its position embeddings are for one size, and nothing says how to interpolate them."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size)
        self.pos_embed = nn.Parameter(torch.zeros(1, 8, 3))


def test_position_embeddings_that_nobody_can_interpolate(tmp_path: Path) -> None:
    register_backbone("positions")(Positions)
    torch.save({"scale": torch.ones(3, 1, 1), "pos_embed": torch.zeros(1, 16, 3)}, tmp_path / "p.pth")
    with pytest.raises(ModelFileError, match=r"other shapes than the backbone's: .*pos_embed"):
        convert_weights(tmp_path / "p.pth", "positions", tmp_path / "p.safetensors")


class Without(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


def giving(found: Any, dims: int = 3, pooled: bool = False) -> Callable[[tuple[int, int]], nn.Module]:
    def build(size: tuple[int, int]) -> nn.Module:
        net = Mean(size)
        net.dims, net.pooled = dims, pooled  # type: ignore[assignment]
        net.forward = lambda images: found  # type: ignore[method-assign]
        return net

    return build


@pytest.mark.parametrize(
    ("builder", "why"),
    [
        (fails, "ValueError: needs more"),
        (lambda size: Without(), "not an nn.Module with an integer `dims`"),
        (lambda size: "resnet50", "not an nn.Module with an integer `dims`"),
        (giving(torch.zeros(1, 3)), r"one picture gives torch.float32 \(1, 3\), not a floating-point map"),
        (giving(torch.zeros(1, 3, 4, 4, dtype=torch.long)), r"torch.int64 \(1, 3, 4, 4\), not a floating-point map"),
        (giving((torch.zeros(1, 3, 4, 4),)), "gives a tuple, not a floating-point map"),
        (giving(torch.zeros(1, 4, 4, 4)), r"\(1, 4, 4, 4\), but dims=3"),
        (giving(torch.zeros(2, 3, 4, 4)), r"\(2, 3, 4, 4\), but dims=3"),
        (giving(torch.zeros(1, 3, 4, 4), pooled=True), r"\(1, 3, 4, 4\), but dims=3 and pooled=True"),
    ],
)
def test_a_backbone_that_breaks_its_contract(builder: Any, why: str) -> None:
    register_backbone("broken")(builder)
    with pytest.raises(CoreError, match=f"backbone 'broken' does not work on pictures of 32x16: .*{why}") as caught:
        build_backbone("broken", size=(32, 16))
    assert "\n" not in str(caught.value)


def test_an_entry_point_is_loaded_when_its_name_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install_backbone(
        tmp_path / "site", mynet="mynet:Tiny", **{"mynet-by-decorator": "mynet", "mynet-wrong": "mynet", "gone": "no.t"}
    )
    with pytest.raises(UsageError, match=r"no architecture 'mynet'; .*register_backbone\('mynet'\).*urban_reid.backb"):
        build_backbone("mynet")
    monkeypatch.syspath_prepend(str(folder))
    for name in ("mynet", "mynet-by-decorator"):
        assert build_backbone(name, size=(32, 16)).dims == 8
    with pytest.raises(CoreError, match="'mynet-wrong': mynet is neither callable nor registers 'mynet-wrong'"):
        build_backbone("mynet-wrong")
    with pytest.raises(CoreError, match=r"'gone' cannot be imported from no\.t: ModuleNotFoundError"):
        build_backbone("gone")
    second = install_backbone(tmp_path / "second", twice="mynet:Tiny")
    (second / "mynet-1.0.dist-info").rename(second / "other-1.0.dist-info")
    (second / "other-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    third = install_backbone(tmp_path / "third", twice="mynet:Decorated")
    monkeypatch.syspath_prepend(str(second))
    monkeypatch.syspath_prepend(str(third))
    with pytest.raises(CoreError, match=r"several entry points of urban_reid\.backbones are named 'twice'"):
        build_backbone("twice")


def test_the_core_computes_what_the_model_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its BatchNorm is computed before the convolution that it is declared behind: folding would be wrong."""
    monkeypatch.syspath_prepend(str(install_backbone(tmp_path / "site")))
    torch.manual_seed(0)
    model = build_model(ModelConfig(architecture="mynet", input=INPUT)).eval()
    norm: Any = model.backbone.get_submodule("net.norm")
    for tensor in (norm.weight.data, norm.running_var):
        tensor.uniform_(0.5, 1.5)
    norm.running_mean.normal_()
    save_model(model, tmp_path / "m", name="own")
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 16, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = load_model(tmp_path / "m")(normalized(torch.from_numpy(pictures), INPUT)).numpy()
    core = LocalCore.open(Settings(home=tmp_path, device="cpu", precision="float32"), tmp_path / "m")
    np.testing.assert_allclose(core.embed(pictures), expected, rtol=1e-4, atol=1e-5)


def test_a_model_folder_of_a_backbone_that_is_not_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as path:
        path.syspath_prepend(str(install_backbone(tmp_path / "site")))
        save_model(build_model(ModelConfig(architecture="mynet", input=INPUT)), tmp_path / "m", name="own")
    backbones._registered.clear()
    with pytest.raises(ModelFileError, match=r"card.json: no architecture 'mynet'.*register_backbone\('mynet'\)"):
        load_model(tmp_path / "m")


def test_its_published_weights_are_converted_and_loaded(tmp_path: Path) -> None:
    register_backbone("mean")(Mean)
    torch.save({"scale": torch.full((3, 1, 1), 2.0), "fc.weight": torch.zeros(2, 3)}, tmp_path / "mean.pth")
    converted = convert_weights(tmp_path / "mean.pth", "mean", tmp_path / "mean.safetensors")
    assert converted.tensors == ("scale",) and converted.dropped == ("fc.weight",)
    assert read_tensors(tmp_path / "mean.safetensors")["scale"].flatten().tolist() == [2.0] * 3
    model = build_model(ModelConfig(architecture="mean"), pretrained=tmp_path / "mean.safetensors")
    assert model.backbone.get_parameter("net.scale").flatten().tolist() == [2.0] * 3
    with pytest.raises(CoreError, match="mean has no ImageNet weights to download; give a local safetensors file"):
        build_model(ModelConfig(architecture="mean"), pretrained="imagenet")
