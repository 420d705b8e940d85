"""The methods that the paper compares with: their shapes and sizes, their parts, their published weights.

Numbers of parameters are the papers' where they state one. Otherwise they follow from the networks' own: ResNet-50 has
25,557,032 and timm's vit_base_patch16_224 86,567,656, each with a classifier of 1,000 classes (torchvision, timm).
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from reid_core.backbones.granularities import Granularities
from reid_core.backbones.jigsaw import CAMERA_WEIGHT, SHIFT, Jigsaw
from reid_core.datasets.person_pictures import PersonPictures
from reid_core.evaluation.evaluate import features_of
from reid_core.export.export import PARITY, export_model
from reid_core.files import load_model, read_card, save_model
from reid_core.heads import Features, stripes
from reid_core.models import ReIDModel, build_model
from reid_core.serving.local import LocalCore
from reid_core.training.methods import METHODS
from schemas.cards import Baseline, DiffAttentionSettings, InputConvention, ModelConfig
from schemas.errors import UsageError
from schemas.settings import Settings
from synthetic.training import training_set
from tests.helpers.networks import trained

SMALL = InputConvention(height=64, width=32)
TINY_VIT = "timm:vit_tiny_patch16_224"
RESNET50 = 25_557_032 - 2_049_000  # without its classifier
VIT = 86_567_656 - 769_000
OTHERS: tuple[Baseline, ...] = ("trinet", "pcb", "mgn", "cbn", "transreid")


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(baseline: Baseline, classes: int | None = None, **changes: Any) -> ReIDModel:
    torch.manual_seed(0)
    architecture = TINY_VIT if baseline == "transreid" else "resnet10s"
    cameras = (2, 5) if baseline == "transreid" else ()
    config = {"architecture": architecture, "baseline": baseline, "input": SMALL, "cameras": cameras}
    return build_model(ModelConfig(**{**config, **changes}), num_classes=classes)


def published(baseline: Baseline, classes: int | None = None, cameras: tuple[int, ...] = ()) -> ReIDModel:
    method = METHODS[baseline]
    with torch.device("meta"):
        return build_model(
            ModelConfig(architecture=method.architecture, baseline=baseline, input=method.input, cameras=cameras),
            num_classes=classes,
        )


def test_trinet_has_its_papers_25_74_million_parameters() -> None:
    """Hermans et al., section 4.2: 'TriNet [...] 25.74 M parameters'."""
    assert round(parameters(published("trinet")) / 1e6, 2) == 25.74


def test_pcb_is_a_resnet_with_six_reductions_and_classifiers() -> None:
    reduction, classifier = 2048 * 256 + 2 * 256, 256 * 751 + 751
    assert parameters(published("pcb", 751)) == RESNET50 + 6 * (reduction + classifier)


def test_mgn_has_three_ends_of_a_resnet() -> None:
    """Section 3.1: what follows res_conv4_1 is there three times; 8 reductions to 256; 3 classifiers see 2,048."""
    end = 5 * 1_117_184 + 14_964_736  # five blocks of res_conv4 and res_conv5, by torchvision's ResNet-50
    with torch.device("meta"):
        from torchvision.models import resnet50

        theirs = resnet50()
    assert end == parameters(theirs.layer3[1:]) + parameters(theirs.layer4)
    heads = 8 * (2048 * 256 + 2 * 256) + 3 * (2048 * 751 + 751) + 5 * (256 * 751 + 751)
    assert parameters(published("mgn", 751)) == RESNET50 + 2 * end + heads


def test_transreid_is_a_transformer_with_its_last_block_twice() -> None:
    block, norm, bnneck = 7_087_872, 2 * 768, 2 * 768
    positions = (16 * 8 - 14 * 14) * 768  # 256x128 in place of 224x224
    assert parameters(published("transreid", cameras=tuple(range(6)))) == (
        VIT + block + norm + positions + 6 * 768 + 5 * bnneck
    )


@pytest.mark.parametrize(("baseline", "dims"), [("trinet", 128), ("pcb", 6 * 256), ("mgn", 8 * 256), ("cbn", 2048),
                                               ("transreid", 5 * 768)])  # fmt: skip
def test_the_width_of_the_published_feature(baseline: Baseline, dims: int) -> None:
    model = published(baseline)
    images = torch.empty(2, 3, model.config.input.height, model.config.input.width, device="meta")
    assert model.dims == dims and model.eval()(images).shape == (2, dims)


def test_pcb_averages_six_stripes_of_24_rows() -> None:
    """Sun et al., section 3.1: a map of 24x8 at 384x128."""
    model = published("pcb")
    assert model.backbone(torch.empty(1, 3, 384, 128, device="meta")).shape == (1, 2048, 24, 8)
    maps = torch.randn(2, 5, 24, 8)
    found = small("pcb").pool(maps).view(2, 6, 5)
    for part in range(6):
        torch.testing.assert_close(found[:, part], maps[:, :, 4 * part : 4 * part + 4].mean(dim=(2, 3)))
    rows = torch.arange(8.0).view(1, 1, 8, 1)
    assert [part.flatten().tolist() for part in stripes(rows, 3)] == [[0, 1, 2], [2, 3, 4, 5], [5, 6, 7]]


@pytest.mark.parametrize("baseline", OTHERS)
def test_every_part_learns(baseline: Baseline) -> None:
    model = small(baseline, 5).train()
    images, cameras = torch.randn(8, 3, 64, 32), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    features = model.features(images, cameras)
    assert isinstance(features, Features)
    assert features.pre_bn.shape == features.post_bn.shape == (8, model.dims)
    if baseline == "trinet":
        assert features.logits is None
    else:
        assert features.logits is not None and features.logits.view(8, model.neck.parts, 5).shape[1] >= 1
    total = features.pre_bn.square().sum() + (0 if features.logits is None else features.logits.square().sum())
    total.backward()  # type: ignore[no-untyped-call]
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert all(name.endswith("bn.bias") for name in without), without


@pytest.mark.parametrize("baseline", OTHERS)
def test_saved_without_classifiers_and_loaded(baseline: Baseline, tmp_path: Path) -> None:
    model = trained(small(baseline, 5))
    save_model(model, tmp_path, name="m")
    loaded = load_model(tmp_path)
    assert not [name for name in loaded.state_dict() if "classifier" in name]
    assert read_card(tmp_path).dims == model.dims and loaded.config == model.config
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model(images))


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    torch.manual_seed(1)
    net = trained(resnet18())
    path = tmp_path_factory.mktemp("resnet") / "resnet18.safetensors"
    save_file(net.state_dict(), path)
    return path, net


@pytest.mark.parametrize(("baseline", "stride"), [("trinet", 2), ("pcb", 1), ("cbn", 1)])
def test_published_resnets_load(baseline: Baseline, stride: int, resnet_file: tuple[Path, Any]) -> None:
    path, theirs = resnet_file
    config = ModelConfig(architecture="resnet18", baseline=baseline, input=SMALL)
    model = build_model(config, pretrained=path).eval()
    images = torch.randn(1, 3, 64, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model.backbone(images), maps_of(theirs, images, stride), rtol=1e-4, atol=1e-4)


def maps_of(theirs: Any, images: Tensor, stride: int) -> Tensor:
    """The last maps of torchvision's ResNet-18 with another last stride."""
    theirs.layer4[0].conv1.stride = theirs.layer4[0].downsample[0].stride = (stride, stride)
    maps = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    found: Tensor = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(maps))))
    return found


def test_mgns_branches_begin_with_the_published_weights_and_keep_or_lose_the_last_stride(
    resnet_file: tuple[Path, Any],
) -> None:
    path, theirs = resnet_file
    config = ModelConfig(architecture="resnet18", baseline="mgn", input=SMALL)
    model = build_model(config, pretrained=path).eval()
    assert isinstance(model.backbone, Granularities)
    images = torch.randn(2, 3, 96, 32)
    with torch.inference_mode():
        found = model.backbone(images).view(2, 8, 512)
        small_map, large_map = maps_of(theirs, images, 2), maps_of(theirs, images, 1)
    assert large_map.shape[2:] == (6, 2)
    expected = [small_map, large_map, large_map, large_map[:, :, :3], large_map[:, :, 3:]]
    expected += [large_map[:, :, start : start + 2] for start in (0, 2, 4)]
    for part, maps in enumerate(expected):
        torch.testing.assert_close(found[:, part], maps.amax(dim=(2, 3)), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def transformer() -> Any:
    torch.manual_seed(2)
    return timm.create_model(TINY_VIT.removeprefix("timm:"), img_size=(64, 32)).eval()


def test_transreids_whole_picture_is_timms_class_token(transformer: Any, tmp_path: Path) -> None:
    save_file(transformer.state_dict(), tmp_path / "vit.safetensors")
    config = ModelConfig(architecture=TINY_VIT, baseline="transreid", input=SMALL)
    model = build_model(config, pretrained=tmp_path / "vit.safetensors").eval()
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        found = model.backbone(images).view(2, 5, -1)
        torch.testing.assert_close(found[:, 0], transformer.forward_features(images)[:, 0])
        # Both last blocks begin alike: a group is the class token of a transformer whose last block sees it alone.
        tokens = transformer.blocks[:-1](transformer._pos_embed(transformer.patch_embed(images)))
        for part, rows in enumerate(model.get_buffer("backbone.groups"), start=1):
            chosen = torch.cat([tokens[:, :1], tokens[:, 1 + rows]], dim=1)
            torch.testing.assert_close(found[:, part], transformer.norm(transformer.blocks[-1](chosen))[:, 0])


def test_the_groups_are_shifted_and_shuffled() -> None:
    """He et al., section 3.2, by its own steps on the 128 patches of 256x128; then a number that 4 does not divide."""
    groups = published("transreid").get_buffer("backbone.groups")
    assert groups.shape == (4, 32)
    with torch.device("cpu"):
        from reid_core.backbones.jigsaw import _groups

        found = _groups(128)
        shifted = [*range(SHIFT, 128), *range(SHIFT)]
        shuffled = [shifted[row * 32 + column] for column in range(32) for row in range(4)]
        assert found.flatten().tolist() == shuffled
        rows = found // 8  # of the grid
        assert all(int(its.max() - its.min()) > 11 for its in rows), "a group sees the whole height"
        assert set(_groups(18).flatten().tolist()) == set(range(18)) and _groups(18).shape == (4, 5)


def test_a_camera_adds_its_embedding_and_an_unknown_one_the_mean() -> None:
    model = small("transreid").eval()
    backbone = model.backbone
    assert isinstance(backbone, Jigsaw)
    nn.init.normal_(backbone.camera_embeddings)
    rows = model.camera_rows(np.array([5, 2, 9, 5]))
    assert rows.tolist() == [1, 0, -1, 1]
    images = torch.randn(1, 3, 64, 32).expand(4, -1, -1, -1)
    with torch.inference_mode():
        found = model.features(images, torch.from_numpy(rows)).post_bn
        unknown = model(images)
        for row, camera in ((0, 1), (1, 0)):
            only = small("transreid").eval()
            only.load_state_dict(model.state_dict())
            assert isinstance(only.backbone, Jigsaw)
            only.backbone.pos_embed += CAMERA_WEIGHT * backbone.camera_embeddings[camera]
            only.backbone.camera_embeddings.zero_()
            torch.testing.assert_close(found[row], only(images[:1])[0])
    torch.testing.assert_close(found[2], unknown[0])
    assert (found[0] - found[1]).abs().max() > 0.1 and (found[0] - unknown[0]).abs().max() > 0.01


def test_cbn_takes_away_what_a_camera_multiplies() -> None:
    """A camera's brightness and contrast change no feature in training, where BatchNorm would keep them."""
    model = small("cbn").train()
    images = torch.randn(12, 3, 64, 32)
    cameras = torch.tensor([0, 1] * 6)
    darker = torch.where((cameras == 1)[:, None, None, None], images * 0.4, images)
    with torch.no_grad():
        one, other = (model.features(its, cameras).post_bn for its in (images, darker))
        torch.testing.assert_close(one, other, rtol=0.01, atol=0.01)
        assert (model.features(images).post_bn - model.features(darker).post_bn).abs().max() > 0.1
        # Cameras of few pictures are normalized together, and each row comes back to its place.
        few = torch.tensor([0] * 8 + [1, 2, 3, 3])
        found = model.features(images, few).post_bn
        torch.testing.assert_close(found[:8], model.features(images[:8]).post_bn)
        torch.testing.assert_close(found[8:], model.features(images[8:]).post_bn)
        assert model.features(images[:4], torch.tensor([0, 1, 2, 3])).post_bn.shape == (4, model.dims)
        assert model.features(images[:5], torch.tensor([0, 0, 0, 0, 1])).post_bn.shape == (5, model.dims)


def test_data_sets_are_embedded_camera_by_camera(tmp_path: Path) -> None:
    """Of a CBN model: a darker camera hardly changes the features, where its running statistics let it."""
    people = training_set(5, 48, 2, (SMALL.height, SMALL.width))
    cameras = np.arange(96) % 2
    darker = np.where((cameras == 1)[:, None, None, None], people.pictures * 0.7, people.pictures).astype(np.uint8)
    both = [PersonPictures(pictures, people.identities, cameras) for pictures in (people.pictures, darker)]
    settings = Settings(device="cpu", precision="float32")
    cosines = {}
    for baseline in ("cbn", "bagtricks"):
        model = small(baseline)
        with torch.no_grad():
            for _ in range(3):
                model.train()(torch.from_numpy(people.pictures[:64].transpose(0, 3, 1, 2)).float() / 64 - 2)
        save_model(model, tmp_path / baseline, name="m")
        one, other = (features_of(settings, tmp_path / baseline, [side])[0][cameras == 1] for side in both)
        cosines[baseline] = torch.cosine_similarity(one, other).mean().item()
    assert cosines["cbn"] > 0.9 > cosines["bagtricks"] + 0.1, cosines
    # A camera with a handful of pictures keeps the statistics of training, as every camera of a city does.
    few = both[0].select(np.arange(8))
    (found,) = features_of(settings, tmp_path / "cbn", [few])
    np.testing.assert_array_equal(found, LocalCore.open(settings, tmp_path / "cbn").embed(few.pictures))


def test_transreid_embeds_a_data_sets_cameras_with_their_embeddings(tmp_path: Path) -> None:
    model = small("transreid").eval()
    nn.init.normal_(model.get_parameter("backbone.camera_embeddings"))
    save_model(model, tmp_path, name="m")
    assert read_card(tmp_path).cameras == (2, 5)
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 32, 3), dtype=np.uint8)
    side = PersonPictures(pictures, np.arange(3), np.array([5, 7, 2]))
    settings = Settings(device="cpu", precision="float32")
    (found,) = features_of(settings, tmp_path, [side])
    core = LocalCore.open(settings, tmp_path)
    assert np.abs(core.embed(pictures[:1]) - found[:1].numpy()).max() > 0.01
    np.testing.assert_array_equal(core.embed(pictures)[1], found[1].numpy())
    (unknown,) = features_of(settings, tmp_path, [side], known_cameras=False)
    np.testing.assert_array_equal(core.embed(pictures), unknown)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize("baseline", OTHERS)
def test_exports_are_the_same_model(baseline: Baseline, to: Literal["onnx", "openvino"], tmp_path: Path) -> None:
    save_model(trained(small(baseline, diff_attention=DiffAttentionSettings())), tmp_path / "m", name="m")
    settings = Settings(home=tmp_path, device="cpu", precision="float32")
    exported = export_model(settings, tmp_path / "m", tmp_path / to, to)
    assert min(exported.cosines.values()) >= PARITY and exported.card.baseline == baseline
    # A file of another engine knows no cameras, and data sets are embedded with it as they are.
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 32, 3), dtype=np.uint8)
    side = PersonPictures(pictures, np.arange(3), np.array([5, 7, 2]))
    (found,) = features_of(settings, tmp_path / to, [side])
    (expected,) = features_of(settings, tmp_path / "m", [side], known_cameras=False)
    assert torch.cosine_similarity(found, expected).min() >= PARITY


@pytest.mark.parametrize(
    ("baseline", "architecture", "why"),
    [
        ("pcb", "osnet_x0_25", "nothing of PCB remains"),
        ("mgn", "mobilenet_v2", "last blocks of a ResNet, which mobilenet_v2 is not"),
        ("transreid", "resnet10s", "one of timm's vision transformers"),
        ("transreid", "timm:xcit_nano_12_p16_224", "one of timm's vision transformers"),
        ("transreid", "vit_b_16", "one of timm's vision transformers"),
    ],
)
def test_backbones_that_a_method_cannot_use(baseline: Baseline, architecture: str, why: str) -> None:
    with pytest.raises(UsageError, match=why), torch.device("meta"):
        build_model(ModelConfig(architecture=architecture, baseline=baseline, input=SMALL))
