import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reid_core.datasets import Dataset, open_dataset
from reid_core.files import write_card
from reid_core.serving.foreign import foreign_card
from reid_core.training.paper import TABLE_1, TABLE_2
from reid_core.training.plans import paper_settings
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
    for baseline in ("bagtricks", "agw"):
        for strategy in ("plain", "joint", "separate"):
            plan, paper = FULL.plan(strategy, baseline, 0), paper_settings(strategy, baseline)
            assert replace(plan, validate_every=paper.validate_every) == paper
    assert set(BUDGETS) == {"full", "cpu"} and CPU.plan("separate", "agw", 2).seed == 2


def test_a_row_on_a_foreign_embedder_has_no_figures_in_the_paper(data: Dataset, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    file = onnx_file(model / "m.onnx", (1, 3, 32, 16))
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
