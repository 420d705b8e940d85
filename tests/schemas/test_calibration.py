from schemas.calibration import LevelCalibration, straight_line


def test_a_slope_and_an_intercept_are_a_straight_line() -> None:
    rest = {"level": "street", "join_log_odds": 1, "review_log_odds": 0, "fitted_on": "x", "pairs": 2, "positives": 1}
    old = LevelCalibration.model_validate({**rest, "slope": 4.0, "intercept": 3.0})
    assert old == LevelCalibration.model_validate({**rest, "terms": straight_line(4.0, 3.0)})
    assert LevelCalibration.model_validate_json(old.model_dump_json()) == old
