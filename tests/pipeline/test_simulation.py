"""The score of a whole simulated city, and a report on crops without pictures."""

import re
from pathlib import Path

import pytest

from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.scorecard import scorecard
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow
from pipeline.report import write_report
from pipeline.resolve import resolve_unit, units_within
from pipeline.simulation import ingest_simulated, score_city
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.levels import UPWARD, Level
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city
from tests.helpers.report_pages import read_pages


@pytest.fixture
def city(store: Store) -> ModelRow:
    """A small simulated city in the store, resolved; the model in use."""
    plan = EmbeddingCitySettings(cameras=6, people=25, days=0.1, seed=3)
    model = ingest_simulated(store, embedding_city(plan))
    core = open_core(store.settings, model.directory(store.settings))
    for unit in units_within(store, "d1"):
        resolve_unit(store, core, model, unit, settings=store.settings.association)
    return model


def test_the_score_of_a_city_is_that_of_its_district(store: Store, city: ModelRow) -> None:
    score = score_city(store, city)
    labeled = labeled_tracklets(store, "d1", city.id)
    card = scorecard(store, "d1", labeled)
    assert score.tracklets == len(labeled.key) > 50
    for level in UPWARD[1:]:
        assert score.idf1[level] == round(card[level]["idf1"], 4)
        assert score.pairwise_f1[level] == round(card[level]["pairwise_f1"], 4)
        assert score.reviews[level] == card[level]["reviews"]
    assert score.violations == card[Level.DISTRICT]["violations"]


def test_the_report_says_that_there_are_no_pictures(store: Store, city: ModelRow, tmp_path: Path) -> None:
    write_report(store, CropStore(store.settings), "d1", tmp_path)
    pages = read_pages(tmp_path)
    assert "These crops were ingested as features: there are no pictures to show." in pages["index.html"].text
    assert "This report shows movements of people." in pages["index.html"].text
    for page in pages.values():
        assert page.pictures == set()
        assert not re.search(r"missing or damaged|no picture\b|without picture|pictures of people", page.text)
