import numpy as np
import pytest

from pipeline.association.geometry import contradicts_itself, time_gaps
from pipeline.association.nodes import Nodes, Spans
from tests.helpers.gates import CAMERAS, GEOMETRY, nodes


@pytest.mark.parametrize(
    "a, b, impossible",
    [
        ((0, 0, 10), (0, 5, 15), True),  # one camera, both at once: two people
        ((0, 0, 10), (0, 10, 15), False),  # one after the other
        ((0, 0, 10), (1, 0, 10), False),  # views overlap
        ((0, 0, 10), (2, 5, 15), True),  # views do not
        ((0, 0, 10), (2, 17, 20), True),  # 60 m between the views in 7 s + 2 s of clock uncertainty: faster than 6 m/s
        ((0, 0, 10), (2, 18.5, 20), False),
        ((0, 0, 10), (3, 37, 40), True),  # the city file says 30 s
        ((3, 0, 10), (0, 38.5, 40), False),
    ],
)
def test_gates(a: tuple[int, float, float], b: tuple[int, float, float], impossible: bool) -> None:
    assert tuple(GEOMETRY.cameras) == tuple(CAMERAS)
    for left, right in ((0, 1), (1, 0)):
        found = time_gaps(nodes([a], [b]), GEOMETRY, np.array([left]), np.array([right]))
        assert found.impossible.tolist() == [impossible]
    assert not time_gaps(nodes([a], [b], timed=False), GEOMETRY, np.array([0]), np.array([1])).impossible[0]


def test_the_nearest_tracklets_give_the_gap_and_the_cameras() -> None:
    pair = nodes([(0, 0, 10), (3, 100, 110)], [(0, 115, 120), (3, 500, 510)])
    found = time_gaps(pair, GEOMETRY, np.array([0]), np.array([1]))
    assert (found.gap_us[0] / 1e6, found.left_camera[0], found.right_camera[0]) == (5.0, 3, 0)


def test_one_possible_pair_does_not_excuse_an_impossible_one() -> None:
    pair = nodes([(0, 0, 10), (2, 200, 210)], [(1, 0, 10), (0, 205, 207)])
    assert time_gaps(pair, GEOMETRY, np.array([0]), np.array([1])).impossible[0]


def test_contradiction_within_one_node() -> None:
    both = nodes([(0, 0, 10), (2, 5, 6)], [(0, 0, 10), (1, 5, 6)])
    assert contradicts_itself(both, GEOMETRY).tolist() == [
        True,
        False,
    ]


def test_the_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    many = nodes(
        *[
            [(int(rng.integers(4)), t, t + 5) for t in sorted(rng.uniform(0, 900, rng.integers(1, 6)))]
            for _ in range(30)
        ]
    )
    left, right = (side.astype(np.int64) for side in np.triu_indices(30, 1))
    whole = time_gaps(many, GEOMETRY, left, right)
    monkeypatch.setattr("pipeline.association.geometry._BLOCK", 7)
    parts = time_gaps(many, GEOMETRY, left, right)
    for name, column in vars(whole).items():
        np.testing.assert_array_equal(column, getattr(parts, name))


@pytest.mark.parametrize("seed", range(5))
def test_comparing_tracklets_near_in_time_equals_comparing_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    many = nodes(
        *[
            sorted(
                ((int(rng.integers(4)), t, t + rng.uniform(0, 20)) for t in rng.uniform(0, 2000, rng.integers(1, 9))),
                key=lambda span: span[1],
            )
            for _ in range(25)
        ]
    )
    left, right = (side.astype(np.int64) for side in np.triu_indices(25, 1))
    found = time_gaps(many, GEOMETRY, left, right)
    spans = many.spans
    for row, (i, j) in enumerate(zip(left, right, strict=True)):
        pairs = [(a, b) for a in range(*spans.first[i : i + 2]) for b in range(*spans.first[j : j + 2])]
        gaps = [max(spans.start_us[[a, b]]) - min(spans.end_us[[a, b]]) for a, b in pairs]
        bad = [
            gap < GEOMETRY.min_gap_us[spans.camera[a], spans.camera[b]] for gap, (a, b) in zip(gaps, pairs, strict=True)
        ]
        assert found.impossible[row] == any(bad)
        if not any(bad):  # a passage that starts later may end earlier, by at most its length
            assert min(gaps) <= found.gap_us[row] <= min(gaps) + 20e6


def test_keys_of_many_nodes_fit_into_64_bits() -> None:
    now = 1_800_000_000.0  # seconds since 1970
    many = nodes(*[[(0, now + i, now + i + 1)] for i in range(200)])
    wide = Nodes(
        [i.to_bytes(4) for i in range(200_000)],
        np.ones((200_000, 1)),
        np.ones(200_000),
        Spans(
            np.tile(many.spans.camera, 1000),
            np.tile(many.spans.start_us, 1000),
            np.tile(many.spans.end_us, 1000),
            np.arange(200_001),
        ),
        np.ones(200_000, bool),
        np.ones(200_000, bool),
    )
    found = time_gaps(wide, GEOMETRY, np.array([0, 5]), np.array([199_999, 199_805]))
    assert found.gap_us.tolist() == [198_000_000, -1_000_000] and found.impossible.tolist() == [False, True]
