"""Outside the distances that a calibration was learned on, nothing is joined."""

import json

import numpy as np

from pipeline.association.log_odds import learned_part
from pipeline.calibration.level_fit import learned_range
from schemas.calibration import LevelCalibration, straight_line
from schemas.levels import Level
from tests.helpers.town import Town

#: Almost level: the line says "one person" at any distance.
EVERYTHING = LevelCalibration(
    level=Level.BUILDING,
    terms=straight_line(0.01, 6.0),
    join_log_odds=2.0,
    review_log_odds=1.0,
    fitted_on="another place",
    pairs=100,
    positives=50,
)


def test_a_distance_outside_counts_like_the_nearer_end() -> None:
    known = EVERYTHING.model_copy(update={"learned": (0.2, 0.6)})
    within, outside = learned_part(known, np.array([0.1, 0.2, 0.5, 0.6, 1.6]))
    assert within.tolist() == [0.2, 0.2, 0.5, 0.6, 0.6] and outside.tolist() == [True, False, False, False, True]
    within, outside = learned_part(EVERYTHING, np.array([1.6]))
    assert within.tolist() == [1.6] and not outside.any()


def test_the_range_is_that_of_the_pairs_and_a_twentieth_more() -> None:
    assert np.allclose(learned_range(np.array([0.4, 0.2, 1.2])), (0.15, 1.25))
    assert learned_range(np.array([0.01, 1.0]))[0] == 0


def test_a_calibration_without_a_range_has_the_json_that_run_keys_hash() -> None:
    assert "learned" not in json.loads(EVERYTHING.model_dump_json())
    known = EVERYTHING.model_copy(update={"learned": (0.2, 0.6)})
    assert LevelCalibration.model_validate_json(known.model_dump_json()) == known


def test_a_calibration_of_another_place_joins_nothing_that_it_has_not_seen(town: Town, lines: list[str]) -> None:
    """The audit's case: probability 1 at every distance. Before, all was joined; now pairs go to review."""
    from pipeline.registry import insert_calibration
    from pipeline.store.copy import copy_out

    town.take_in(lines[:100])
    with town.store.begin() as connection:
        for level in (Level.BUILDING, Level.STREET, Level.DISTRICT):
            elsewhere = EVERYTHING.model_copy(update={"level": level, "learned": (0.0, 0.05)})
            insert_calibration(connection, town.model.id, elsewhere)
    town.resolve()
    with town.store.begin() as connection:
        query = "SELECT verdict::text, distance, probability, operating_point FROM match_decision"
        columns = {"verdict": "text", "distance": "float8", "probability": "float8", "operating_point": "float8"}
        rows = copy_out(connection, query, {}, columns)
    verdict, distance = np.array(rows["verdict"], dtype=object), np.asarray(rows["distance"])
    outside = distance > 0.05
    assert outside.sum() > 10
    assert set(verdict[outside]) == {"review"}
    assert (np.asarray(rows["probability"])[outside] <= np.asarray(rows["operating_point"])[outside]).all()
