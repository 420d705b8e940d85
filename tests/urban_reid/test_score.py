"""urban-reid score, on a small store that is written by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.city.units import store_city
from pipeline.registry import register_model, use_model
from pipeline.store import Store
from schemas.levels import Level
from tests.helpers.command_line import Run, error_of, messages_of
from tests.helpers.labeled_city import BUILDING, CAMERA, CITY, CROPS, END, START, STREET, TRUTH
from tests.helpers.resolved_city import key, write_level, write_tracklets
from tests.helpers.town import PACKAGED


@pytest.fixture
def city(store: Store) -> None:
    store_city(store, CITY)
    register_model(store, store.settings, PACKAGED, "demo")
    model = use_model(store, "demo")
    features = np.random.default_rng(0).normal(size=(len(CAMERA), model.dims))
    tracklets = write_tracklets(store, model.id, CAMERA, START, END, CROPS, TRUTH, features)
    for level, group in ((Level.BUILDING, BUILDING), (Level.STREET, STREET)):
        write_level(store, model.id, level, CAMERA, group, tracklets)


@pytest.mark.usefixtures("city")
def test_the_truth_that_came_with_the_crops(run_here: Run) -> None:
    done = run_here("score", "--unit", "d1", "--json")
    assert done.returncode == 0 and not messages_of(done.stderr)
    found = json.loads(done.stdout)
    assert (found["unit"], found["model"], found["tracklets"], found["people"]) == ("d1", "demo", 5, 3)
    assert set(found["levels"]) == {"building", "street", "district"} and "labels" not in found
    assert found["levels"]["building"]["recall"] == 1.0 and found["levels"]["street"]["violations"] == 1
    shown = run_here("score", "--unit", "d1/s1").stdout
    assert "5 tracklets, 3 people" in shown and "district" not in shown
    for name in ("pairwise F1", "IDF1", "V-measure", "impossible pairs in one identity", "of these, needed"):
        assert name in shown


@pytest.mark.usefixtures("city")
def test_labels_of_a_file(run_here: Run, tmp_path: Path) -> None:
    people = ("anna", "anna", "anna", "bert")
    rows = [f"{key('crop', i, 0).hex()},{person}" for i, person in enumerate(people)]
    (tmp_path / "labels.csv").write_text("\n".join(["crop,truth", *rows, f"{'ab' * 32},cleo"]) + "\n")
    done = run_here("score", "--unit", "d1", "--truth", "labels.csv", "--json")
    assert done.stderr == "1 of 5 labels name no crop of d1\n"
    found = json.loads(done.stdout)
    assert (found["tracklets"], found["people"], found["labels"]) == (4, 2, {"given": 5, "matched": 4})
    assert found["levels"]["building"]["pairwise_f1"] == 1.0


@pytest.mark.usefixtures("city")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--unit", "d1/s1/b1/c1"), "--unit d1/s1/b1/c1: is a camera"),
        (("--unit", "D1"), "is not a unit code"),
        (("--unit", "d2"), "no unit 'd2' in this city; nearest: d1"),
        (("--unit", "d1", "--truth", "nothing.csv"), "nothing.csv: cannot be read"),
        (("--unit", "d1", "--truth", "bad.csv"), "bad.csv: line 2: crop 'x': not a key"),
        (("--unit", "d1", "--truth", "two.csv"), "two.csv: line 3: 'bert' contradicts line 2, which says 'anna'"),
        (("--unit", "d1", "--truth", "others.csv"), "others.csv: none of its 1 labels names a crop of d1"),
    ],
)
def test_bad_arguments(run_here: Run, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "bad.csv").write_text("crop,truth\nx,anna\n")
    crop = key("crop", 0, 0).hex()
    (tmp_path / "two.csv").write_text(f"crop,truth\n{crop},anna\n{crop},bert\n")
    (tmp_path / "others.csv").write_text(f"crop,truth\n{'ab' * 32},anna\n")
    assert message in error_of(run_here("score", *arguments), 2)


def test_an_unlabeled_city(store: Store, run_here: Run) -> None:
    store_city(store, CITY)
    assert "no model is in use" in error_of(run_here("score", "--unit", "d1"), 2)
    register_model(store, store.settings, PACKAGED, "demo")
    use_model(store, "demo")
    assert "no tracklet of d1 has a label" in error_of(run_here("score", "--unit", "d1"), 2)
