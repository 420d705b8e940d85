"""The models against the paper's shapes and initializations. Backbones have their own tests."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from reid_core.backbones.resnet import NonLocal
from reid_core.heads import BNNeck, Features, GeM
from reid_core.models import ReIDModel, build_model
from schemas.cards import DiffAttentionSettings, ModelConfig
from schemas.errors import ModelFileError, UsageError


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def blocks(model: ReIDModel) -> dict[str, NonLocal]:
    prefix = "backbone.non_local."
    return {
        name.removeprefix(prefix): block
        for name, block in model.named_modules()
        if name.startswith(prefix) and isinstance(block, NonLocal)
    }


def test_the_small_backbone() -> None:
    model = build_model(ModelConfig(architecture="resnet10s"))
    assert model.dims == 256 and 1_200_000 < parameters(model.backbone) < 1_300_000


@pytest.mark.parametrize(
    ("architecture", "baseline"), [("resnet50", "agw"), ("resnet18", "bagtricks"), ("resnet10s", "agw")]
)
def test_training_returns_all_features_and_eval_the_post_bn(
    architecture: str, baseline: Literal["bagtricks", "agw"]
) -> None:
    model = build_model(ModelConfig(architecture=architecture, baseline=baseline), num_classes=5)
    images = torch.randn(3, 3, 32, 16)
    features = model.train()(images)
    assert isinstance(features, Features) and features.logits is not None
    assert features.pre_bn.shape == features.post_bn.shape == (3, model.dims) and features.logits.shape == (3, 5)
    features.logits.sum().backward()  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), model.features(images).post_bn)


@pytest.mark.parametrize(
    ("architecture", "places"),
    [
        ("resnet50", ["layer2_2", "layer2_3", "layer3_3", "layer3_4", "layer3_5"]),
        ("resnet34", ["layer2_2", "layer2_3", "layer3_3", "layer3_4", "layer3_5"]),
        ("resnet18", ["layer2_0", "layer2_1", "layer3_0", "layer3_1"]),
        ("resnet10s", ["layer2_0", "layer3_0"]),
    ],
)
def test_agw_has_the_papers_non_local_blocks(architecture: str, places: list[str]) -> None:
    with torch.device("meta"):
        model = build_model(ModelConfig(architecture=architecture, baseline="agw"))
        plain = build_model(ModelConfig(architecture=architecture))
        wider = build_model(ModelConfig(architecture=architecture, baseline="agw", non_local_channels=3))
    assert list(blocks(model)) == places
    assert not blocks(plain)
    assert {block.theta.out_channels for block in blocks(model).values()} == {1}
    assert {block.g.out_channels for block in blocks(wider).values()} == {3}


def test_non_local_is_the_dot_product_form_and_initially_the_identity() -> None:
    torch.manual_seed(0)
    block = NonLocal(6, inner_channels=2).double().eval()
    maps = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    assert torch.equal(block(maps), maps)
    torch.nn.init.normal_(block.bn.weight)
    theta, phi, g = (layer(maps).flatten(2) for layer in (block.theta, block.phi, block.g))  # (2, 2, 12)
    attention = theta.transpose(1, 2) @ phi / 12  # (2, 12, 12), over positions
    mixed = (attention @ g.transpose(1, 2)).transpose(1, 2).unflatten(2, (4, 3))
    assert torch.allclose(block(maps), maps + block.bn(block.out(mixed)), atol=1e-12)


def test_gem_is_the_mean_for_p_1_and_nears_the_maximum_for_large_p() -> None:
    maps = torch.rand(2, 5, 4, 3) + 0.1
    assert GeM().p.item() == 3.0 and parameters(GeM()) == 1
    assert torch.allclose(GeM(p=1.0)(maps), maps.mean(dim=(2, 3)))
    assert torch.allclose(GeM(p=200.0)(maps), maps.amax(dim=(2, 3)), rtol=0.02)
    assert torch.allclose(GeM()(torch.full((1, 1, 2, 2), -1.0)), torch.tensor(1e-6))


def test_the_neck_has_a_frozen_bias_and_a_small_classifier_without_bias() -> None:
    torch.manual_seed(0)
    neck = build_model(ModelConfig(architecture="resnet18"), num_classes=751).neck
    assert isinstance(neck, BNNeck)
    assert not neck.bn.bias.requires_grad and not neck.bn.bias.any() and neck.bn.weight.requires_grad
    assert neck.classifier is not None and list(dict(neck.classifier.named_parameters())) == ["weight"]
    assert neck.classifier.weight.std().item() == pytest.approx(0.001, rel=0.01)


@pytest.mark.parametrize(("architecture", "dims"), [("resnet50", 2048), ("resnet10s", 256)])
@pytest.mark.parametrize("reduction", [4, 16])
def test_the_number_of_the_modules_parameters(architecture: str, dims: int, reduction: int) -> None:
    settings = DiffAttentionSettings(reduction=reduction)
    with torch.device("meta"):
        module = build_model(ModelConfig(architecture=architecture, diff_attention=settings)).diff_attention
    assert module is not None and parameters(module) == 2 * dims * (dims // reduction) + 4


def test_weights_of_another_network_are_an_error(tmp_path: Path) -> None:
    save_file(resnet18().state_dict(), tmp_path / "resnet18.safetensors")
    with pytest.raises(ModelFileError, match="not this backbone"):
        build_model(ModelConfig(architecture="resnet34"), pretrained=tmp_path / "resnet18.safetensors")
    with pytest.raises(ModelFileError, match="other shapes"):
        build_model(ModelConfig(architecture="resnet50"), pretrained=tmp_path / "resnet18.safetensors")


def test_logits_are_float32_under_autocast() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(architecture="resnet10s"), num_classes=751).train()
    assert isinstance(model.neck, BNNeck) and model.neck.classifier is not None
    torch.nn.init.normal_(model.neck.classifier.weight)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.features(torch.randn(4, 3, 32, 16))
    assert features.logits is not None
    assert {feature.dtype for feature in features if feature is not None} == {torch.float32}
    assert torch.equal(features.logits, model.neck.classifier(features.post_bn))


def test_an_unknown_architecture_is_an_error() -> None:
    with pytest.raises(UsageError, match="no architecture 'vit'; there are resnet50"):
        build_model(ModelConfig(architecture="vit"))
