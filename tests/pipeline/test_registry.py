"""Registering models and choosing one, on a real database with a real small model."""

import json
from pathlib import Path

import pytest
import torch
from sqlalchemy import text

from pipeline.registry import model_in_use, models, register_model, use_model
from pipeline.store import Store
from reid_core.files import model_digest, read_card, save_model, write_card
from reid_core.models import build_model
from schemas.calibration import LevelCalibration, straight_line
from schemas.cards import InputConvention, ModelConfig
from schemas.errors import HomeError, InputError, ModelFileError
from schemas.levels import Level
from schemas.settings import Settings

INPUT = InputConvention(height=64, width=32)
CALIBRATION = LevelCalibration(
    level=Level.STREET,
    terms=straight_line(4.0, 2.0),
    join_log_odds=0.5,
    review_log_odds=-0.5,
    fitted_on="two rendered people",
    pairs=100,
    positives=10,
)


def small_model(directory: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_model(
        build_model(ModelConfig(architecture="resnet10s", input=INPUT)),
        directory,
        name="any",
        calibration=[CALIBRATION],
        half=True,
    )
    return directory


def count(store: Store, table: str) -> int:
    with store.begin() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def test_register_copies_writes_calibration_and_audit(store: Store, settings: Settings, tmp_path: Path) -> None:
    model_id = register_model(store, settings, small_model(tmp_path / "m"), "demo")
    (row,) = models(store)
    assert (row.id, row.name, row.dims, row.in_use) == (model_id, "demo", 256, False)
    card = read_card(row.directory(settings))
    assert card == row.card and card.name == "demo"
    assert row.digest == model_digest(card) == model_digest(read_card(tmp_path / "m"))
    with store.begin() as connection:
        level, parameters = connection.execute(text("SELECT level, parameters FROM calibration")).one()
        action, details = connection.execute(text("SELECT action, details FROM audit")).one()
    assert level == "street" and LevelCalibration.model_validate(parameters) == CALIBRATION
    assert action == "model.register" and details == {"model": "demo", "digest": row.digest.hex()}


def test_the_same_again_writes_nothing_and_mends_the_folder(store: Store, settings: Settings, tmp_path: Path) -> None:
    source = small_model(tmp_path / "m")
    first = register_model(store, settings, source, "demo")
    (settings.models_dir / "demo" / "weights.safetensors").write_bytes(b"damaged")
    assert register_model(store, settings, source, "demo") == first
    assert read_card(settings.models_dir / "demo").name == "demo"
    assert [count(store, table) for table in ("model", "calibration", "audit")] == [1, 1, 1]
    assert [path.name for path in settings.models_dir.iterdir()] == ["demo"]


def test_other_content_under_a_name_and_other_names_for_a_content(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    source, other = small_model(tmp_path / "m"), small_model(tmp_path / "n", seed=1)
    register_model(store, settings, source, "demo")
    with pytest.raises(InputError, match="another model is registered as demo"):
        register_model(store, settings, other, "demo")
    with pytest.raises(InputError, match="registered already, as demo"):
        register_model(store, settings, source, "second")
    assert [row.name for row in models(store)] == ["demo"]
    assert [path.name for path in settings.models_dir.iterdir()] == ["demo"]


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\n", "a\0", "é", "a" * 65, "-x"])
def test_names_that_are_none(store: Store, settings: Settings, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no model name"):
        register_model(store, settings, small_model(tmp_path / "m"), name)
    assert not settings.models_dir.exists()


def test_what_cannot_be_a_model_leaves_nothing_behind(store: Store, settings: Settings, tmp_path: Path) -> None:
    pickled = tmp_path / "model.pth"
    torch.save({"weights": torch.zeros(3)}, pickled)
    with pytest.raises(ModelFileError, match="pickle"):
        register_model(store, settings, pickled, "demo")
    with pytest.raises(InputError, match="no such file"):
        register_model(store, settings, tmp_path / "absent", "demo")
    with pytest.raises(InputError, match="has its input convention"):
        register_model(store, settings, small_model(tmp_path / "m"), "demo", INPUT)
    weights = tmp_path / "m" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2] + b"ab")
    with pytest.raises(ModelFileError, match="SHA-256"):
        register_model(store, settings, tmp_path / "m", "demo")
    small_model(tmp_path / "m")
    card = read_card(tmp_path / "m")
    write_card(card.model_copy(update={"architecture": "resnet18"}), tmp_path / "m")
    with pytest.raises(ModelFileError, match=r"512|does not fit"):
        register_model(store, settings, tmp_path / "m", "demo")
    assert count(store, "model") == 0
    assert not settings.models_dir.exists() or not list(settings.models_dir.iterdir())


def test_a_models_folder_that_cannot_be_written(store: Store, settings: Settings, tmp_path: Path) -> None:
    settings.models_dir.write_text("a file where the folder belongs")
    with pytest.raises(HomeError, match="cannot keep the model there"):
        register_model(store, settings, small_model(tmp_path / "m"), "demo")
    assert count(store, "model") == 0


def test_one_model_is_in_use(store: Store, settings: Settings, tmp_path: Path) -> None:
    register_model(store, settings, small_model(tmp_path / "m"), "first")
    register_model(store, settings, small_model(tmp_path / "n", seed=1), "second")
    with store.begin() as connection, pytest.raises(InputError, match="models use NAME"):
        model_in_use(connection)
    for name in ("first", "second", "second"):
        assert use_model(store, name).in_use
        with store.begin() as connection:
            assert model_in_use(connection).name == name
    with pytest.raises(InputError, match="there are: first"):
        use_model(store, "fist")
    with store.begin() as connection:
        used = connection.execute(text("SELECT details FROM audit WHERE action = 'model.use' ORDER BY id")).scalars()
        assert [json.loads(json.dumps(details))["model"] for details in used] == ["first", "second"]


def test_a_foreign_file_gets_its_card_by_running_it(store: Store, settings: Settings) -> None:
    if settings.test_assets is None:
        pytest.skip("URBAN_REID_TEST_ASSETS is not set")
    name = "person-reidentification-retail-0277"
    convention = InputConvention(color="bgr", range=255, mean=(0, 0, 0), std=(1, 1, 1))
    file = settings.test_assets / "models" / name / f"{name}.xml"
    register_model(store, settings, file, "retail-0277", convention)
    (row,) = models(store)
    assert (row.dims, row.card.engine, row.card.input) == (256, "openvino", convention)
    assert sorted(row.card.sha256) == [f"{name}.bin", f"{name}.xml"]
