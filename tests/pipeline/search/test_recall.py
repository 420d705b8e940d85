"""Large searches look at a shortlist: they say so, and a sample of them is compared with the exact scan."""

from contextlib import nullcontext

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.metrics.collector import CityCollector
from pipeline.search import nearest, recall
from pipeline.search.fast_distances import FastDistances
from pipeline.search.nearest import Compared, Gallery, Stored
from pipeline.search.recall import measure
from tests.helpers.town import Town
from tests.pipeline.search.test_index import agree, ask, index_of, keys


def metric(town: Town) -> float | None:
    found = [family.samples[0].value for family in CityCollector(town.store).collect() if "recall" in family.name]
    return found[0] if found else None


def test_a_large_search_says_so_with_the_recall_that_was_measured(
    resolved: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, key = index_of(resolved), keys(resolved)[0]
    whole = agree(resolved, index, crop_key=key, top=200)
    n = whole.compared
    assert n > 6 and whole.covered.exact and whole.covered.recall is None and metric(resolved) is None
    monkeypatch.setattr(nearest, "EXACT", 6)
    monkeypatch.setattr(recall, "EACH", 2)
    first = ask(resolved, index, crop_key=key, top=3)
    assert not first.covered.exact and first.covered.recall is None
    assert len(first.hits) == 3 and first.hits[0].identity == whole.hits[0].identity
    index.wait()
    for _ in range(2):  # the first of these two is not measured
        second = ask(resolved, index, crop_key=key, top=3)
    index.wait()
    with resolved.store.begin() as connection:
        rows = connection.execute(text("SELECT identities, wanted, found FROM search_recall")).all()
    wanted = min(recall.TOP, n)
    assert len(rows) == 2 and {(row.identities, row.wanted) for row in rows} == {(n, wanted)}
    assert second.covered.recall == rows[0].found / wanted
    assert metric(resolved) == pytest.approx(sum(row.found for row in rows) / (2 * wanted))


def test_recall_is_the_share_of_the_nearest_that_was_compared() -> None:
    n, rng = 40, np.random.default_rng(2)
    v = rng.normal(size=(n, 8)).astype(np.float16)
    ones, every = np.ones(n, np.int64), np.arange(n)
    stored = Stored(v, np.ones(n, np.float32), every, FastDistances(None))
    gallery = Gallery.of(stored, every, ones, every)
    feature = rng.normal(size=8)
    order = np.argsort(gallery.fast_distances(feature, every))
    exact = np.zeros(n, dtype=bool)
    exact[order[[0, 1, 2, 11]]] = True
    compared = Compared(np.zeros(n), exact, every)
    assert measure(gallery, feature, compared, lambda: nullcontext(True)) == (10, 3)
    assert measure(gallery, feature, compared, lambda: nullcontext(False)) is None
