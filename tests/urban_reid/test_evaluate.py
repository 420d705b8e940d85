import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import reid_core
from reid_core.datasets import Dataset, open_dataset
from reid_core.datasets.published import CUHK03_DETECTED
from reid_core.files import read_card
from schemas.settings import Settings
from tests.helpers.command_line import Run, error_of, messages_of
from tests.helpers.town import PACKAGED

SMALL = "rendered:5:12"
EXPORT = ["models", "export", "--format", "onnx"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGED, tmp_path / "model"))


def test_json_has_the_figures_of_what_was_asked_for(run_here: Run, model: Path) -> None:
    done = run_here("evaluate", "--model", str(model), "--dataset", SMALL, "--rerank", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and not messages_of(done.stderr)
    found = json.loads(done.stdout)
    data = open_dataset(SMALL)
    assert (found["queries"], found["gallery"], found["skipped"]) == (len(data.query), len(data.gallery), 0)
    assert found["distances"] == "reranked" and list(found["rows"]) == ["plain", "attended", "reranked"]
    assert {key: found[key] for key in ("rank1", "mAP", "mINP")}.items() <= found["rows"]["reranked"].items()
    assert 50 < found["rows"]["plain"]["mAP"] < 100 and 50 < found["mAP"] <= 100
    assert found["rows"]["attended"]["tpr_at_fpr"]["0.1"]["fpr"] <= 0.1
    assert found["operating_point"] is None  # 900 pairs of two people in each half say nothing about one in a thousand


def test_the_operating_point_is_kept_on_request(run_here: Run, model: Path) -> None:
    before = read_card(model)
    asked = ("evaluate", "--model", str(model), "--dataset", SMALL, "--fpr", "0.05")
    done = run_here(*asked)
    assert done.returncode == 0, done.stderr
    assert "operating point for FPR 0.05: attended distance" in " ".join(done.stdout.split())
    assert read_card(model) == before
    done = run_here(*asked, "--store", "--json")
    point = read_card(model).operating_point
    assert point is not None and point.distances == "attended" and point.measured_on == SMALL
    assert json.loads(done.stdout)["operating_point"] == point.model_dump(mode="json")


def test_a_registered_model_by_its_name(run_here: Run, settings: Settings, model: Path) -> None:
    assert run_here("models", "register", "seen", str(model)).returncode == 0
    done = run_here("evaluate", "--model", "seen", "--dataset", SMALL, "--fpr", "0.05", "--store", "--json")
    found = json.loads(done.stdout)
    assert found["model"] == "seen"
    kept = read_card(settings.models_dir / "seen").operating_point
    assert kept is not None and kept.model_dump(mode="json") == found["operating_point"]


def test_the_papers_figures_are_shown_for_its_data_sets(
    run_here: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rendered people under the name of CUHK03, whose pictures may not be shipped."""
    small = open_dataset(SMALL)
    known = Dataset(SMALL, small.train, small.query, small.gallery, published=CUHK03_DETECTED)
    monkeypatch.setattr("reid_core.datasets.open_dataset", lambda source, progress=None: known)
    asked = ("evaluate", "--model", str(model), "--dataset", SMALL, "--pairs", "top5")
    rows = json.loads(run_here(*asked, "--json").stdout)["rows"]
    assert rows["plain"]["paper"] == {"row": "BagTricks", "rank1": 58.0, "mAP": 56.6, "mINP": 43.8}
    strategy = read_card(model).strategy
    assert rows["attended"]["paper"]["row"] == f"BagTricks + {strategy}"
    assert "tpr_at_fpr" not in rows["attended"]
    line = next(line for line in run_here(*asked).stdout.splitlines() if "paper: BagTricks " in line)
    assert [part for part in line.split() if part != "│"] == ["paper:", "BagTricks", "58.0", "56.6", "43.8"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pairs", "some"], "--pairs 'some'"),
        (["--pairs", "top0"], "--pairs 'top0'"),
        (["--fpr", "0"], "--fpr"),
        (["--store", "--flip"], "--store"),
        (["--range", "255"], "input convention"),
        (["--mean", "1,2"], "--mean '1,2'"),
        (["--dataset", "elsewhere:1"], "elsewhere"),
        (["--basis", "no/folder"], "no/folder: no such"),
    ],
)
def test_an_invalid_option_is_one_line(run_here: Run, model: Path, options: list[str], said: str) -> None:
    done = run_here("evaluate", "--model", str(model), "--dataset", SMALL, *options)
    assert said in error_of(done, 2)


def test_normalized_features_and_a_basis_are_rows_of_their_own(run_here: Run, model: Path, tmp_path: Path) -> None:
    asked = ("evaluate", "--model", str(model), "--dataset", "rendered:5:8", "--normalize", "cameras", "--fpr", "0.1")
    found = json.loads(run_here(*asked, "--basis", "train", "--store", "--json").stdout)
    assert list(found["rows"]) == ["plain", "attended", "normalized", "basis"] and found["distances"] == "basis"
    plain, of_basis = found["rows"]["plain"], found["rows"]["basis"]  # both rank these eight people without a fault
    assert found["mAP"] == of_basis["mAP"] and of_basis["tpr_at_fpr"] != plain["tpr_at_fpr"]
    assert of_basis["operating_point"] is None
    assert found["operating_point"]["distances"] == "attended"  # the threshold is for what the city compares by
    opened, data = reid_core.open_model(model), open_dataset("rendered:5:8")
    people = data.load("train", opened.card.input)
    features, cameras = opened.embed(people.pictures), list(map(str, people.cameras))
    space = reid_core.learn_means(features, cameras)
    space.save(tmp_path / "no basis")
    assert "has no basis" in error_of(run_here(*asked, "--basis", str(tmp_path / "no basis")), 2)
    basis = reid_core.learn_basis(space.apply(features, cameras), people.identities.tolist())
    reid_core.FeatureSpace(space.units, space.means, basis).save(tmp_path / "space")
    again = json.loads(run_here(*asked, "--basis", str(tmp_path / "space"), "--json").stdout)
    assert again["rows"]["basis"] == found["rows"]["basis"]


def test_a_threshold_that_cannot_be_set_is_not_kept(run_here: Run, model: Path) -> None:
    done = run_here("evaluate", "--model", str(model), "--dataset", SMALL, "--store")
    assert "no threshold for a false positive rate of 0.001" in error_of(done, 2)
    assert read_card(model).operating_point is None


def test_an_unregistered_name(run_here: Run) -> None:
    done = run_here("evaluate", "--model", "nobody", "--dataset", SMALL)
    assert "'nobody'" in error_of(done, 2)


@pytest.mark.parametrize("command", [["evaluate", "--dataset", SMALL, "--model"], EXPORT])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "no model is registered in"),
        ("gone.onnx", "'gone.onnx' is not a file or folder"),
        ("no/folder", "no/folder: no such file or model directory"),
        ("a" * 300, "File name too long"),
    ],
)
def test_no_database_is_made_to_say_that_there_is_no_model(
    run_here: Run, home: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], name: str, said: str
) -> None:
    monkeypatch.delenv("URBAN_REID_DATABASE_URL")
    monkeypatch.setenv("URBAN_REID_HOME", str(home))
    done = run_here(*command, name, *(["--out", "exported"] if "export" in command else []))
    assert said in error_of(done, 2)
    assert not list(home.iterdir())


def test_a_path_that_is_not_there_is_no_name(run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no database is asked for it; the one of this test does not answer."""
    monkeypatch.setenv("URBAN_REID_DATABASE_URL", "postgresql+psycopg2://nobody:secret@127.0.0.1:9/none")
    done = run_here("evaluate", "--model", "no/folder", "--dataset", SMALL)
    assert "no/folder: no such file or model directory" in error_of(done, 2)


def test_people_seen_by_one_camera_only_cannot_be_ranked(run_here: Run, model: Path, tmp_path: Path) -> None:
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        picture = np.random.default_rng(0).integers(0, 255, (64, 32, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "data" / folder / "0001_c1s1_000001_00.jpg"), picture)
    done = run_here("evaluate", "--model", str(model), "--dataset", f"market1501:{tmp_path / 'data'}")
    assert "no query has a match at another camera" in error_of(done, 2)
