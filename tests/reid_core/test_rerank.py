import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reid_core.diff_attention import DiffAttention
from reid_core.distances import attended, plain, reranked
from reid_core.rerank import ReRanking
from schemas.cards import DiffAttentionSettings

Floats = NDArray[np.float64]


def dense_and_plain(distances: Floats, original: Floats, settings: ReRanking) -> Floats:
    """The paper's sets as sets and its vectors as whole rows: d (N, N) of all pictures, d (Q, G), to d* (Q, G)."""
    count, queries = len(distances), len(original)
    order = np.argsort(distances - 10 * np.eye(count), axis=1)  # itself first

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


def features(seed: int, pictures: int = 60, people: int = 8) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Float64 (pictures, 12), blurred copies of a few directions, and whose they are."""
    torch.manual_seed(seed)
    person = torch.randint(people, (pictures,))
    return torch.randn(people, 12).double()[person] + 0.6 * torch.randn(pictures, 12).double(), person.numpy()


@pytest.mark.parametrize("settings", [ReRanking(), ReRanking(5, 3, 0.5), ReRanking(3, 1, 0.0), ReRanking(80, 90, 0.3)])
def test_is_the_papers(settings: ReRanking) -> None:
    pictures, _ = features(0)
    left, right = pictures[:17], pictures[17:]
    unit = torch.nn.functional.normalize(pictures)
    halved = 1 - (unit @ unit.T).numpy()
    found = reranked(plain(left, right), None, left, right, settings)
    expected = dense_and_plain(halved, halved[:17, 17:], settings)
    assert found(slice(0, 17)).numpy() == pytest.approx(expected)
    assert found(slice(5, 9)).numpy() == pytest.approx(expected[5:9])


def test_is_the_papers_on_attended_distances() -> None:
    pictures, _ = features(1)
    left, right = pictures[:20], pictures[20:]
    torch.manual_seed(0)
    attention = DiffAttention(12, DiffAttentionSettings(reduction=2)).double().eval()
    torch.nn.init.normal_(attention.excite.weight)
    settings = ReRanking(6, 3, 0.3)
    with torch.inference_mode():
        both = attention.distance_matrix(pictures, pictures, normalize=True).numpy()
        found = reranked(attended(attention, left, right), attention, left, right, settings)(slice(0, 20)).numpy()
    # Between neighbours the mean of both orders; the distance mixed in keeps its order, query first.
    expected = dense_and_plain(((both + both.T) / 2) ** 2 / 2, both[:20, 20:] ** 2 / 2, settings)
    assert found == pytest.approx(expected)


def test_the_order_of_the_gallery_changes_nothing() -> None:
    pictures, _ = features(2)
    left, right = pictures[:10], pictures[10:]
    order = torch.randperm(50)
    found = reranked(plain(left, right), None, left, right, ReRanking(7, 3))(slice(0, 10))
    again = reranked(plain(left, right[order]), None, left, right[order], ReRanking(7, 3))(slice(0, 10))
    assert again.numpy() == pytest.approx(found[:, order].numpy())


def test_equal_pictures_are_their_own_neighbours_first() -> None:
    same = torch.ones(5, 4).double()
    found = reranked(plain(same[:2], same[2:]), None, same[:2], same[2:], ReRanking(1, 1))
    assert torch.isfinite(found(slice(0, 2))).all()
