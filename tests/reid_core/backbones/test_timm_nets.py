"""timm's networks by name: their outputs, their published weights, and what is refused."""

import sys

import pytest
import torch

from reid_core.backbones import build_backbone
from reid_core.backbones.weights import load_published
from schemas.errors import CoreError, UsageError

timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "dims", "shape"),
    [
        ("resnet10t", 512, (8, 4)),  # strides as published: 32
        ("convnext_atto", 320, (8, 4)),
        ("vit_tiny_patch16_224", 192, (1, 1)),
        ("xcit_nano_12_p16_224", 128, (1, 1)),
    ],
)
def test_the_output_is_a_map_or_a_vector(name: str, dims: int, shape: tuple[int, int]) -> None:
    backbone = build_backbone(f"timm:{name}").eval()
    assert backbone.dims == dims and backbone.pooled == (shape == (1, 1))
    with torch.inference_mode():
        assert backbone(torch.randn(2, 3, 256, 128)).shape == (2, dims, *shape)


def test_a_transformer_loads_its_published_weights_for_224x224() -> None:
    torch.manual_seed(0)
    published = timm.create_model("vit_tiny_patch16_224").eval()
    ours = build_backbone("timm:vit_tiny_patch16_224", size=(224, 224)).eval()
    load_published(ours, published.state_dict(), "theirs")
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        token = published.forward_features(images)[:, 0]
        torch.testing.assert_close(ours(images)[:, :, 0, 0], token)
    narrow = build_backbone("timm:vit_tiny_patch16_224", size=(256, 128))
    load_published(narrow, published.state_dict(), "theirs")
    positions = timm.layers.resample_abs_pos_embed(published.pos_embed, [16, 8])
    torch.testing.assert_close(narrow.get_parameter("net.pos_embed").data, positions)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("osnet", "has no model 'osnet'"),
        ("resnet18.none", "has no model 'resnet18.none'"),
        ("hf-hub:timm/resnet18", "has no model 'hf-hub:timm/resnet18'"),  # not looked up on the hub
        ("local-dir:/etc", "has no model 'local-dir:/etc'"),
        ("naflexvit_base_patch16_gap", "neither"),
    ],
)
def test_names_that_are_no_backbone(name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why), torch.device("meta"):
        build_backbone(f"timm:{name}")


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(CoreError, match=r"timm:resnet18 needs the extra 'timm': pip install 'urban-reid\[timm\]'"):
        build_backbone("timm:resnet18")
