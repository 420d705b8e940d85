import pytest

from pipeline.association.stitching import Fate, Known, stitch

OLDER, YOUNGER = Known(10, b"a"), Known(20, b"b")


@pytest.mark.parametrize(
    "groups, origins, weights, expected",
    [
        ([[0]], [None], [1], [Fate(None, (), ())]),  # a new person
        ([[0, 1]], [None, 1], [1, 3], [Fate(1, (), ())]),  # attached
        ([[0, 1]], [0, 1], [1, 9], [Fate(0, (1,), ())]),  # merged: the oldest survives, whatever its size
        (
            [[0], [1, 2]],
            [0, 0, 0],
            [2, 1, 2],
            [Fate(None, (), (0,)), Fate(0, (), ())],
        ),  # split: the larger part stays
        ([[0], [1]], [0, 0], [1, 1], [Fate(0, (), ()), Fate(None, (), (0,))]),  # equal parts: the first by key
        ([[0], [1, 2], [3]], [0, 0, 1, 1], [2, 1, 1, 2], [Fate(0, (), ()), Fate(None, (), (0, 1)), Fate(1, (), ())]),
        ([[0], [1, 2]], [0, 0, 1], [2, 1, 1], [Fate(0, (), ()), Fate(1, (), (0,))]),  # a part moved between two
        ([[0, 1], [2]], [0, 1, 1], [1, 2, 1], [Fate(0, (1,), ()), Fate(None, (), (1,))]),  # merged, except a part
    ],
)
def test_fates(groups: list[list[int]], origins: list[int | None], weights: list[int], expected: list[Fate]) -> None:
    origin = {node: source for node, source in enumerate(origins) if source is not None}
    assert stitch(groups, origin, dict(enumerate(weights)), [OLDER, YOUNGER]) == expected
