import numpy as np
import pytest

from scripts import calibrate_simulated
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city


def test_the_script_trains_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 30 people for one epoch."""
    monkeypatch.setattr(calibrate_simulated, "_PEOPLE", 30)
    monkeypatch.setattr(calibrate_simulated, "_EPOCHS", 1)
    lines: list[str] = []
    module = calibrate_simulated.train_module(lines.append)
    assert not module.training and lines[0].startswith("diff attention, epoch 1 of 1: loss ")
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_passages_are_the_citys_tracklets() -> None:
    found = calibrate_simulated._passages(embedding_city(EmbeddingCitySettings(cameras=8, seed=1)))
    passages = found.passages
    assert len(passages) == len(found.truth) == len(found.crops) > 0
    assert (passages.start_us <= passages.end_us).all() and np.isfinite(passages.features).all()
