import shutil
from pathlib import Path

import pytest

from reid_core.datasets import open_dataset
from reid_core.evaluate import evaluate
from reid_core.files import write_card
from reid_core.foreign import foreign_card, foreign_files
from schemas.cards import InputConvention
from schemas.settings import Settings, settings


@pytest.mark.slow
def test_a_published_embedder_scores_on_the_real_set_what_others_measured(tmp_path: Path) -> None:
    real, assets = settings().real_set, settings().test_assets
    if real is None or assets is None:
        pytest.skip("URBAN_REID_REAL_SET and URBAN_REID_TEST_ASSETS are not both set")
    name = "person-reidentification-retail-0277"
    source = assets / "models" / name / f"{name}.xml"
    for file in foreign_files(source):
        shutil.copy(file, tmp_path)
    colours = InputConvention(color="bgr", range=255, mean=(0, 0, 0), std=(1, 1, 1))
    quick = Settings(device="cpu")
    card = foreign_card(tmp_path / source.name, "retail", colours, quick)
    write_card(card, tmp_path)
    people = open_dataset(f"market1501:{real}")
    query, gallery = people.load("query", card.input), people.load("gallery", card.input)
    found = evaluate(quick, tmp_path, query, gallery)
    assert found.keys() == {"plain"}
    assert (found["plain"].rank_1, found["plain"].mAP) == pytest.approx((82.9, 81.1), abs=1.0)
    assert found["plain"].queries == 451
