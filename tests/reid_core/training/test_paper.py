import pytest

from reid_core.training.paper import DATASETS, TABLE_1, TABLE_2, Figures, figures_on, row_of
from schemas.cards import DiffAttentionSettings, InputConvention, ModelCard


def card(baseline: str, strategy: str, attention: DiffAttentionSettings | None) -> ModelCard:
    return ModelCard.model_validate(
        {
            "name": "any",
            "engine": "torch",
            "architecture": "resnet50",
            "baseline": baseline,
            "dims": 2048,
            "input": InputConvention(),
            "strategy": strategy,
            "diff_attention": attention,
            "sha256": {},
        }
    )


@pytest.mark.parametrize(
    ("baseline", "strategy", "transform", "distances", "name"),
    [
        ("bagtricks", "plain", None, "plain", "BagTricks"),
        ("bagtricks", "joint", "sub_abs", "plain", "BagTricks"),
        ("bagtricks", "joint", "sub_abs", "attended", "BagTricks + joint"),
        ("agw", "separate", "sub_abs", "attended", "AGW + separate"),
        ("agw", "separate", "sub", "attended", "AGW + separate, Sub"),
        ("agw", "joint", "sub", "attended", None),  # the paper trained no such model
        ("agw", "joint", "sub_abs", "reranked", None),
        ("foreign", "separate", "sub_abs", "attended", None),
    ],
)
def test_a_models_row(baseline: str, strategy: str, transform: str | None, distances: str, name: str | None) -> None:
    attention = None if transform is None else DiffAttentionSettings.model_validate({"transform": transform})
    row = row_of(card(baseline, strategy, attention), distances)
    assert (row and row.name) == name


def test_figures_are_found_by_the_data_sets_published_name() -> None:
    assert figures_on(TABLE_1[4], "CUHK03 detected") == figures_on(TABLE_1[4], "CUHK03") == Figures(70.3, 69.2, 58.7)
    assert figures_on(TABLE_2[0], "MSMT17") == Figures(65.5, 46.5, 13.3)
    assert figures_on(TABLE_1[0], "rendered people") is None


def test_the_tables_agree_on_the_same_models() -> None:
    assert [len(row.figures) for row in (*TABLE_1, *TABLE_2)] == [len(DATASETS)] * 12
    for first, second in ((TABLE_1[2], TABLE_2[2]), (TABLE_1[5], TABLE_2[5])):
        assert (first.baseline, first.figures) == (second.baseline, second.figures)
    gains = [TABLE_1[i].figures["CUHK03"].mAP - TABLE_1[i // 3 * 3].figures["CUHK03"].mAP for i in (1, 2, 4, 5)]
    assert gains == pytest.approx([5.9, 7.1, 7.2, 5.9])
