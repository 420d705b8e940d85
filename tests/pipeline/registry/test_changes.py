"""Models registered, renamed and removed, on a real database with real small models."""

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from torch import nn

from pipeline.registry import (
    changes,
    find_model,
    insert_calibration,
    models,
    register_model,
    remove_model,
    rename_model,
    use_model,
)
from pipeline.store import Store
from reid_core import DEMO_MODEL, backbones
from reid_core.export import chosen
from reid_core.files import model_digest, read_card, save_model, write_card
from reid_core.models import build_model
from reid_core.serving.factory import open_core
from reid_core.serving.local import LocalCore, TorchEmbedder
from schemas.calibration import LevelCalibration
from schemas.cards import Arithmetic, ModelConfig
from schemas.errors import CoreError, HomeError, InputError, ModelFileError
from schemas.settings import Settings
from tests.helpers.assets import CONVENTION, asset
from tests.helpers.onnx_files import Node, onnx_graph, stated
from tests.helpers.small_models import CALIBRATION, INPUT, small_model


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
    with store.signed_in() as connection:
        level, parameters = connection.execute(text("SELECT level, parameters FROM calibration")).one()
        action, details = connection.execute(text("SELECT action, details FROM audit")).one()
    assert level == "street" and LevelCalibration.model_validate(parameters) == CALIBRATION
    assert action == "model.register" and details == {"model": "demo", "digest": row.digest.hex()}


def test_the_same_again_writes_nothing_and_repairs_the_folder(store: Store, settings: Settings, tmp_path: Path) -> None:
    source = small_model(tmp_path / "m")
    first = register_model(store, settings, source, "demo")
    (settings.models_dir / "demo" / "weights.safetensors").write_bytes(b"damaged")
    assert register_model(store, settings, source, "demo") == first
    assert read_card(settings.models_dir / "demo").name == "demo"
    assert [count(store, table) for table in ("model", "calibration", "audit")] == [1, 1, 1]
    assert [path.name for path in settings.models_dir.iterdir()] == ["demo"]


def test_one_name_has_one_content_and_one_content_one_name(store: Store, settings: Settings, tmp_path: Path) -> None:
    source, other = small_model(tmp_path / "m"), small_model(tmp_path / "n", seed=1)
    register_model(store, settings, source, "demo")
    with pytest.raises(InputError, match="another model is registered as demo"):
        register_model(store, settings, other, "demo")
    with pytest.raises(InputError, match="registered already, as demo"):
        register_model(store, settings, source, "second")
    assert [row.name for row in models(store)] == ["demo"]
    assert [path.name for path in settings.models_dir.iterdir()] == ["demo"]


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\n", "a\0", "é", "a" * 65, "-x"])
def test_names_that_are_not_valid(store: Store, settings: Settings, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not a valid model name"):
        register_model(store, settings, small_model(tmp_path / "m"), name)
    assert not settings.models_dir.exists()


def test_what_cannot_be_a_model_leaves_nothing_behind(store: Store, settings: Settings, tmp_path: Path) -> None:
    pickled = tmp_path / "model.pth"
    torch.save({"weights": torch.zeros(3)}, pickled)
    with pytest.raises(ModelFileError, match="pickle"):
        register_model(store, settings, pickled, "demo")
    with pytest.raises(InputError, match="no such file"):
        register_model(store, settings, tmp_path / "absent", "demo")
    with pytest.raises(InputError, match="states its input convention"):
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


def test_a_foreign_file_gets_its_card_by_running_it(store: Store, settings: Settings) -> None:
    name = "person-reidentification-retail-0277"
    file = asset(f"models/{name}/{name}.xml")
    with pytest.raises(InputError, match=r"give --color rgb\|bgr, --range 1\|255, --mean X,Y,Z, --std X,Y,Z as it"):
        register_model(store, settings, file, "retail-0277")
    register_model(store, settings, file, "retail-0277", CONVENTION)
    (row,) = models(store)
    assert (row.dims, row.card.engine, row.card.input) == (256, "openvino", CONVENTION)
    assert sorted(row.card.sha256) == [f"{name}.bin", f"{name}.xml"]


def test_an_onnx_file_is_registered_with_its_parts(store: Store, settings: Settings, tmp_path: Path) -> None:
    nodes: list[Node] = [("GlobalAveragePool", ("image",), "mean", {}), ("Conv", ("mean", "matrix"), "feature", {})]
    matrix = {"matrix": np.arange(15, dtype=np.float32).reshape(5, 3, 1, 1)}
    file = onnx_graph(tmp_path / "M.ONNX", ("n", 3, 64, 32), nodes, matrix, external="M.ONNX.data")
    register_model(store, settings, file, "parts", stated(INPUT))
    (row,) = models(store)
    folder = row.directory(settings)
    assert sorted(path.name for path in folder.iterdir()) == ["M.ONNX", "M.ONNX.data", "card.json"]
    assert LocalCore.open(settings, folder).card == row.card


class Dependent(nn.Module):
    """A backbone whose output is centered over the batch."""

    dims = 3

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * (images - images.mean(0, keepdim=True))


def test_a_trial_refuses_a_model_directory_too(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "_registered", {"dependent": Dependent})
    save_model(build_model(ModelConfig(architecture="dependent", input=INPUT)), tmp_path / "m", name="any")
    with pytest.raises(ModelFileError, match=f"^{tmp_path / 'm'}: not an embedder: .* rows of a batch"):
        register_model(store, settings, tmp_path / "m", "demo")
    assert count(store, "model") == 0
    assert not settings.models_dir.exists() or not list(settings.models_dir.iterdir())


def test_rename(store: Store, settings: Settings, tmp_path: Path) -> None:
    model_id = register_model(store, settings, small_model(tmp_path / "m"), "first")
    use_model(store, "first")
    (before,) = models(store)
    (settings.training_dir("first") / "model").mkdir(parents=True)
    rename_model(store, "first", "second")
    (row,) = models(store)
    assert (row.id, row.name, row.card.name, row.in_use) == (model_id, "second", "second", True)
    assert row.digest == before.digest and row.card == before.card.model_copy(update={"name": "second"})
    assert read_card(row.directory(settings)) == row.card
    assert [path.name for path in settings.models_dir.iterdir()] == ["second"]
    assert [path.name for path in (settings.home / "training").iterdir()] == ["second"]
    with store.signed_in() as connection:
        actor, details = connection.execute(
            text("SELECT actor, details FROM audit WHERE action = 'model.rename'")
        ).one()
    assert actor == settings.operator
    assert details == {"before": "first", "model": "second", "digest": row.digest.hex()}


def test_names_that_a_model_cannot_get(store: Store, settings: Settings, tmp_path: Path) -> None:
    register_model(store, settings, small_model(tmp_path / "m"), "first")
    register_model(store, settings, small_model(tmp_path / "n", seed=1), "second")
    for old, new, why in (
        ("first", "second", "a model is registered as second already"),
        ("first", "first", "a model is registered as first already"),
        ("first", "../x", "is not a valid model name"),
        ("third", "fourth", "no model 'third' is registered"),
    ):
        with pytest.raises(InputError, match=why):
            rename_model(store, old, new)
    (settings.models_dir / "first" / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelFileError, match="SHA-256"):
        rename_model(store, "first", "third")
    assert [row.name for row in models(store)] == ["first", "second"]
    assert sorted(path.name for path in settings.models_dir.iterdir()) == ["first", "second"]


def test_remove(store: Store, settings: Settings, tmp_path: Path) -> None:
    source = small_model(tmp_path / "m")
    register_model(store, settings, source, "first")
    register_model(store, settings, small_model(tmp_path / "n", seed=1), "second")
    use_model(store, "second")
    with store.begin() as connection:
        first, second = find_model(connection, "first"), find_model(connection, "second")
        connection.execute(
            text(
                "INSERT INTO model_comparison (model_id, against_id, held_out, held_out_digest, metrics, "
                "against_metrics) VALUES (:a, :b, 'x', :digest, '{}', '{}')"
            ),
            {"a": first.id, "b": second.id, "digest": first.digest},
        )
    (settings.training_dir("first") / "model").mkdir(parents=True)
    remove_model(store, "first")
    assert [row.name for row in models(store)] == ["second"]
    assert [path.name for path in settings.models_dir.iterdir()] == ["second"]
    assert not settings.training_dir("first").exists()
    assert [count(store, table) for table in ("calibration", "model_comparison")] == [1, 0]
    with store.signed_in() as connection:
        details = connection.execute(text("SELECT details FROM audit WHERE action = 'model.remove'")).scalar_one()
    assert details == {"model": "first", "digest": first.digest.hex()}
    register_model(store, settings, source, "first")  # it can come back


def test_a_model_that_something_refers_to_stays(store: Store, settings: Settings, tmp_path: Path) -> None:
    register_model(store, settings, small_model(tmp_path / "m"), "first")
    register_model(store, settings, small_model(tmp_path / "n", seed=1), "second")
    with pytest.raises(InputError, match="no model 'third' is registered"):
        remove_model(store, "third")
    use_model(store, "first")
    with pytest.raises(InputError, match=r"model first cannot be removed: it is in use, it was in use before$"):
        remove_model(store, "first")
    use_model(store, "second")
    with pytest.raises(InputError, match=r"cannot be removed: it was in use before$"):
        remove_model(store, "first")
    with store.begin() as connection:
        insert_calibration(connection, find_model(connection, "first").id, CALIBRATION)
    with pytest.raises(InputError, match=r"it was in use before, it has calibrations that were learned here$"):
        remove_model(store, "first")
    with store.begin() as connection, pytest.raises(DBAPIError, match="violates foreign key"):
        connection.execute(text("SELECT remove_model(:id)"), {"id": find_model(connection, "first").id})
    assert [row.name for row in models(store)] == ["first", "second"]
    assert sorted(path.name for path in settings.models_dir.iterdir()) == ["first", "second"]


class Killed(BaseException):
    pass


def killed(*_: object) -> NoReturn:
    raise Killed


@pytest.mark.parametrize("where", ["move_into_place", "_take_away_unregistered"])
def test_a_rename_that_is_cut_off_leaves_a_whole_model(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    register_model(store, settings, small_model(tmp_path / "m"), "first")
    with monkeypatch.context() as cut, pytest.raises(Killed):
        cut.setattr(changes, where, killed)
        rename_model(store, "first", "second")
    (row,) = models(store)
    assert row.name == ("first" if where == "move_into_place" else "second")
    assert read_card(row.directory(settings)) == row.card
    # Whatever is left over does no harm to what is done next.
    rename_model(store, row.name, "third")
    register_model(store, settings, small_model(tmp_path / "n", seed=1), "first")
    rename_model(store, "first", "second")
    assert [read_card(row.directory(settings)) for row in models(store)] == [row.card for row in models(store)]


def test_a_removal_that_is_cut_off_leaves_a_folder_that_does_no_harm(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_model(store, settings, small_model(tmp_path / "m"), "first")
    with monkeypatch.context() as cut, pytest.raises(Killed):
        cut.setattr(changes, "_take_away_unregistered", killed)
        remove_model(store, "first")
    assert not models(store) and (settings.models_dir / "first").is_dir()
    register_model(store, settings, small_model(tmp_path / "n", seed=1), "first")
    (row,) = models(store)
    assert read_card(row.directory(settings)) == row.card


def test_a_folder_stays_if_another_model_got_its_name_meanwhile(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_model(store, settings, small_model(tmp_path / "m"), "first")
    clean = changes._take_away_unregistered

    def late(*arguments: Any) -> None:
        register_model(store, settings, small_model(tmp_path / "n", seed=1), "first")
        clean(*arguments)

    monkeypatch.setattr(changes, "_take_away_unregistered", late)
    remove_model(store, "first")
    (row,) = models(store)
    assert read_card(row.directory(settings)) == row.card


def test_a_model_keeps_what_it_was_registered_with(store: Store, settings: Settings, tmp_path: Path) -> None:
    source, ours = small_model(tmp_path / "m"), Arithmetic(engine="torch", precision="bfloat16", why="for a test")
    register_model(store, settings, source, "kept", arithmetic=ours)
    register_model(store, settings, source, "kept")  # what would be chosen now is something else
    rename_model(store, "kept", "renamed")
    (row,) = models(store)
    assert row.card.arithmetic == ours == read_card(row.directory(settings)).arithmetic
    core = open_core(settings.model_copy(update={"engine": "auto"}), row.directory(settings))
    assert isinstance(core, LocalCore) and isinstance(core._embedder, TorchEmbedder)
    assert core._embedder.dtype == torch.bfloat16
    with pytest.raises(CoreError, match="its features here are torch bfloat16, and URBAN_REID_PRECISION=float32"):
        open_core(settings.model_copy(update={"precision": "float32"}), row.directory(settings))


def test_another_homes_choice_is_not_taken_over(store: Store, settings: Settings, tmp_path: Path) -> None:
    source = small_model(tmp_path / "m")
    theirs = Arithmetic(engine="torch", precision="bfloat16", why="on their machine")
    write_card(read_card(source).model_copy(update={"arithmetic": theirs}), source)
    register_model(store, settings, source, "ours")
    assert str(models(store)[0].card.arithmetic) == "torch float32"


def test_a_packaged_model_is_not_measured(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: object) -> dict[str, float]:
        raise AssertionError("a trial was made")

    monkeypatch.setattr(chosen, "measured", measured)
    auto = settings.model_copy(update={"engine": "auto"})
    with Store.open(auto, "pytest") as opened:
        register_model(opened, auto, DEMO_MODEL, "demo")
    assert str(models(store)[0].card.arithmetic) == "torch float32"
