import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from reid_core.datasets import Dataset, open_dataset
from reid_core.files import read_card, write_card
from reid_core.models import refuse_config
from reid_core.serving.foreign import foreign_card
from reid_core.training.figures import draw_figures, remember, results_of
from reid_core.training.methods import METHODS, MethodName
from reid_core.training.paper import TABLE_1, TABLE_2
from reid_core.training.plans import Strategy, paper_settings
from reid_core.training.reproduce import BUDGETS, CPU, FULL, Budget, chosen_rows, reproduce, row_key
from schemas.cards import DiffAttentionSettings, InputConvention
from schemas.errors import CoreError, InputError
from schemas.settings import Settings
from tests.helpers.onnx_files import onnx_file, stated

SETTINGS = Settings(device="cpu")
TINY = Budget(
    "resnet10s",
    InputConvention(height=32, width=16),
    rates={"plain": 2e-3, "joint": 2e-3, "separate": 1e-3},
    epochs={"plain": 1, "joint": 1, "separate": 1},
    cached_views=1,
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return open_dataset("rendered:3:40")


def test_the_rows_have_keys() -> None:
    assert [row_key(row) for row in TABLE_1] == [
        f"{baseline}{strategy}" for baseline in ("bagtricks", "agw") for strategy in ("", "+joint", "+separate")
    ]
    assert [row_key(row) for row in TABLE_2][:3] == [
        "bagtricks+separate:sub",
        "bagtricks+separate:sub_squ",
        "bagtricks+separate",
    ]
    assert [row.name for row in chosen_rows("table1", ["agw", "bagtricks+joint"])] == ["AGW", "BagTricks + joint"]
    with pytest.raises(InputError, match="table2 has no row 'agw'"):
        chosen_rows("table2", ["agw"])


def test_the_full_budget_is_the_papers() -> None:
    strategies: tuple[Strategy, ...] = ("plain", "joint", "separate")
    for method in METHODS:
        for strategy in strategies:
            plan, paper = FULL.plan(strategy, method, 0), paper_settings(strategy, method)
            assert replace(plan, validate_every=paper.validate_every) == paper
    assert set(BUDGETS) == {"full", "cpu"} and CPU.plan("separate", "agw", 2).seed == 2


def test_other_methods_are_rows_with_their_own_recipes() -> None:
    rows = chosen_rows("table3", None)
    assert [row_key(row) for row in rows if row.strategy == "plain"] == [
        "trinet", "pcb", "mgn", "cbn", "osnet", "circle", "transreid",
    ]  # fmt: skip
    keys = [row_key(row) for row in rows if row.method == "mgn"]
    assert keys == ["mgn", "mgn+joint", "mgn+separate:sub", "mgn+separate:sub_squ", "mgn+separate"]
    by_key = {row_key(row): row for row in rows}
    assert "circle+joint" not in by_key and by_key["pcb+joint"].name == "PCB + joint"
    config = FULL.config(by_key["transreid"])
    assert config.architecture == "timm:vit_base_patch16_224" and config.input.mean == (0.5, 0.5, 0.5)
    assert (FULL.config(by_key["pcb"]).input.height, FULL.config(by_key["cbn"]).input.height) == (384, 256)
    small = CPU.config(by_key["transreid"])
    assert (small.input.height, small.input.width, small.input.mean[0]) == (128, 64, 0.5)
    assert CPU.config(by_key["osnet"]).baseline == "bagtricks" and FULL.plan("plain", "circle", 0).triplet == "circle"
    plan = CPU.plan("plain", "pcb", 0)
    assert (plan.optimizer, plan.backbone_share, plan.learning_rate, plan.triplet_weight) == ("adam", 1, 1e-3, 0)
    for row in rows:
        if row.strategy == "plain":
            refuse_config(CPU.config(row))


@pytest.mark.slow
def test_methods_of_different_inputs_train_in_one_call(data: Dataset, tmp_path: Path) -> None:
    rows = chosen_rows("table3", ["mgn", "transreid", "cbn+joint", "osnet"])
    architectures: dict[MethodName, str] = {"transreid": "timm:vit_tiny_patch16_224", "osnet": "osnet_x0_25"}
    budget = replace(TINY, input=None, size=(32, 32), architectures=architectures)
    found = reproduce(rows, data, budget, tmp_path, SETTINGS)
    assert [one.name for one in found] == ["MGN", "TransReID", "CBN + joint", "OSNet"]
    card = read_card(tmp_path / "transreid" / "seed-0" / "model")
    assert card.baseline == "transreid" and len(card.cameras) > 1 and card.input.std == (0.5, 0.5, 0.5)


def test_transforms_are_drawn(data: Dataset, tmp_path: Path) -> None:
    rows = chosen_rows("table3", ["pcb", "pcb+separate:sub"])
    found = reproduce(rows, data, replace(TINY, input=None, size=(32, 16)), tmp_path, SETTINGS)
    assert [one.name for one in found] == ["PCB", "PCB + separate, Sub"]
    assert found[1].plain == found[0].scores
    remember(tmp_path, "rendered", None, found[:1])
    assert draw_figures([tmp_path], tmp_path) == []
    remember(tmp_path, "rendered", None, found[1:])
    (tmp_path / "other").mkdir()
    rows_of_other = {"bagtricks+separate": {"ours": results_of(tmp_path)["rows"]["pcb"]["ours"], "paper": None}}
    rows_of_other["bagtricks+separate"]["paper"] = {"rank1": 66.6, "mAP": 63.7, "mINP": None}
    (tmp_path / "other" / "results.json").write_text(json.dumps({"dataset": "CUHK03", "rows": rows_of_other}))
    drawn = draw_figures([tmp_path, tmp_path / "other"], tmp_path)
    assert [path.name for path in drawn] == ["figure4.png", "figure-pcb.png"]
    for path in drawn:
        picture = cv2.imread(str(path))
        assert picture is not None and picture.std() > 5
    with pytest.raises(InputError, match="urban-reid reproduce --work"):
        results_of(tmp_path / "none")


def test_a_row_on_a_foreign_embedder_has_no_figures_in_the_paper(data: Dataset, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    file = onnx_file(model / "m.onnx", (1, 3, 32, 16))
    assert TINY.input is not None
    write_card(foreign_card(file, "someones", stated(TINY.input), SETTINGS), model)
    keys = ["bagtricks+separate", "agw+separate"]
    # The file has three channels, of which a quarter would be none.
    rows = [replace(row, diff_attention=DiffAttentionSettings(reduction=1)) for row in chosen_rows("table1", keys)]
    found = reproduce(rows, data, TINY, tmp_path / "work", SETTINGS, start=model)
    assert [one.name for one in found] == ["BagTricks + separate, on someones", "AGW + separate, on someones"]
    assert [one.paper("CUHK03 detected") for one in found] == [None, None]


def test_rows_are_trained_once_and_compared(data: Dataset, tmp_path: Path) -> None:
    rows = chosen_rows("table1", ["bagtricks+separate", "bagtricks+joint"])
    told: list[str] = []
    found = reproduce(rows, data, TINY, tmp_path, SETTINGS, progress=lambda what, done, total: told.append(what))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bagtricks", "bagtricks+joint", "bagtricks+separate"]
    separate, joint = found
    # The module changes no feature, so its plain distances equal the plain row's.
    assert separate.feature[0].mAP == pytest.approx(separate.plain[0].mAP) and separate.plain == joint.plain
    assert separate.scores[0].by_query is not None and separate.scores[0].queries == joint.scores[0].queries > 0
    assert "BagTricks + separate, seed 0: computing the features to train on" in told
    assert "BagTricks + joint, seed 0: joint training" in told
    assert "BagTricks + joint, seed 0: ranking, attended" in told
    told.clear()
    again = reproduce(rows, data, TINY, tmp_path, SETTINGS, progress=lambda what, done, total: told.append(what))
    assert [one.scores for one in again] == [one.scores for one in found]
    assert not [what for what in told if "seed" in what], "a finished call only reads"
    with pytest.raises(CoreError, match="made with other settings"):
        reproduce(rows, data, replace(TINY, rates={**TINY.rates, "joint": 1e-3}), tmp_path, SETTINGS)
    with pytest.raises(CoreError, match="made with other settings, weights"):
        reproduce(rows[:1], data, TINY, tmp_path, SETTINGS, start=tmp_path / "bagtricks+joint" / "seed-0" / "model")
    # An existing model takes the place of the plain row.
    model = tmp_path / "bagtricks" / "seed-0" / "model"
    (on_top,) = reproduce(rows[:1], data, TINY, tmp_path / "on-top", SETTINGS, start=model)
    assert [path.name for path in (tmp_path / "on-top").iterdir()] == ["bagtricks+separate"]
    assert on_top.scores == separate.scores and on_top.plain == on_top.feature
    assert on_top.name == "BagTricks + separate, on bagtricks" and on_top.paper("CUHK03 detected") is not None
    with pytest.raises(InputError, match=r"AGW \+ separate cannot start from bagtricks, whose baseline is bagtricks"):
        reproduce(chosen_rows("table1", ["agw+separate"]), data, TINY, tmp_path / "agw", SETTINGS, start=model)
    with pytest.raises(InputError, match="only separate rows"):
        reproduce(rows, data, TINY, tmp_path / "on-top", SETTINGS, start=model)
    # What is missing is made again from the checkpoint.
    scores = tmp_path / "bagtricks+joint" / "seed-0" / "scores.json"
    kept = json.loads(scores.read_text())
    scores.unlink()
    shutil.rmtree(scores.parent / "model")
    reproduce(rows, data, TINY, tmp_path, SETTINGS)
    assert json.loads(scores.read_text()) == kept
    # Version 0.1 wrote other names into the scores and the cards.
    for path in (scores, scores.parent / "model" / "card.json"):
        text = path.read_text().replace("center", "centre")  # codespell:ignore centre
        path.write_text(re.sub(r"rank(?=\d)", "rank_", text))
    assert [one.scores for one in reproduce(rows, data, TINY, tmp_path, SETTINGS)] == [one.scores for one in found]
