import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_core.training.sampling import identity_batches
from schemas.errors import InputError


@given(
    counts=st.lists(st.integers(1, 13), min_size=1, max_size=30),
    people=st.integers(1, 6),
    pictures=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_batches_have_p_identities_of_k_pictures_and_cover_all_identities(
    counts: list[int], people: int, pictures: int, seed: int
) -> None:
    identities = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 3 - 1, counts))
    if len(counts) < people:
        with pytest.raises(InputError, match=f"{len(counts)} identities cannot fill a batch of {people}"):
            identity_batches(identities, people, pictures, (seed,))
        return
    batches = identity_batches(identities, people, pictures, (seed, 1))
    for batch in batches:
        labels = identities[batch].reshape(people, pictures)
        assert (labels == labels[:, :1]).all()
        assert len(set(labels[:, 0])) == people
    assert set(identities[np.concatenate(batches)]) == set(identities)
    again = identity_batches(identities.copy(), people, pictures, (seed, 1))
    assert np.array_equal(np.stack(again), np.stack(batches))


@given(seed=st.integers(0, 2**31))
def test_pictures_repeat_only_in_identities_with_fewer_than_k(seed: int) -> None:
    identities = np.repeat(np.arange(6), [1, 2, 3, 4, 8, 30])
    for batch in identity_batches(identities, 3, 4, (seed,)):
        for group in batch.reshape(3, 4):
            pictures = np.count_nonzero(identities == identities[group[0]])
            assert len(set(group)) == min(pictures, 4)


def test_pictures_of_full_identities_are_used_once() -> None:
    identities = np.repeat(np.arange(32), 8)
    drawn = np.concatenate(identity_batches(identities, 16, 4, (0,)))
    assert sorted(drawn) == list(range(256))


def test_only_the_seed_decides() -> None:
    identities = np.repeat(np.arange(20), 6)
    first, again, other = (identity_batches(identities, 16, 4, seed) for seed in ((1, 0), (1, 0), (1, 1)))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_too_few_identities() -> None:
    with pytest.raises(InputError, match="3 identities cannot fill a batch of 16"):
        identity_batches(np.repeat(np.arange(3), 9), 16, 4, (0,))
