"""Published weights: converted from a pickle that may hold anything, and loaded from a file or a download."""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torchvision.models import ResNet18_Weights, resnet18

from reid_core.backbones import build_backbone
from reid_core.backbones.weights import convert_weights
from reid_core.models import build_model
from reid_core.tensors import read_tensors, sha256_of
from schemas.cards import ModelConfig
from schemas.errors import CoreError, InputError, ModelFileError, UsageError

SMALL = "resnet10s"


def published() -> "OrderedDict[str, Tensor]":
    """A small network's weights with a classifier, as a publisher saves them."""
    torch.manual_seed(0)
    weights = OrderedDict(build_backbone(SMALL).state_dict())
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            weights[name] = tensor + torch.rand_like(tensor)
    weights["fc.weight"], weights["fc.bias"] = torch.rand(10, 256), torch.rand(10)
    return weights


def under_other_names(weights: "OrderedDict[str, Tensor]") -> "OrderedDict[str, Tensor]":
    """The same tensors in the same order, with numbers in place of the layers' names."""
    layers = {name: number for number, name in enumerate(dict.fromkeys(name.rpartition(".")[0] for name in weights))}
    return OrderedDict(
        (
            name if name.startswith("fc.") else f"body.{layers[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}",
            tensor,
        )
        for name, tensor in weights.items()
    )


def halved(weights: "OrderedDict[str, Tensor]") -> dict[str, Tensor]:
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    ("wrap", "by_order"),
    [
        (lambda weights: weights, False),
        (lambda weights: {"state_dict": {f"module.{name}": w for name, w in weights.items()}, "epoch": 3}, False),
        (lambda weights: {"model": halved(weights)}, False),
        (under_other_names, True),
        (lambda weights: {n: w for n, w in under_other_names(weights).items() if "num_batches" not in n}, True),
    ],
    ids=["unchanged", "data-parallel checkpoint", "half precision", "other names", "other names without counters"],
)
def test_published_weights_become_safetensors(
    tmp_path: Path, wrap: Callable[["OrderedDict[str, Tensor]"], object], by_order: bool
) -> None:
    weights, source, target = published(), tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save(wrap(weights), source)
    written = convert_weights(source, SMALL, target)
    assert written.dropped == ("fc.weight", "fc.bias") and written.by_order == by_order
    assert written.sha256 == sha256_of(source)
    with safe_open(target, "pt") as file:
        assert file.metadata() == {"architecture": SMALL, "source": "net.pth", "source_sha256": written.sha256}
        assert tuple(sorted(file.keys())) == tuple(sorted(written.tensors))
    state = build_model(ModelConfig(architecture=SMALL), pretrained=target).backbone.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-3)


def test_mobilenets_of_older_releases_are_converted(tmp_path: Path) -> None:
    """Their blocks' layers were not nested: conv.0, conv.1, ... in place of conv.0.0, conv.0.1, conv.1.0."""
    torch.manual_seed(0)
    own = build_backbone("mobilenet_v2").state_dict()
    flat: dict[str, Tensor] = {}
    numbers: dict[str, int] = {}
    for name, tensor in own.items():
        block, _, rest = name.partition(".conv.")
        layer, _, leaf = rest.rpartition(".")
        if rest:
            numbers.setdefault(f"{block} {layer}", sum(key.startswith(f"{block} ") for key in numbers))
            flat[f"{block}.conv.{numbers[f'{block} {layer}']}.{leaf}"] = tensor
        else:
            flat[name] = tensor
    torch.save(flat, tmp_path / "flat.pt")
    written = convert_weights(tmp_path / "flat.pt", "mobilenet_v2", tmp_path / "out.safetensors")
    assert written.by_order and not written.dropped
    read = read_tensors(tmp_path / "out.safetensors")
    assert read.keys() == {name for name in own if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(read[name], own[name]) for name in read)


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("harm"),)  # type: ignore[return-value]


def test_nothing_but_tensors_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": published(), "trainer": Harmful()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Harmful()))
    for name in ("a.pth", "b.pth"):
        with pytest.raises(ModelFileError, match=r"not a file of tensors alone, and nothing else is unpickled"):
            convert_weights(tmp_path / name, SMALL, tmp_path / "out.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.pth"]


def swapped(weights: "OrderedDict[str, Tensor]") -> "OrderedDict[str, Tensor]":
    other = under_other_names(weights)
    other.move_to_end(next(iter(other)))
    return other


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (lambda: {"conv1.weight": torch.zeros(64, 3, 7, 7)}, r"missing \['bn1.weight'"),
        (lambda: swapped(published()), r"unknown \['body"),
        (lambda: {**published(), "layer1.1.conv1.weight": torch.zeros(64, 64, 3, 3)}, r"unknown \['layer1.1"),  # deeper
        (lambda: {**published(), "conv1.weight": torch.zeros(32, 3, 7, 7)}, "other shapes"),
        (lambda: {"epoch": 3, "state_dict": {}}, "holds no named tensors"),
        (lambda: [torch.zeros(3)], "holds no named tensors"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, content: Callable[[], object], why: str) -> None:
    torch.save(content(), tmp_path / "net.pth")
    with pytest.raises(ModelFileError, match=why):
        convert_weights(tmp_path / "net.pth", SMALL, tmp_path / "net.safetensors")
    assert not list(tmp_path.glob("*.safetensors*"))


def test_broken_files_and_impossible_places(tmp_path: Path) -> None:
    source = tmp_path / "net.pth"
    torch.save(published(), source)
    (tmp_path / "short.pth").write_bytes(source.read_bytes()[:9999])
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "empty.pth").touch()
    for name in ("short.pth", "text.pth", "empty.pth", "none.pth"):
        with pytest.raises(ModelFileError, match=name):
            convert_weights(tmp_path / name, SMALL, tmp_path / "out.safetensors")
    (tmp_path / "there.safetensors").touch()
    for target, why in (("there.safetensors", "exists"), ("net.bin", "must end in"), ("no/net.safetensors", "folder")):
        with pytest.raises(InputError, match=why):
            convert_weights(source, SMALL, tmp_path / target)
    with pytest.raises(UsageError, match="no architecture"):
        convert_weights(source, "resnet51", tmp_path / "out.safetensors")


def test_imagenet_is_torchvisions_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from torch's download cache; if the download fails, the message says what to do."""
    name = ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    kept = tmp_path / "hub" / "checkpoints"
    kept.mkdir(parents=True)
    torch.manual_seed(1)
    weights = resnet18().state_dict()
    torch.save(weights, kept / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    backbone = build_model(ModelConfig(architecture="resnet18"), pretrained="imagenet").backbone
    assert torch.equal(backbone.get_parameter("layer4.1.conv2.weight"), weights["layer4.1.conv2.weight"])
    (kept / name).write_text("not a file of torch's")
    config = ModelConfig(architecture="resnet18")
    for home in (tmp_path, kept / name):  # a damaged file, and a cache that cannot be written
        monkeypatch.setenv("TORCH_HOME", str(home))
        with pytest.raises(
            CoreError, match=r"cannot be downloaded from https://.*models convert FILE.pth --architecture resnet18"
        ):
            build_model(config, pretrained="imagenet")
    for architecture in ("osnet_x0_25", SMALL):
        with pytest.raises(CoreError, match=f"{architecture} has no ImageNet weights to download; give a local"):
            build_model(ModelConfig(architecture=architecture), pretrained="imagenet")
    pytest.importorskip("timm")
    with pytest.raises(CoreError, match=r"cannot be downloaded from timm's hub: .*No pretrained weights exist"):
        build_model(ModelConfig(architecture="timm:mobilenetv2_075"), pretrained="imagenet")
