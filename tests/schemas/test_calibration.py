import json

from schemas.calibration import DistanceTerms, LevelCalibration, PairTerms, TransitTimes, straight_line


def test_a_slope_and_an_intercept_are_a_straight_line() -> None:
    rest = {"level": "street", "join_log_odds": 1, "review_log_odds": 0, "fitted_on": "x", "pairs": 2, "positives": 1}
    old = LevelCalibration.model_validate({**rest, "slope": 4.0, "intercept": 3.0})
    assert old == LevelCalibration.model_validate({**rest, "terms": straight_line(4.0, 3.0)})
    assert LevelCalibration.model_validate_json(old.model_dump_json()) == old


def test_json_keeps_the_names_of_version_0_1() -> None:
    """Run keys hash this JSON: other names would resolve every window again."""
    terms = PairTerms(
        knots=(0.5,),
        many_crops=DistanceTerms(intercept=3.0, slopes=(4.0, 5.0)),
        few_crops=DistanceTerms(intercept=1.0, slopes=(2.0, 2.5)),
        transit=0.5,
    )
    times = TransitTimes(lookback_s=60.0, same=((1.0,),), strangers=((1.0,),), kind_log_ratios=(0.0,))
    calibration = LevelCalibration(
        level="street",
        terms=terms,
        transit=times,
        join_log_odds=1.0,
        review_log_odds=0.0,
        fitted_on="x",
        pairs=2,
        positives=1,
    )
    stored = (
        '{"level":"street","terms":{"knots":[0.5],"thick":{"intercept":3.0,"slopes":[4.0,5.0]},"thin":{"intercept":1.0,'
        '"slopes":[2.0,2.5]},"transit":0.5},"transit":{"looked_s":60.0,"same":[[1.0]],"strangers":[[1.0]],'
        '"ways":[0.0],"routes":[],"joins":0.0,"compared":0.0,"wrong_share":0.0},"join_log_odds":1.0,'
        '"review_log_odds":0.0,"fitted_on":"x","pairs":2,"positives":1,"false_merges":null,"reliability":null,'
        '"decisions":null}'
    )
    assert calibration.model_dump_json() == stored
    assert calibration.model_dump(mode="json") == json.loads(stored)
    assert LevelCalibration.model_validate_json(stored) == calibration
