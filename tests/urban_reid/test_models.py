"""Models at the command line: comparison, promotion, rollback, calibration, and their errors."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from sqlalchemy import text

from pipeline.calibration.fit import Fitted
from pipeline.calibration.reliability import Joins, false_merges, judge
from pipeline.city.decision_digest import decision_digest
from pipeline.registry import model_in_use, register_model
from reid_core.files import read_card, save_model
from reid_core.models import build_model
from schemas.cards import InputConvention, ModelConfig
from schemas.levels import Level
from synthetic.training import training_set
from tests.helpers.command_line import Run, environment_of, error_of
from tests.helpers.town import Town
from urban_reid.commands.models import calibration_table

SECOND = ModelConfig(architecture="resnet10s", input=InputConvention(height=64, width=32))


@pytest.fixture
def second(town: Town, lines: list[str], model_folder: Path, tmp_path: Path) -> Town:
    """A resolved city with a second, untrained model."""
    town.take_in(lines[:30])
    town.resolve()
    torch.manual_seed(1)
    save_model(build_model(SECOND), tmp_path / "m", name="second", calibration=read_card(model_folder).calibration)
    register_model(town.store, town.store.settings, tmp_path / "m", "second")
    return town


@pytest.fixture
def done(run_here: Run) -> Callable[..., dict[str, Any]]:
    """Runs a command with --json that must succeed. Returns what it printed."""

    def call(*arguments: str) -> dict[str, Any]:
        ended = run_here(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    return call


def test_from_a_comparison_to_a_rollback(second: Town, run_here: Run, done: Callable[..., dict[str, Any]]) -> None:
    words = ("--operator", "bert", "--reason", "order 12")
    promote = ("models", "promote", "second", *words)
    assert "never compared with test; `urban-reid models compare second" in error_of(run_here(*promote), 2)
    found = done("models", "compare", "second", "--dataset", "rendered:5:12")
    assert found["against"] == "test" and found["worse"]  # it is untrained
    listed = {row["name"]: row for row in done("models", "list")["models"]}
    assert listed["second"]["comparison"] == {key: value for key, value in found.items() if key != "name"}
    assert listed["test"]["comparison"] is None and listed["test"]["in_use"]
    assert "worse than test: mAP" in error_of(run_here(*promote), 2)
    switched = done(*promote, "--force")
    assert switched == {
        "model": "second",
        "before": "test",
        "crops": 30,
        "identities": switched["identities"],
        "unknown": {},
        "uncalibrated": [],
    }
    assert "resolved with model second" in error_of(run_here("models", "use", "test"), 2)
    back = done("models", "rollback", *words)
    assert (back["model"], back["before"], back["crops"], back["identities"]) == ("test", "second", 0, 0)
    assert "nothing to go back to" in error_of(run_here("models", "rollback", *words), 2)
    shown = run_here("models", "list").stdout
    assert "second" in shown and "difference to test" in shown
    with second.store.signed_in() as connection:
        acts = connection.execute(text("SELECT action, actor, reason FROM audit WHERE reason IS NOT NULL ORDER BY id"))
        assert [tuple(row) for row in acts] == [
            ("model.promote", "bert", "order 12"),
            ("model.rollback", "bert", "order 12"),
        ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("models", "promote", "second", "--reason", " "), "--reason: may not be blank"),
        (("models", "promote", "nobody", "--reason", "x"), "there are: test"),
        (("models", "compare", "test", "--dataset", "rendered:5:4"), "test cannot be compared with itself"),
        (("models", "compare", "test", "--dataset", "nowhere:x"), "or rendered:SEED"),
        (("identities", "confirm", "abcdef", "--reason", "x"), "no identity's id begins with 'abcdef'"),
        (("train", "new", "--dataset", "market1501:/data", "--reason", "x", "--epochs", "0"), "--epochs: "),
        (("train", "../new", "--dataset", "confirmed", "--reason", "x"), "--name: "),
        (("train", "new", "--dataset", "confirmed", "--reason", "x", "--architecture", "r50"), "no architecture 'r50'"),
    ],
)
def test_wrong_arguments_are_one_line(town: Town, run_here: Run, arguments: tuple[str, ...], message: str) -> None:
    assert message in error_of(run_here(*arguments), 2)


@pytest.mark.system
def test_a_calibration_on_a_data_set(
    town: Town, run_here: Run, done: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """The second run asks for a rate that can only be kept if every join is right."""
    pictures = training_set(3, 25, 4, (64, 32), pictures_per_passage=1, cameras=4)
    folder = tmp_path / "data" / "bounding_box_train"
    folder.mkdir(parents=True)
    rows = zip(pictures.identities.tolist(), pictures.cameras.tolist(), pictures.pictures, strict=True)
    for row, (person, camera, picture) in enumerate(rows):
        cv2.imwrite(str(folder / f"{person + 1:04d}_c{camera + 1}s1_{row:06d}_00.jpg"), picture)
    calibrate = ("models", "calibrate", "test", "--dataset", f"market1501:{folder.parent}", "--false-merges")
    found = done(*calibrate, "0.3")
    street = found["levels"]["street"]
    assert found["false_merges"] == 0.3
    assert street["decisions"]["count"] > 0
    assert street["false_merges"]["low"] < street["false_merges"]["rate"] <= 0.3
    assert street["reliability"] is None  # all people are from one city
    assert found["levels"]["district"]["false_merges"]["joins"] == 0  # all cameras are in one street
    ended = run_here(*calibrate, "0")
    kept = re.search(r"street .* 0\.0% \(0\.0%-", ended.stdout)
    assert ended.returncode == 0 and (
        kept or "street: no operating point keeps the false merges at 0.0%" in ended.stdout
    )


def test_the_calibration_table_fits_into_eighty_columns(model_folder: Path) -> None:
    predicted = np.linspace(0, 1, 1_000)
    merges = false_merges(Joins(0.0, np.arange(1_000) % 50 == 0, np.arange(1_000) // 4))
    judged = judge(predicted, predicted > 0.5)
    measured = {"false_merges": merges, "reliability": judged, "pairs": 1_234_567, "positives": 123_456}
    old, *fits = read_card(model_folder).calibration
    fitted = Fitted((old, *(fit.model_copy(update=measured) for fit in fits)), {Level.STREET: 0.9}, {})
    with StringIO() as file:
        Console(file=file, width=80).print(calibration_table(fitted))
        lines = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    assert "building 0 0 +0.0" in lines  # made before reliability and false merges were measured
    street = next(at for at, line in enumerate(lines) if line.startswith("street"))
    shortlist, middle, merged = judged.shortlist.ece, judged.middle.ece, f"2.0% ({merges.low:.1%}-{merges.high:.1%})"
    assert lines[street] == f"street 1234567 123456 +0.0 0.900 {shortlist:.3f} {merged}"
    assert lines[street + 1] == f"{middle:.3f} 20 of 1000"


def test_a_false_merge_rate_is_at_most_1(run_here: Run) -> None:
    ended = run_here("models", "calibrate", "test", "--dataset", "simulated:1", "--false-merges", "1.5")
    assert ended.returncode == 2 and "--false-merges" in ended.stderr


#: The command with small batches, so that a small city takes several.
_PROMOTE = """
import sys
from pipeline.training import reembed
from pipeline.resolve import embed
from urban_reid.cli import main
embed.BATCH, reembed.BATCH = 8, 4
main(["models", "promote", "second", "--operator", "bert", "--reason", "order 12", "--force", "--json"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("table", ["crop_embedding", "prototype"])
def test_a_killed_promotion_continues(second: Town, lines: list[str], table: str) -> None:
    """Finished batches stay, nothing is written twice, and the earlier model is in use until the end."""
    second.take_in(lines[30:120])
    second.resolve()
    with second.store.begin() as connection:
        before = decision_digest(connection, None)
        other = connection.scalar(text("SELECT id FROM model WHERE name = 'second'"))
        identities = connection.scalar(text("SELECT count(*) FROM identity WHERE NOT retired"))
    promote = [sys.executable, "-P", "-c", _PROMOTE]
    where: dict[str, Any] = {"env": environment_of(second.store.settings), "cwd": second.store.settings.home}

    def made() -> dict[str, int]:
        with second.store.begin() as connection:
            rows = {
                "crop_embedding": "SELECT count(*) FROM crop_embedding WHERE model_id = :id",
                "prototype": "SELECT count(DISTINCT identity_id) FROM prototype WHERE model_id = :id",
            }
            return {name: connection.scalar(text(sql), {"id": other}) or 0 for name, sql in rows.items()}

    with subprocess.Popen(promote, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **where) as process:
        while not made()[table]:
            assert process.poll() is None, process.communicate()
        process.kill()
    done = made()
    assert 0 < done[table] < {"crop_embedding": 120, "prototype": identities}[table]
    with second.store.begin() as connection:
        assert model_in_use(connection).name == "test"
        assert connection.scalar(text("SELECT count(*) FROM model_switch WHERE kind = 'promote'")) == 0
    again = subprocess.run(promote, capture_output=True, text=True, **where)
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert found["crops"] == 120 - done["crop_embedding"]
    assert found["identities"] == identities - done["prototype"]
    assert made() == {"crop_embedding": 120, "prototype": identities}
    with second.store.begin() as connection:
        assert model_in_use(connection).name == "second"
        assert decision_digest(connection, None) == before
