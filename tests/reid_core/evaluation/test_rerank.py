import numpy as np
import pytest
import torch

from reid_core.diff_attention import DiffAttention
from reid_core.evaluation.distances import plain, reciprocal_codes
from reid_core.evaluation.pairs import attended_distances
from reid_core.evaluation.rerank import ReRanking
from schemas.arrays import Floats
from schemas.cards import DiffAttentionSettings


def dense(distances: Floats, original: Floats, settings: ReRanking) -> Floats:
    """d* (Q, G) from d (N, N) of all pictures and d (Q, G): sets are sets, and vectors are dense rows."""
    count, queries = len(distances), len(original)
    order = np.argsort(distances - 10 * np.eye(count), axis=1)  # the picture itself first

    def reciprocal(p: int, k: int) -> set[int]:
        return {int(g) for g in order[p, : k + 1] if p in order[g, : k + 1]}

    vectors = np.zeros((count, count))
    for p in range(count):
        members = set(reciprocal(p, settings.k1))
        for q in reciprocal(p, settings.k1):
            more = reciprocal(q, round(settings.k1 / 2))
            if len(more & reciprocal(p, settings.k1)) * 3 >= len(more) * 2:
                members |= more
        for g in members:
            vectors[p, g] = np.exp(-distances[p, g])
    vectors = np.stack([vectors[order[p, : settings.k2]].mean(0) for p in range(count)])
    jaccard = np.array(
        [[1 - np.minimum(v, w).sum() / np.maximum(v, w).sum() for w in vectors[queries:]] for v in vectors[:queries]]
    )
    return (1 - settings.weight) * jaccard + settings.weight * original


def features(seed: int, pictures: int = 48, people: int = 8) -> torch.Tensor:
    """Float64 (pictures, 12): directions of a few people, with noise."""
    torch.manual_seed(seed)
    person = torch.randint(people, (pictures,))
    return torch.randn(people, 12).double()[person] + 0.6 * torch.randn(pictures, 12).double()


def reranked(left: torch.Tensor, right: torch.Tensor, settings: ReRanking) -> Floats:
    codes = reciprocal_codes(None, left, right, settings)
    [(rows, distances)] = plain(left, right)
    return codes.distances(rows, distances.numpy() ** 2 / 2)


@pytest.mark.parametrize("settings", [ReRanking(), ReRanking(5, 3, 0.5), ReRanking(3, 1, 0.0), ReRanking(80, 90, 0.3)])
def test_equals_the_papers_formulas(settings: ReRanking) -> None:
    pictures = features(0)
    left, right = pictures[:17], pictures[17:]
    unit = torch.nn.functional.normalize(pictures)
    halved = 1 - (unit @ unit.T).numpy()
    expected = dense(halved, halved[:17, 17:], settings)
    assert reranked(left, right, settings) == pytest.approx(expected)
    codes = reciprocal_codes(None, left, right, settings)
    assert codes.distances(slice(5, 9), halved[5:9, 17:]) == pytest.approx(expected[5:9])


def test_equals_the_papers_formulas_on_attended_distances() -> None:
    pictures = features(1)
    torch.manual_seed(0)
    attention = DiffAttention(12, DiffAttentionSettings(reduction=2)).eval()
    torch.nn.init.normal_(attention.excite.weight)
    settings = ReRanking(6, 3, 0.3)
    halved = torch.cat([block for _, block in attended_distances(attention, pictures, pictures)]).double().square() / 2
    expected = dense(halved.numpy(), halved[:20, 20:].numpy(), settings)
    codes = reciprocal_codes(attention, pictures[:20], pictures[20:], settings)
    assert codes.distances(slice(0, 20), halved[:20, 20:].numpy()) == pytest.approx(expected, abs=1e-5)


def test_the_order_of_the_gallery_changes_nothing() -> None:
    pictures = features(2)
    left, right = pictures[:10], pictures[10:]
    order = torch.randperm(38)
    found = reranked(left, right, ReRanking(7, 3))
    assert reranked(left, right[order], ReRanking(7, 3)) == pytest.approx(found[:, order.numpy()])


def test_equal_pictures_give_finite_distances() -> None:
    same = torch.ones(5, 4).double()
    assert np.isfinite(reranked(same[:2], same[2:], ReRanking(1, 1))).all()
