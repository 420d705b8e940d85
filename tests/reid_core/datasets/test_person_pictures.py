import numpy as np
import pytest

from reid_core.datasets.person_pictures import PersonPictures


def people(identities: list[int], cameras: list[int], names: tuple[str, ...] = ()) -> PersonPictures:
    pictures = np.arange(len(identities) * 12, dtype=np.uint8).reshape(-1, 2, 2, 3)
    return PersonPictures(pictures, np.array(identities), np.array(cameras), names)


def test_split_takes_one_query_an_identity_and_camera() -> None:
    query, gallery = people([1, 1, 1, 2, 2, -1], [1, 1, 2, 1, 1, 1], tuple("abcdef")).split_queries()
    assert query.identities.tolist() == [1, 1, 2] and query.cameras.tolist() == [1, 2, 1]
    assert query.pictures[:, 0, 0, 0].tolist() == [0, 24, 36]
    assert gallery.identities.tolist() == [1, 2, -1]
    assert (query.names, gallery.names) == (("a", "c", "d"), ("b", "e", "f"))


def test_names_stay_with_their_pictures() -> None:
    named = people([1, 2, 3], [1, 1, 1], ("a", "b", "c"))
    assert named.select(named.identities != 2).names == ("a", "c")
    assert named.select(np.array([2, 0, 0])).names == ("c", "a", "a")
    assert people([1, 2], [1, 1]).select(np.array([1])).names == ()
    with pytest.raises(AssertionError):
        people([1, 2], [1, 1], ("a",))


def test_a_mask_that_leaves_none_out_copies_nothing() -> None:
    some, all_of_them = people([1, 2, -1], [1, 1, 1]), people([1, 2, 3], [1, 1, 1], ("a", "b", "c"))
    assert all_of_them.select(all_of_them.identities != -1) is all_of_them
    assert some.select(some.identities != -1).identities.tolist() == [1, 2]


def test_digest_covers_pictures_and_labels() -> None:
    first = people([1, 2], [1, 1])
    assert first.digest() == people([1, 2], [1, 1]).digest()
    assert first.digest() == people([1, 2], [1, 1], ("a", "b")).digest()
    assert first.digest() != people([1, 3], [1, 1]).digest()
    assert first.digest() != people([1, 2], [1, 2]).digest()
    other = PersonPictures(first.pictures + 1, first.identities, first.cameras)
    assert first.digest() != other.digest()
