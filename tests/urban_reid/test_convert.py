"""The command `urban-reid models convert`."""

import json
from pathlib import Path

import torch

from reid_core.backbones import build_backbone
from reid_core.models import build_model
from schemas.cards import ModelConfig
from tests.helpers.command_line import Run, error_of


def test_a_pth_becomes_a_safetensors_file_to_train_from(run_here: Run, tmp_path: Path) -> None:
    weights = build_backbone("resnet10s").state_dict() | {"fc.weight": torch.zeros(9, 256)}
    torch.save(weights, tmp_path / "net.pth")
    command = ("models", "convert", "net.pth", "--architecture", "resnet10s", "--out")
    done = run_here(*command, "net.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["dropped"] == ["fc.weight"] and found["tensors"] == len(weights) - 1 and not found["by_order"]
    backbone = build_model(ModelConfig(architecture="resnet10s"), pretrained=tmp_path / "net.safetensors").backbone
    assert torch.equal(backbone.get_parameter("conv1.weight"), weights["conv1.weight"])

    told = run_here(*command, "other.safetensors")
    assert told.returncode == 0 and "left out: fc.weight" in told.stdout and found["source_sha256"] in told.stdout
    again = run_here(*command, "net.safetensors")
    assert again.returncode == 2 and "net.safetensors: exists" in again.stderr
    other = run_here("models", "convert", "net.pth", "--architecture", "resnet18", "--out", "o.safetensors")
    assert other.returncode == 1 and "not this backbone" in other.stderr
    unknown = run_here("models", "convert", "net.pth", "--architecture", "resnet51", "--out", "o.safetensors")
    assert "no architecture 'resnet51'" in error_of(unknown, 2)
