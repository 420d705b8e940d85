"""One contract: the core in this process, in the core process and on Ray Serve gives the same bits and decisions."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.city.decision_digest import decision_digest
from reid_core.serving.factory import open_core
from reid_core.serving.local import LocalCore
from reid_core.serving.remote import RemoteCore
from schemas.settings import Settings
from tests.helpers.core_process import core_process
from tests.helpers.ray_core import ray_core
from tests.helpers.town import Town


def answers(core: LocalCore | RemoteCore) -> tuple[np.ndarray, np.ndarray]:
    """Features of pictures of noise, and distances of features of noise."""
    generator = np.random.default_rng(5)
    size = core.card.input
    pictures = generator.integers(0, 256, (37, size.height, size.width, 3), dtype=np.uint8)
    left, right = generator.normal(size=(2, 333, core.card.dims))
    return core.embed(pictures), core.distances(left, right)


def decisions(town: Town, settings: Settings, lines: list[str], kind: type) -> str:
    """The decision digest of a part of the city, embedded and resolved with the core of these settings."""
    core = open_core(settings, town.model.directory(settings))
    assert isinstance(core, kind)
    town.core = core
    town.take_in(lines)
    assert town.resolve() > 0
    with town.store.begin() as connection:
        return decision_digest(connection)


@pytest.mark.system
def test_the_same_bits_and_decisions(fresh_town: Callable[[], Town], lines: list[str]) -> None:
    alone, beside, elsewhere = fresh_town(), fresh_town(), fresh_town()
    expected = answers(LocalCore.open(alone.store.settings, alone.model.directory(alone.store.settings)))
    digest = decisions(alone, alone.store.settings, lines[:150], LocalCore)

    with core_process(beside.store.settings):
        assert decisions(beside, beside.store.settings, lines[:150], RemoteCore) == digest
        assert isinstance(beside.core, RemoteCore)
        assert all(map(np.array_equal, answers(beside.core), expected))

    with ray_core(elsewhere.store.settings, OMP_NUM_THREADS="1", URBAN_REID_THREADS="1") as core:
        assert decisions(elsewhere, core.settings, lines[:150], RemoteCore) == digest
        assert isinstance(elsewhere.core, RemoteCore)
        assert all(map(np.array_equal, answers(elsewhere.core), expected))
