"""A gallery that is too large to score every identity: what stands in for the others, and what it changes."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.search.likelihood import Reference, look_ratios
from pipeline.search.nearest import Gallery
from pipeline.search.posterior import Evidence, posterior
from reid_core.serving.core import ReIDCore
from tests.pipeline.search.test_posterior import CALIBRATION

IDENTITIES, DIMS = 6000, 32


class Euclidean:
    """A core without diff attention, whose channels weigh differently, so that cosine alone errs."""

    class card:
        diff_attention = None

    def distances(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (left, right)]
        return np.asarray(np.linalg.norm((units[0] - units[1]) * np.linspace(0.8, 1.2, DIMS), axis=1), np.float64)


CORE: ReIDCore = Euclidean()  # type: ignore[assignment]


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    rng = np.random.default_rng(5)
    vectors = rng.integers(1, 6, IDENTITIES)
    return Gallery(np.arange(IDENTITIES), vectors, rng.normal(size=(vectors.sum(), DIMS)).astype(np.float16))


def test_all_are_scored_where_they_are_few(gallery: Gallery) -> None:
    probe = np.random.default_rng(6).normal(size=DIMS)
    found = gallery.compare(CORE, probe)
    assert found.exact.all() and len(found.distance) == IDENTITIES
    begin = np.cumsum(gallery.vectors) - gallery.vectors
    first = CORE.distances(
        np.broadcast_to(probe, (int(gallery.vectors[0]), DIMS)), gallery._v[: gallery.vectors[0]].astype(float)
    )
    assert begin[0] == 0 and found.distance[0] == pytest.approx(first.min())


def test_beyond_the_shortlist_strangers_stand_in_and_change_little(gallery: Gallery) -> None:
    rng = np.random.default_rng(7)
    for trial in range(4):
        own = int(rng.integers(IDENTITIES))
        row = int((np.cumsum(gallery.vectors) - gallery.vectors)[own])
        probe = gallery._v[row].astype(np.float64) + rng.normal(0, 0.6 + 0.2 * trial, DIMS)
        whole, part = gallery.compare(CORE, probe), gallery.compare(CORE, probe, most=2400)
        assert 1500 < part.exact.sum() <= 2400 and part.exact[part.sample].all()
        assert np.array_equal(part.distance[part.exact], whole.distance[part.exact])
        assert part.exact[np.argsort(whole.distance)[:10]].sum() >= 9
        stated = []
        for found in (whole, part):
            reference = Reference.of(replace(found, sample=part.sample).counts(gallery.vectors))
            ratios = look_ratios(CALIBRATION, reference.standardized(found.distance, gallery.vectors), gallery.vectors)
            evidence = posterior(Evidence.of(ratios), CALIBRATION)
            stated.append((evidence.of(float(ratios[own])), evidence.not_here))
        assert np.allclose(stated[0], stated[1], atol=0.01)
