"""Every family of backbones: compared with published implementations and numbers, folded, and trained."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet, VisionTransformer, get_model, get_model_weights
from torchvision.models.resnet import BasicBlock as TheirBasicBlock
from torchvision.models.resnet import Bottleneck as TheirBottleneck

from reid_core.backbones import ARCHITECTURES, TORCHVISION, build_backbone
from reid_core.backbones.osnet import OSNETS
from reid_core.backbones.resnet import RESNETS, BasicBlock, Bottleneck, Shape
from reid_core.backbones.torchvision_nets import ClassToken
from reid_core.backbones.weights import load_published
from reid_core.models import build_model
from reid_core.serving.local import fold_batch_norms
from schemas.cards import InputConvention, ModelConfig
from schemas.errors import ModelFileError, UsageError
from tests.helpers.networks import trained

CLASSIFIERS = ("fc.", "classifier.", "heads.")
#: Large networks, built by the same code as smaller ones of their families.
SAME_LINES = {*(f"efficientnet_b{number}" for number in range(2, 8)), "efficientnet_v2_m", "efficientnet_v2_l"}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("architecture", sorted({*RESNETS, *TORCHVISION} - {"resnet10s"} - SAME_LINES))
def test_names_shapes_and_counts_are_torchvisions_own(architecture: str) -> None:
    with torch.device("meta"):
        ours, theirs = build_backbone(architecture), get_model(architecture, weights=None)
    published = get_model_weights(architecture)["IMAGENET1K_V1"].meta["num_params"]
    classifier = sum(tensor.numel() for name, tensor in theirs.named_parameters() if name.startswith(CLASSIFIERS))
    mine = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    expected = {name: tensor.shape for name, tensor in theirs.state_dict().items() if not name.startswith(CLASSIFIERS)}
    positions = "encoder.pos_embedding"
    if positions in expected:  # for 256x128 instead of 224x224
        side = theirs.patch_size
        assert mine.pop(positions)[1] == 1 + 256 // side * 128 // side
        published -= expected.pop(positions).numel() - ours.get_parameter(positions).numel()
    assert mine == expected
    assert parameters(ours) + classifier == published


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in SAME_LINES])
def test_the_shape_of_the_output(architecture: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(architecture, size=(64, 32)).eval()
        found = backbone(torch.empty(2, 3, 64, 32))
    stride = 8 if architecture == "resnet10s" else 16  # half of the published 32
    rows, columns = (1, 1) if backbone.pooled else (64 // stride, 32 // stride)
    assert found.shape == (2, backbone.dims, rows, columns)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Shape(BasicBlock, (1, 1, 1, 2)), lambda: ResNet(TheirBasicBlock, [1, 1, 1, 2])),
        (Shape(Bottleneck, (1, 2, 1, 1)), lambda: ResNet(TheirBottleneck, [1, 2, 1, 1])),
        (
            Shape(Bottleneck, (1, 1, 1, 1), groups=32, group_width=4),
            lambda: ResNet(TheirBottleneck, [1, 1, 1, 1], groups=32, width_per_group=4),
        ),
        (
            Shape(Bottleneck, (1, 1, 1, 1), group_width=128),
            lambda: ResNet(TheirBottleneck, [1, 1, 1, 1], width_per_group=128),
        ),
    ],
    ids=["basic", "bottleneck", "grouped", "wide"],
)
def test_resnets_of_every_block_compute_what_torchvisions_do(
    monkeypatch: pytest.MonkeyPatch, ours: Shape, theirs: Callable[[], ResNet]
) -> None:
    monkeypatch.setitem(RESNETS, "small", ours)
    torch.manual_seed(0)
    expected = trained(theirs())
    assert isinstance(expected, ResNet)
    # Our last stage keeps its resolution.
    for layer in expected.layer4[0].modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
    backbone = build_backbone("small", non_local_channels=1).eval()  # non-local blocks start as the identity
    load_published(backbone, expected.state_dict(), "theirs")
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        maps = expected.maxpool(expected.relu(expected.bn1(expected.conv1(images))))
        maps = expected.layer4(expected.layer3(expected.layer2(expected.layer1(maps))))
        torch.testing.assert_close(backbone(images), maps, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "last"),
    [
        ("mobilenet_v2", "14.conv.1.0"),
        ("mobilenet_v3_small", "9.block.1.0"),
        ("mobilenet_v3_large", "13.block.1.0"),
        ("efficientnet_b0", "6.0.block.1.0"),
    ],
)
def test_torchvisions_networks_differ_only_in_the_last_stride(architecture: str, last: str) -> None:
    torch.manual_seed(0)
    theirs: Any = trained(get_model(architecture, weights=None))
    ours = build_backbone(architecture).eval()
    load_published(ours, theirs.state_dict(), "theirs")
    convolution = theirs.features.get_submodule(last)
    assert convolution.stride == (2, 2)
    convolution.stride = (1, 1)
    images = torch.randn(1, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs.features(images))


def small_transformer(seed: int = 0) -> VisionTransformer:
    torch.manual_seed(seed)
    net = VisionTransformer(image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16)
    nn.init.normal_(net.class_token)
    return net.eval()


def test_a_transformer_returns_the_class_token_as_torchvisions_does() -> None:
    theirs = small_transformer()
    ours = ClassToken(small_transformer(seed=1), (64, 64)).eval()
    load_published(ours, theirs.state_dict(), "theirs")
    theirs.heads = nn.Identity()
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images)[:, :, 0, 0], theirs(images))
    with pytest.raises(AssertionError, match=r"pictures of \(32, 64\), not \(64, 64\)"):
        ours(images[:, :, :32])


def test_a_transformer_takes_batches_of_any_size_when_it_is_exported() -> None:
    """`len(images)` in its forward pass made the example's two pictures a constant: no ONNX, no OpenVINO file."""
    ours = ClassToken(small_transformer(), (64, 64)).eval()
    program = torch.export.export(ours, (torch.zeros(2, 3, 64, 64),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(images), ours(images))


def test_positions_are_interpolated_to_the_inputs_grid() -> None:
    from timm.layers.pos_embed import resample_abs_pos_embed

    weights = small_transformer().state_dict()
    ours = ClassToken(small_transformer(seed=1), (128, 64))
    load_published(ours, weights, "theirs")
    positions = ours.encoder.pos_embedding
    published = weights["encoder.pos_embedding"]
    assert positions.shape == (1, 1 + 8 * 4, 8) and torch.equal(positions[:, 0], published[:, 0])
    torch.testing.assert_close(positions.data, resample_abs_pos_embed(published, [8, 4]))
    for other, shape in ((published[:, :-2], r"\(1, 15, 8\)"), (published[0, 0], r"\(8,\)")):
        weights["encoder.pos_embedding"] = other
        with pytest.raises(ModelFileError, match=f"theirs: its position embeddings of shape {shape}"):
            load_published(ours, weights, "theirs")


def test_a_size_that_patches_do_not_cover_is_refused() -> None:
    with pytest.raises(UsageError, match="250x120 cannot be cut into patches of 16x16"):
        ClassToken(small_transformer(), (250, 120))


@pytest.mark.parametrize(
    ("architecture", "published"),
    [("osnet_x1_0", 2.2), ("osnet_x0_75", 1.3), ("osnet_x0_5", 0.6), ("osnet_x0_25", 0.2), ("osnet_ain_x1_0", 2.2)],
)
def test_osnets_have_the_papers_millions_of_parameters(architecture: str, published: float) -> None:
    with torch.device("meta"):
        assert round(parameters(build_backbone(architecture)) / 1e6, 1) == published


def test_osnets_have_torchreids_names() -> None:
    """A few published names of each kind, and no other kind."""
    with torch.device("meta"):
        plain, ain = (list(build_backbone(name).state_dict()) for name in ("osnet_x1_0", "osnet_ain_x1_0"))
    for name in (
        "conv1.conv.weight",
        "conv1.bn.running_var",
        "conv2.0.conv1.conv.weight",
        "conv2.0.conv2a.conv1.weight",
        "conv2.0.conv2a.bn.bias",
        "conv2.1.conv2d.3.conv2.weight",
        "conv2.0.gate.fc1.weight",
        "conv2.0.gate.fc2.bias",
        "conv2.0.conv3.bn.weight",
        "conv2.0.downsample.conv.weight",
        "conv2.2.0.conv.weight",
        "conv4.1.conv3.bn.running_mean",
        "conv5.bn.weight",
        "fc.0.bias",
        "fc.1.running_var",
    ):
        assert name in plain
    for name in ("conv2.0.conv2.3.layers.3.bn.weight", "conv2.0.IN.weight", "pool2.0.bn.weight", "pool3.0.conv.weight"):
        assert name in ain and name not in plain
    assert {name.split(".")[0] for name in plain} == {"conv1", "conv2", "conv3", "conv4", "conv5", "fc"}
    assert {name.split(".")[0] for name in ain} == {*(name.split(".")[0] for name in plain), "pool2", "pool3"}
    # These blocks have an instance normalization in their residual (architecture search).
    instance = [name.removesuffix(".IN.weight") for name in ain if name.endswith(".IN.weight")]
    assert instance == ["conv2.0", "conv2.1", "conv3.1", "conv4.0"] and "conv1.bn.running_mean" not in ain


def test_osnets_gate_weighs_each_stream_with_one_set_of_weights() -> None:
    torch.manual_seed(0)
    block: Any = trained(build_backbone("osnet_x0_25")).get_submodule("conv2.1")
    maps = torch.randn(2, 64, 6, 3)
    with torch.inference_mode():
        narrow = block.conv1(maps)
        mixed = torch.zeros_like(narrow)
        for stream in (block.conv2a, block.conv2b, block.conv2c, block.conv2d):
            found = stream(narrow)
            hidden = (block.gate.fc1.weight[:, :, 0, 0] @ found.mean(dim=(2, 3)).T).T + block.gate.fc1.bias
            weights = (block.gate.fc2.weight[:, :, 0, 0] @ hidden.relu().T).T + block.gate.fc2.bias
            mixed += weights.sigmoid()[:, :, None, None] * found
        torch.testing.assert_close(block(maps), torch.relu(maps + block.conv3(mixed)))


@pytest.mark.parametrize(
    "architecture",
    [
        "resnet10s",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "osnet_x0_25",
        "osnet_ain_x0_25",
        "timm:resnet10t",
        "timm:mobilenetv3_small_050",
        "timm:efficientvit_m0",
    ],
)
def test_folding_changes_rounding_only(architecture: str) -> None:
    """Also for timm's MobileNet, whose BatchNorm includes the activation and must stay."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    backbone = trained(build_backbone(architecture, size=(64, 64))).double()
    with torch.inference_mode():
        before = backbone(images)
        fold_batch_norms(backbone)
        after: Tensor = backbone(images)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9 * before.abs().max().item())
    assert before.std() > 0
    if not architecture.startswith("timm:"):  # some of its BatchNorms do not directly follow a convolution, and stay
        assert not [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("architecture", ["osnet_x0_25", "mobilenet_v3_small", "timm:resnet10t"])
def test_a_model_on_it_trains_and_embeds(architecture: str) -> None:
    torch.manual_seed(0)
    convention = InputConvention(height=64, width=32)
    model = build_model(ModelConfig(architecture=architecture, input=convention), num_classes=3)
    images = torch.randn(4, 3, 64, 32)
    features = model.train()(images)
    nn.functional.cross_entropy(features.logits, torch.tensor([0, 1, 2, 2])).backward()  # type: ignore[no-untyped-call]
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == ["neck.bn.bias"]
    with torch.inference_mode():
        assert model.eval()(images).shape == (4, model.dims)


def test_agw_is_the_generalized_mean_on_maps_and_refused_on_vectors() -> None:
    with torch.device("meta"):
        model = build_model(ModelConfig(architecture="mobilenet_v2", baseline="agw"))
        assert [name for name, _ in model.named_parameters() if "pool" in name] == ["pool.p"]
        for architecture in ("vit_b_16", next(iter(OSNETS))):
            with pytest.raises(UsageError, match=f"{architecture} pools by itself.*take bagtricks"):
                build_model(ModelConfig(architecture=architecture, baseline="agw"))


def test_importing_the_models_imports_neither_torchvision_nor_timm() -> None:
    code = "import sys, reid_core.models; print([m for m in ('torchvision', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"
