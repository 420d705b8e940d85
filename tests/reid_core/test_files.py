"""Model directories: what is written is read back, and bad files are errors in one line."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reid_core.files import (
    CARD,
    DIFF_ATTENTION,
    WEIGHTS,
    load_diff_attention,
    load_model,
    model_digest,
    read_card,
    save_model,
    write_card,
)
from reid_core.models import build_model
from reid_core.tensors import read_tensors, sha256_of
from schemas.calibration import LevelCalibration, straight_line
from schemas.cards import DiffAttentionSettings, InputConvention, ModelCard, ModelConfig
from schemas.errors import ModelFileError
from schemas.levels import Level

INPUT = InputConvention(height=32, width=16)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = build_model(
        ModelConfig(
            architecture="resnet10s", input=INPUT, baseline="agw", diff_attention=DiffAttentionSettings(reduction=8)
        ),
        num_classes=7,
    )
    calibration = LevelCalibration(
        level=Level.BUILDING,
        terms=straight_line(3, 1),
        join_log_odds=0,
        review_log_odds=-1,
        fitted_on="x",
        pairs=2,
        positives=1,
    )
    save_model(
        model,
        tmp_path / "m",
        name="small",
        strategy="joint",
        metrics={"rank1": 0.5},
        calibration=[calibration],
        details={"epochs": 3},
        half=True,
    )
    return tmp_path / "m"


def error_of(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_a_model_is_read_back(saved: Path) -> None:
    torch.manual_seed(0)
    model = build_model(
        ModelConfig(
            architecture="resnet10s", input=INPUT, baseline="agw", diff_attention=DiffAttentionSettings(reduction=8)
        ),
        num_classes=7,
    )
    loaded = load_model(saved)
    assert not loaded.training and loaded.neck.classifier is None
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32, torch.int64}
    images = torch.randn(2, 3, 32, 16)
    with torch.inference_mode():
        assert torch.allclose(loaded(images), model.eval()(images), atol=0.02)  # weights were rounded to float16
    card = read_card(saved)
    assert (card.dims, card.strategy, card.metrics, card.details) == (256, "joint", {"rank1": 0.5}, {"epochs": 3})
    assert card.calibration[0].level is Level.BUILDING and card.diff_attention == DiffAttentionSettings(reduction=8)


def test_float32_storage_is_exact(tmp_path: Path) -> None:
    model = build_model(ModelConfig(architecture="resnet10s", input=INPUT))
    save_model(model, tmp_path, name="exact")
    for name, tensor in load_model(tmp_path).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_the_digest_identifies_what_is_computed(saved: Path) -> None:
    card = read_card(saved)
    same = card.model_copy(update={"name": "other", "calibration": (), "metrics": {}, "trained_on": "elsewhere"})
    assert model_digest(same) == model_digest(card)
    for change in (
        {"sha256": {WEIGHTS: "0" * 64}},
        {"input": InputConvention(height=32, width=16, color="bgr")},
        {"diff_attention": None},
        {"architecture": "resnet18"},
    ):
        assert model_digest(card.model_copy(update=change)) != model_digest(card)


def test_files_that_changed(saved: Path) -> None:
    weights = saved / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelFileError, match="SHA-256 is not the one"):
        load_model(saved)
    weights.unlink()
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_card(saved)


def rewritten(saved: Path, **changes: Any) -> Path:
    card = json.loads((saved / CARD).read_text()) | changes
    (saved / CARD).write_text(json.dumps(card))
    return saved


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": 0}, "dims: "),
        ({"dims": 512}, "512 dims"),
        ({"name": "../up"}, "name: "),
        ({"unknown": 1}, "unknown: "),
        ({"sha256": {}}, "states no SHA-256"),
        ({"sha256": {"../m/weights.safetensors": "0" * 64}}, "not a plain file in its folder"),
        ({"architecture": "resnet18", "dims": 512}, "does not fit"),
        ({"architecture": "vit"}, "no architecture"),
        ({"engine": "onnx"}, "states no SHA-256 of diff_attention"),
        ({"non_local_channels": 2}, "does not fit"),
        ({"diff_attention": None}, "does not fit"),
        ({"diff_attention": {"transform": "sub", "reduction": 257}}, "no hidden channel at 256 dims"),
        ({"input": {"height": 10**9}}, r"input\.height"),
    ],
)
def test_wrong_cards(saved: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(rewritten(saved, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * (17 * 2**20)])
def test_files_that_are_not_cards(saved: Path, content: bytes) -> None:
    (saved / CARD).write_bytes(content)
    with pytest.raises(ModelFileError, match=r"card\.json"):
        read_card(saved)


def test_weights_that_are_a_link(saved: Path, tmp_path: Path) -> None:
    (saved / WEIGHTS).rename(tmp_path / "elsewhere")
    (saved / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelFileError, match="not a plain file"):
        read_card(saved)


class Evil:
    """Its pickle writes a file when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/urban-reid-unpickled"),))  # noqa: S108


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "model.safetensors", "weights.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_an_error_by_name_and_by_content(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / name
    torch.save({"weights": Evil()}, path, _use_new_zipfile_serialization=zipped)
    assert "pickle" in error_of(path)
    assert not Path("/tmp/urban-reid-unpickled").exists()  # noqa: S108


def with_header(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def tensor(shape: list[Any], begin: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (b"", b"", 2**63),  # a length beyond any file
        (b"{}", b"", 3),  # one byte beyond this file
        (b"{}", b"", 10**7),
        (b"{", b"", None),
        (b"\xff\xff", b"", None),
        (b"[]", b"", None),
        (b"[" * 50_000, b"", None),
        ({"a": tensor([2], 0, 8)}, b"1234", None),  # offsets beyond the data
        ({"a": tensor([2], 0, 4)}, b"1234", None),  # fewer bytes than its shape has
        ({"a": tensor([1], 0, 4)}, b"12345678", None),  # data of no tensor
        ({"a": tensor([1], 4, 8)}, b"12345678", None),  # a gap
        ({"a": tensor([1], 0, 4), "b": tensor([1], 0, 4)}, b"1234", None),  # two tensors on the same bytes
        ({"a": tensor([1], 4, 0)}, b"1234", None),
        ({"a": tensor([-1], 0, 4)}, b"1234", None),
        ({"a": tensor([1.0], 0, 4)}, b"1234", None),
        ({"a": tensor([True], 0, 4)}, b"1234", None),
        ({"a": tensor([2**40, 2**40], 0, 4)}, b"1234", None),
        ({"a": tensor([1], 0, 4, "F4")}, b"1234", None),
        ({"a": tensor([1], 0, 4, "OBJECT")}, b"1234", None),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"1234", None),
        ({"a": 3}, b"1234", None),
        ({"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}, b"1234", None),
        ({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, b"1234", None),
    ],
)
def test_wrong_headers(tmp_path: Path, header: Any, data: bytes, length: int | None) -> None:
    assert len(error_of(with_header(tmp_path / "weights.safetensors", header, data, length))) < 500


@pytest.mark.parametrize("size", [0, 1, 7, 8])
def test_files_too_short_for_a_header(tmp_path: Path, size: int) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x01" * size)
    error_of(path)


def test_a_sound_file_passes_the_check(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).half(), "b": torch.arange(5), "c": torch.zeros(0, 2), "d": torch.tensor(2.0)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = read_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], value.float() if name != "b" else value) for name, value in tensors.items())


def test_a_header_whose_length_looks_like_an_archive_is_read(tmp_path: Path) -> None:
    """A length of 0x4b50 bytes is written as "PK" and six zeros."""
    header = json.dumps({"a": tensor([1], 0, 4)}).encode()
    path = with_header(tmp_path / "x.safetensors", header.ljust(0x4B50), np.float32(7).tobytes())
    assert read_tensors(path)["a"].item() == 7


def test_diff_attention_beside_a_foreign_model(tmp_path: Path) -> None:
    settings = DiffAttentionSettings(transform="sub", reduction=2)
    module = build_model(ModelConfig(architecture="resnet10s", input=INPUT, diff_attention=settings)).diff_attention
    assert module is not None
    save_file(module.state_dict(), tmp_path / DIFF_ATTENTION)
    card = ModelCard(
        name="f",
        engine="onnx",
        architecture="foreign",
        baseline="foreign",
        dims=256,
        diff_attention=settings,
        sha256={DIFF_ATTENTION: sha256_of(tmp_path / DIFF_ATTENTION)},
    )
    write_card(card, tmp_path)
    loaded = load_diff_attention(tmp_path, read_card(tmp_path))
    assert loaded is not None and torch.equal(loaded.squeeze.weight, module.squeeze.weight)
    with pytest.raises(ModelFileError, match="engine onnx"):
        load_model(tmp_path)
