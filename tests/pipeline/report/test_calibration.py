"""The calibration on the first page: its reliability, its false merges, and the drift of the data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.calibration.drift import decision_distances, profile
from pipeline.calibration.fit import Fitted, write_calibrations
from pipeline.calibration.reliability import Joins, false_merges, judge
from pipeline.report import write_report
from pipeline.report.curves import BOTTOM, LEFT, RIGHT, SQUARE_BOTTOM, TOP, draw_reliabilities
from schemas.calibration import Judgment, LevelCalibration, Reliability
from schemas.levels import UPWARD, Level
from tests.helpers.report_pages import Page, read_pages
from tests.helpers.reported import Reported
from tests.helpers.town import Town

EMPTY = Reliability(predicted=(), observed=(), counts=(), ece=0.0)


def judged(seed: int = 0) -> Judgment:
    rng = np.random.default_rng(seed)
    predicted = rng.beta(0.3, 0.9, 3_000)
    return judge(predicted, rng.random(3_000) < predicted**1.2)


@pytest.fixture
def page_of(resolved: Town, tmp_path: Path) -> Callable[..., Page]:
    """Makes the first page after changing each level's calibration."""

    def page(change: Callable[[Level], dict[str, Any]]) -> Page:
        levels = tuple(fit.model_copy(update=change(fit.level)) for fit in resolved.model.card.calibration)
        write_calibrations(resolved.store, resolved.model.id, Fitted(levels, {}, {}))
        write_report(resolved.store, resolved.crops, "d1", tmp_path / "report")
        return read_pages(tmp_path / "report")["index.html"]

    return page


def distances(town: Town, level: Level) -> np.ndarray:
    with town.store.begin() as connection:
        return decision_distances(connection, level, town.model.id, "d1")


def test_decision_distances_are_of_one_unit_level_and_model(resolved: Town) -> None:
    with resolved.store.begin() as connection:
        both = [decision_distances(connection, Level.BUILDING, resolved.model.id, f"d1/s{n}") for n in (1, 2)]
        assert not len(decision_distances(connection, Level.BUILDING, resolved.model.id + 1))
        everywhere = decision_distances(connection, Level.BUILDING, resolved.model.id)
    assert all(len(part) for part in both)
    assert np.array_equal(np.sort(np.concatenate(both)), np.sort(everywhere))
    assert np.array_equal(np.sort(everywhere), np.sort(distances(resolved, Level.BUILDING)))


def test_the_data_of_the_calibration_have_no_drift(resolved: Town, page_of: Callable[..., Page]) -> None:
    index = page_of(lambda level: {"decisions": profile(distances(resolved, level))})
    for level in UPWARD[1:]:
        assert f"Drift: none in the distances of {len(distances(resolved, level))} decision" in index.text
    assert "drifted" not in index.text


def test_a_level_that_drifted_is_named_with_what_to_do(resolved: Town, page_of: Callable[..., Page]) -> None:
    merges = false_merges(Joins(0.0, np.arange(400) % 20 == 0, np.arange(400) // 4))

    def change(level: Level) -> dict[str, Any]:
        shift = 0.5 if level is Level.BUILDING else 0.0
        return {"decisions": profile(np.tile(distances(resolved, level) + shift, 10)), "false_merges": merges}

    index = page_of(change)
    # At the head of the page; and the rate that was measured elsewhere is not stated where it does not hold.
    assert index.text.index("have drifted from the calibration") < index.text.index("From cameras to the district")
    assert index.text.count("False merges: not known here") == 1
    assert index.text.count("False merges on those data") == 2
    assert "drifted from the calibration at building level" in index.text
    assert "urban-reid models calibrate test --dataset" in index.text
    assert index.text.count("Drift: drifted in the distances of") == 1


def test_reliability_and_false_merges_are_shown(page_of: Callable[..., Page]) -> None:
    merges = false_merges(Joins(0.0, np.arange(400) % 20 == 0, np.arange(400) // 4))
    found = judged()
    index = page_of(lambda level: {"reliability": found, "false_merges": merges} if level is Level.STREET else {})
    stated = f"5.0% , 20 of 400 joins (95% interval {merges.low:.1%}–{merges.high:.1%})"
    assert f"False merges on those data: {stated}" in index.text
    assert index.text.count("False merges on those data") == 1
    assert f"expected calibration error {found.shortlist.ece:.3f} , middle {found.middle.ece:.3f}" in index.text
    circles = [
        names for tag, names in index.elements if tag == "circle" and names.get("class") in ("shortlist", "middle")
    ]
    assert len(circles) == len(found.shortlist.counts) + len(found.middle.counts)
    assert "Reliability at street level" in " ".join(names.get("aria-label") or "" for _, names in index.elements)


def test_a_calibration_without_any_of_them_is_shown(reported: Reported) -> None:
    """As one that was made before these were measured."""
    index = read_pages(reported.out)["index.html"]
    old = LevelCalibration.model_validate_json(
        reported.town.model.card.calibration[0].model_dump_json(exclude_unset=True)
    )
    assert old.decisions is None and old.reliability is None
    assert "This calibration has no reliability curves" in index.text
    assert index.text.count("does not hold the distances of its decisions") == 3
    assert "False merges" not in index.text


def test_perfect_probabilities_lie_on_the_diagonal_and_areas_are_proportional_to_pairs() -> None:
    exact = Reliability(predicted=(0.0, 0.25, 1.0), observed=(0.0, 0.25, 1.0), counts=(100, 25, 4), ece=0.0)
    drawn = draw_reliabilities(Level.STREET, Judgment(shortlist=exact, middle=EMPTY))
    assert drawn.middle == []
    assert SQUARE_BOTTOM - TOP == RIGHT - LEFT and SQUARE_BOTTOM > BOTTOM
    for point in drawn.shortlist:
        assert point.x - LEFT == pytest.approx(SQUARE_BOTTOM - point.y)
    assert (drawn.shortlist[0].x, drawn.shortlist[-1].x) == (LEFT, RIGHT)
    areas = [point.radius**2 for point in drawn.shortlist]
    assert areas[0] / areas[1] == pytest.approx(4)
