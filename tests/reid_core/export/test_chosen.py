"""What a model is registered with: the fastest form that passes the gates of exports, whatever the machine is."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from reid_core.datasets.person_pictures import PersonPictures
from reid_core.export import chosen
from reid_core.export.chosen import choose_arithmetic
from reid_core.export.export import PARITY, Labeled, lowest_cosine
from reid_core.files import model_digest, read_card, save_model, write_card
from reid_core.models import build_model
from reid_core.serving.local import LocalCore, TorchEmbedder
from reid_core.speed.kept import read
from schemas.cards import InputConvention, ModelConfig
from schemas.settings import Settings
from synthetic.training import training_set
from tests.helpers.networks import trained

pytest.importorskip("openvino", reason="needs the extra openvino")

INPUT = InputConvention(height=64, width=32)
#: As on a processor with bfloat16 and OpenVINO.
SPEEDS = {"torch float32": 1.0, "torch bfloat16": 2.0, "openvino float32": 1.5, "openvino bfloat16": 4.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chosen") / "plain"
    save_model(trained(build_model(ModelConfig(architecture="resnet10s", input=INPUT))), folder, name="plain")
    return folder


@pytest.fixture
def fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A machine on which a trial finds `SPEEDS`."""
    monkeypatch.setattr(chosen, "measured", lambda *_: SPEEDS)
    return Settings(home=tmp_path, engine="auto", device="cpu")


def people() -> Labeled:
    found = training_set(5, 6, 4, (INPUT.height, INPUT.width))
    sides = (np.arange(len(found.pictures)) % 2 == side for side in (0, 1))
    query, gallery = (
        PersonPictures(found.pictures[rows], found.identities[rows], np.full(rows.sum(), side))
        for side, rows in enumerate(sides)
    )
    return Labeled("rendered people", query, gallery)


def fallen(monkeypatch: pytest.MonkeyPatch, points: float) -> None:
    """mAP in bfloat16 is lower by so many points."""
    monkeypatch.setattr(
        chosen, "mAP_of", lambda settings, *_: 80.0 - (points if settings.precision == "bfloat16" else 0.0)
    )


def test_without_labels_the_fastest_of_the_same_features_which_the_card_then_keeps(
    model: Path, fast: Settings, tmp_path: Path
) -> None:
    folder = shutil.copytree(model, tmp_path / "registered")
    found = choose_arithmetic(fast, folder)
    assert found is not None and (found.engine, found.precision) == ("openvino", "float32")
    assert found.why == (
        "1.5 times as fast as torch float32 here; openvino bfloat16 (4.0 times): was not judged on labeled pictures; "
        "torch bfloat16 (2.0 times): was not judged on labeled pictures"
    )
    plain, card = LocalCore.open(fast, folder), read_card(folder)
    assert isinstance(plain._embedder, TorchEmbedder)
    write_card(card.model_copy(update={"arithmetic": found}), folder)
    converted = fast.engines_dir / f"{model_digest(card).hex()}.xml"
    written = converted.stat().st_mtime_ns
    core = LocalCore.open(fast, folder)
    assert not isinstance(core._embedder, TorchEmbedder)
    assert converted.stat().st_mtime_ns == written  # made once
    pictures = people().query.pictures
    assert lowest_cosine(core.embed(pictures), plain.embed(pictures)) >= PARITY
    assert model_digest(read_card(folder)) == model_digest(card)


def test_labels_allow_bfloat16(model: Path, fast: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    fallen(monkeypatch, 0.5)
    assert str(choose_arithmetic(fast, model, people())) == "openvino bfloat16"


def test_a_loss_of_accuracy_forbids_it(model: Path, fast: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    fallen(monkeypatch, 0.6)
    monkeypatch.setitem(SPEEDS, "openvino float32", 1.0)
    found = choose_arithmetic(fast, model, people())
    assert str(found) == "torch float32" and "costs 0.6 points of mAP on rendered people" in str(found and found.why)


def test_another_engine_must_have_the_same_features(
    model: Path, fast: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chosen, "PARITY", 1.1)
    found = choose_arithmetic(fast, model)
    assert str(found) == "torch float32" and "its features differ" in str(found and found.why)
    assert not list(fast.engines_dir.iterdir())  # what was converted for the comparison is gone


def test_a_setting_is_taken_without_a_trial(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: object) -> dict[str, float]:
        raise AssertionError("a trial was made")

    monkeypatch.setattr(chosen, "measured", measured)
    for settings, expected in (
        (Settings(home=tmp_path, device="cpu", engine="torch"), "torch float32"),
        (Settings(home=tmp_path, device="cpu", engine="openvino"), "openvino float32"),
        (Settings(home=tmp_path, device="cpu", engine="auto", precision="bfloat16"), "torch bfloat16"),
        (Settings(home=tmp_path, device="cpu", engine="openvino", precision="bfloat16"), "openvino bfloat16"),
    ):
        found = choose_arithmetic(settings, model)
        assert str(found) == expected and found is not None and found.why == "as the settings say"


def test_a_trial_of_the_real_forms_is_kept(model: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, device="cpu", engine="auto")
    found = choose_arithmetic(settings, model)
    assert found is not None and found.precision == "float32"  # which engine is the machine's affair
    kept = read(settings)
    assert kept is not None
    (what,) = kept.speeds
    assert what == "embedding, resnet10s bagtricks 64x32" and kept.speeds[what]["torch float32"] == 1
    assert "openvino float32" in kept.speeds[what]
