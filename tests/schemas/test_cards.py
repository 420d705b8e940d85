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
