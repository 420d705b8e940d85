import numpy as np
import pytest

from pipeline.association.geometry import closest, contradicts_itself
from pipeline.association.nodes import Nodes, Spans
from tests.helpers.gates import CAMERAS, WORLD, nodes


@pytest.mark.parametrize(
    "a, b, impossible",
    [
        ((0, 0, 10), (0, 5, 15), True),  # one camera, both at once: two people
        ((0, 0, 10), (0, 10, 15), False),  # one after the other
        ((0, 0, 10), (1, 0, 10), False),  # views overlap
        ((0, 0, 10), (2, 5, 15), True),  # views do not
        ((0, 0, 10), (2, 17, 20), True),  # 60 m beyond the views in 7 s + 2 s of clocks: faster than 6 m/s
        ((0, 0, 10), (2, 18.5, 20), False),
        ((0, 0, 10), (3, 37, 40), True),  # the city file says 30 s
        ((3, 0, 10), (0, 38.5, 40), False),
    ],
)
def test_gates(a: tuple[int, float, float], b: tuple[int, float, float], impossible: bool) -> None:
    assert tuple(WORLD.cameras) == tuple(CAMERAS)
    for left, right in ((0, 1), (1, 0)):
        found = closest(nodes([a], [b]), WORLD, np.array([left]), np.array([right]))
        assert found.impossible.tolist() == [impossible]
    assert not closest(nodes([a], [b], timed=False), WORLD, np.array([0]), np.array([1])).impossible[0]


def test_nearest_tracklets_give_the_gap_and_its_ends() -> None:
    pair = nodes([(0, 0, 10), (3, 100, 110)], [(0, 115, 120), (3, 500, 510)])
    found = closest(pair, WORLD, np.array([0]), np.array([1]))
    assert (found.gap_us[0] / 1e6, found.left_camera[0], found.right_camera[0]) == (5.0, 3, 0)


def test_one_possible_pair_does_not_excuse_an_impossible_one() -> None:
    pair = nodes([(0, 0, 10), (2, 200, 210)], [(1, 0, 10), (0, 205, 207)])
    assert closest(pair, WORLD, np.array([0]), np.array([1])).impossible[0]


def test_contradiction_within_one_node() -> None:
    assert contradicts_itself(nodes([(0, 0, 10), (2, 5, 6)], [(0, 0, 10), (1, 5, 6)]), WORLD).tolist() == [True, False]


def test_blocks_of_span_pairs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    many = nodes(
        *[
            [(int(rng.integers(4)), t, t + 5) for t in sorted(rng.uniform(0, 900, rng.integers(1, 6)))]
            for _ in range(30)
        ]
    )
    left, right = (side.astype(np.int64) for side in np.triu_indices(30, 1))
    whole = closest(many, WORLD, left, right)
    monkeypatch.setattr("pipeline.association.geometry._BLOCK", 7)
    parts = closest(many, WORLD, left, right)
    for name, column in vars(whole).items():
        np.testing.assert_array_equal(column, getattr(parts, name))


@pytest.mark.parametrize("seed", range(5))
def test_looking_near_in_time_finds_what_looking_at_every_pair_does(seed: int) -> None:
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
    found = closest(many, WORLD, left, right)
    spans = many.spans
    for row, (i, j) in enumerate(zip(left, right, strict=True)):
        pairs = [(a, b) for a in range(*spans.first[i : i + 2]) for b in range(*spans.first[j : j + 2])]
        gaps = [max(spans.start_us[[a, b]]) - min(spans.end_us[[a, b]]) for a, b in pairs]
        bad = [gap < WORLD.slack_us[spans.camera[a], spans.camera[b]] for gap, (a, b) in zip(gaps, pairs, strict=True)]
        assert found.impossible[row] == any(bad)
        if not any(bad):  # the last that began before may have ended before an earlier one, by a passage's length
            assert min(gaps) <= found.gap_us[row] <= min(gaps) + 20e6


def test_many_nodes_of_today_can_be_counted() -> None:
    now = 1_800_000_000.0  # seconds since 1970
    many = nodes(*[[(0, now + i, now + i + 1)] for i in range(200)])
    wide = Nodes(
        [i.to_bytes(4) for i in range(200_000)],
        np.ones((200_000, 1)),
        np.ones(200_000),
        Spans(
            *(np.tile(column, 1000) for column in (many.spans.camera, many.spans.start_us, many.spans.end_us)),
            np.arange(200_001),
        ),
        np.ones(200_000, bool),
        np.ones(200_000, bool),
    )
    found = closest(wide, WORLD, np.array([0, 5]), np.array([199_999, 199_805]))
    assert found.gap_us.tolist() == [198_000_000, -1_000_000] and found.impossible.tolist() == [False, True]
