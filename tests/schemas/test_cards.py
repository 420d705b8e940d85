import pytest
from pydantic import ValidationError

from schemas.cards import ModelCard


def test_a_card_of_version_0_1_is_read_under_the_current_names() -> None:
    card = ModelCard.model_validate(
        {
            "name": "old",
            "architecture": "resnet10s",
            "engine": "torch",
            "dims": 2,
            "sha256": {},
            "metrics": {"rank_1": 50.0, "attended_rank_1": 60.0, "rank-5": 70.0, "mAP": 40.0},
            "details": {
                "compared_with": {"metrics": {"rank_1": 45.0}},
                "nearest_neighbour_distance": 0.5,
            },  # codespell:ignore neighbour
        }
    )
    assert card.metrics == {"rank1": 50.0, "attended_rank1": 60.0, "rank5": 70.0, "mAP": 40.0}
    assert card.details == {"compared_with": {"metrics": {"rank1": 45.0}}, "nearest_neighbor_distance": 0.5}


CARD = '{"name": "m", "architecture": "resnet10s", "engine": "torch", "dims": 2, "sha256": {}, %s}'

CALIBRATION = (
    '{"level": "street", "join_log_odds": 0.5, "review_log_odds": 0, "fitted_on": "nobody", "pairs": 0, "positives": 0,'
    '"terms": {"thick": {"intercept": 1, "slopes": [1]}, "thin": {"intercept": 1, "slopes": [1]}}}'
)


def test_a_card_of_json() -> None:
    card = ModelCard.model_validate_json(CARD % f'"calibration": [{CALIBRATION}]')
    assert card.calibration[0].join_log_odds == 0.5


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ('"dims": 16001', "dims\n.*less than or equal to 16000"),
        ('"dims": 0', "dims\n.*greater than or equal to 1"),
        ('"dims": 1e400', "dims\n.*finite"),
        ('"trained_on": "a\\u0000b"', "trained_on\n.*NUL"),
        ('"metrics": {"mAP": NaN}', "metrics.mAP\n.*finite"),
        ('"metrics": {"mAP\\u0000": 1}', r"metrics.*\n.*NUL"),
        ('"sha256": {"a\\u0000b": ""}', r"sha256.*\n.*NUL"),
        ('"details": {"a": [{"b": "\\u0000"}]}', "details\n.*NUL"),
        ('"details": {"a\\u0000": 1}', "details\n.*NUL"),
        ('"details": {"a": [1e400]}', "details\n.*holds inf"),
        ('"calibration": [{}]'.format(CALIBRATION.replace("0.5", "NaN")), "calibration\n.*holds nan"),
        ('"calibration": [{}]'.format(CALIBRATION.replace("nobody", "\\u0000")), "calibration\n.*NUL"),
        ('"input": {"std": [1, 0, 1]}', r"input.std.1\n.*greater than 0"),
        ('"input": {"mean": [NaN, 0, 1]}', r"input.mean.0\n.*finite"),
        ('"input": {"height": 16001}', r"input.height\n.*less than or equal to 2048"),
    ],
)
def test_values_that_cannot_be_stored_are_refused_with_their_place(field: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ModelCard.model_validate_json(CARD % field)
