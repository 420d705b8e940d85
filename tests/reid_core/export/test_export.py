"""Export: the same features in every format, errors with figures, and files that the core runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import reid_core
from reid_core.datasets.person_pictures import PersonPictures
from reid_core.export.export import PARITY, Labeled, computes_bfloat16, export_model
from reid_core.export.quantize import calibration_pictures
from reid_core.files import load_model, read_card, save_model
from reid_core.models import build_model
from reid_core.preprocessing import normalized
from reid_core.serving.factory import open_core
from reid_core.serving.local import LocalCore
from schemas.calibration import LevelCalibration, straight_line
from schemas.cards import DiffAttentionSettings, InputConvention, ModelConfig
from schemas.errors import CoreError, InputError, UsageError
from schemas.levels import Level
from schemas.settings import Settings
from synthetic.training import training_set
from tests.helpers.networks import trained

DEMO = reid_core.DEMO_MODEL
INPUT = InputConvention(height=64, width=32, color="bgr", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
CALIBRATION = LevelCalibration(
    level=Level.STREET,
    terms=straight_line(9, 8),
    join_log_odds=2,
    review_log_odds=0,
    fitted_on="x",
    pairs=9,
    positives=4,
)


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, INPUT.height, INPUT.width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AGW with diff attention, in a state as after training."""
    folder = tmp_path_factory.mktemp("export") / "agw"
    torch.manual_seed(0)
    config = ModelConfig(
        architecture="resnet10s", baseline="agw", input=INPUT, diff_attention=DiffAttentionSettings(transform="sub")
    )
    network = trained(build_model(config))
    assert network.diff_attention is not None
    torch.nn.init.normal_(network.diff_attention.excite.weight, std=0.3)
    save_model(network, folder, name="agw", metrics={"mAP": 50.0}, calibration=(CALIBRATION,), details={"epochs": 3})
    return folder


@pytest.fixture(scope="module")
def ir(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    out = tmp_path_factory.mktemp("ir") / "ir"
    exported = export_model(Settings(home=out.parent, device="cpu"), model, out, "openvino")
    assert set(exported.cosines) == {1, 7, 32} and min(exported.cosines.values()) >= PARITY
    return out


@pytest.mark.parametrize(
    ("to", "files"),
    [
        ("safetensors", ["card.json", "weights.safetensors"]),
        ("onnx", ["card.json", "diff_attention.safetensors", "model.onnx"]),
        ("openvino", ["card.json", "diff_attention.safetensors", "model.bin", "model.xml"]),
    ],
)
def test_every_format_is_the_same_model(tmp_path: Path, model: Path, ir: Path, to: str, files: list[str]) -> None:
    settings, out = Settings(home=tmp_path, device="cpu", precision="float32"), tmp_path / "out"
    if to == "openvino":
        out = ir
    else:
        exported = export_model(settings, model, out, to)  # type: ignore[arg-type]
        assert set(exported.cosines) == {1, 7, 32} and min(exported.cosines.values()) >= PARITY
        assert read_card(out) == exported.card
    assert sorted(path.name for path in out.iterdir()) == files
    assert list(out.parent.iterdir()) == [out]
    card = read_card(out)
    assert card.name == f"agw-{to}-f32"
    assert card.input == INPUT and card.diff_attention == DiffAttentionSettings(transform="sub")
    assert card.calibration == (CALIBRATION,) and card.metrics == {"mAP": 50.0} and card.details["epochs"] == 3
    assert card.details["export"]["from"] == "agw"

    core, original = open_core(settings, out), open_core(settings, model)
    many = pictures(9)
    features = core.embed(many)
    with torch.inference_mode():
        expected = load_model(model)(normalized(torch.from_numpy(many), INPUT)).numpy()
    assert np.allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    left, right = features[:4].astype(np.float64), features[4:8].astype(np.float64)
    assert np.array_equal(core.distances(left, right), original.distances(left, right))


needs_bfloat16 = pytest.mark.skipif(not computes_bfloat16(), reason="a processor without bfloat16")


@needs_bfloat16
def test_an_ir_states_its_precision_and_features_are_independent(tmp_path: Path, model: Path, ir: Path) -> None:
    settings = Settings(home=tmp_path, device="cpu")
    exported = export_model(settings, model, tmp_path / "bf16", "openvino", precision="bf16")
    assert min(exported.cosines.values()) >= PARITY  # of the file in float32
    assert exported.execution_cosine < min(exported.cosines.values())
    found = {}
    for directory in (ir, tmp_path / "bf16"):
        core, many = LocalCore.open(settings, directory), pictures(11)
        assert core.batch_size > 1
        many[10] = many[4] = many[2]
        found[directory] = features = core.embed(many)
        assert np.array_equal(features[2], core.embed(many[2:3])[0])  # alone
        assert np.array_equal(features[2], features[4]) and np.array_equal(features[2], features[10])  # elsewhere
        assert np.array_equal(features[::-1], core.embed(many[::-1]))
    assert not np.array_equal(found[ir], found[tmp_path / "bf16"])
    told = LocalCore.open(settings.model_copy(update={"precision": "bfloat16"}), ir).embed(many)
    assert np.array_equal(told, found[tmp_path / "bf16"])


def labeled(people: int) -> Labeled:
    """Rendered people whom the packaged model was not trained on."""
    found = training_set(77, people, 8, (128, 64))
    query, gallery = PersonPictures(found.pictures, found.identities, found.cameras).split_queries()
    return Labeled(f"{people} rendered people", query, gallery)


def test_int8_is_accepted_by_its_mAP(tmp_path: Path) -> None:
    settings, people = Settings(home=tmp_path, device="cpu", precision="float32"), labeled(12)
    own = training_set(78, 12, 4, (128, 64)).pictures
    exported = export_model(
        settings, DEMO, tmp_path / "int8", "openvino", precision="int8", calibration=own, labeled=people
    )
    before, after = exported.mAP or (0.0, 0.0)
    assert before > 50 and before - after <= 0.5
    assert exported.execution_cosine < PARITY and not exported.card.calibration  # its distances differ
    assert exported.card.details["export"]["mAP"] == {"on": people.source, "before": before, "after": after}
    core, many = LocalCore.open(settings, tmp_path / "int8"), people.query.pictures[:6]
    assert np.array_equal(core.embed(many)[3], core.embed(many[3:4])[0])
    float32_bytes = sum(4 * parameter.numel() for parameter in load_model(DEMO).backbone.parameters())
    assert (tmp_path / "int8" / "model.bin").stat().st_size < 0.4 * float32_bytes


@pytest.mark.slow
def test_int8_calibrated_on_black_pictures_is_refused(tmp_path: Path) -> None:
    settings, people = Settings(home=tmp_path, device="cpu", precision="float32"), labeled(12)
    black = np.zeros((32, 128, 64, 3), np.uint8)
    with pytest.raises(CoreError, match=r"as int8: mAP falls from \d+\.\d\d to \d+\.\d\d on 12 rendered people"):
        export_model(settings, DEMO, tmp_path / "no", "openvino", precision="int8", calibration=black, labeled=people)
    assert not list(tmp_path.iterdir())


def test_bf16_is_refused_where_it_cannot_be_measured(tmp_path: Path, ir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_core.export.export.computes_bfloat16", lambda: False)
    with pytest.raises(CoreError, match="this processor has no bfloat16"):
        export_model(Settings(home=tmp_path), ir, tmp_path / "out", "openvino", precision="bf16")
    assert not list(tmp_path.iterdir())


def test_a_loss_of_mAP_is_refused(tmp_path: Path, ir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = training_set(77, 4, 8, (INPUT.height, INPUT.width))
    query, gallery = PersonPictures(found.pictures, found.identities, found.cameras).split_queries()
    monkeypatch.setattr("reid_core.export.export.computes_bfloat16", lambda: True)
    monkeypatch.setattr("reid_core.export.export.MAX_DROP", -101.0)  # a rise that is impossible
    said = r"as bf16: mAP falls from \d+\.\d\d to \d+\.\d\d on four people, and may fall by -101\.0; export it as f32$"
    with pytest.raises(CoreError, match=said):
        export_model(
            Settings(home=tmp_path), ir, tmp_path / "out", "openvino", precision="bf16",
            labeled=Labeled("four people", query, gallery),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_features_that_are_not_the_same_are_refused(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reid_core.export.export.PARITY", 1.0 + 1e-9)  # above the cosine of equal features
    with pytest.raises(CoreError, match=r"are not the same: lowest cosine 1\.000000 in a batch of 1"):
        export_model(Settings(home=tmp_path), model, tmp_path / "out", "safetensors")
    assert not list(tmp_path.iterdir())


def test_an_ir_goes_to_openvino_only(tmp_path: Path, ir: Path) -> None:
    settings = Settings(home=tmp_path, device="cpu")
    again = export_model(settings, ir, tmp_path / "again", "openvino")
    assert again.card.details["export"]["from"] == "agw-openvino-f32" and min(again.cosines.values()) >= PARITY
    with pytest.raises(UsageError, match="can be exported only to openvino"):
        export_model(settings, ir, tmp_path / "onnx", "onnx")


def test_invalid_requests(tmp_path: Path, model: Path) -> None:
    settings, out = Settings(home=tmp_path), tmp_path / "out"
    with pytest.raises(UsageError, match="bf16 is for openvino; a onnx file"):
        export_model(settings, model, out, "onnx", precision="bf16")
    with pytest.raises(UsageError, match="int8 needs pictures to calibrate on"):
        export_model(settings, model, out, "openvino", precision="int8", calibration=pictures(40))
    with pytest.raises(InputError, match="31 pictures to calibrate on; int8 needs 32"):
        export_model(settings, model, out, "openvino", precision="int8", calibration=pictures(31), labeled=labeled(2))
    out.mkdir()
    (out / "mine").write_text("")
    with pytest.raises(InputError, match="exists already"):
        export_model(settings, model, out, "safetensors")
    assert [path.name for path in out.iterdir()] == ["mine"]
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        export_model(settings, model, out / "mine" / "out", "safetensors")
    out.joinpath("mine").unlink()
    with pytest.raises(InputError, match="holds no picture to calibrate on"):
        calibration_pictures(str(out), INPUT)
