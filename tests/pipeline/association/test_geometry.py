import numpy as np
import pytest

from pipeline.association.geometry import closest, contradicts_itself, geometry
from pipeline.association.nodes import Nodes, Spans
from schemas.city_file import City
from schemas.settings import AssociationSettings

CITY = City.model_validate(
    {
        "units": [
            {"code": "d1"},
            {"code": "d1/s1"},
            {"code": "d1/s1/b1"},
            {"code": "d1/s1/b2"},
            {"code": "d1/s1/b1/c1", "position": [0, 0], "overlaps": ["d1/s1/b1/c2"], "clock_uncertainty_s": 1},
            {"code": "d1/s1/b1/c2", "position": [5, 0], "clock_uncertainty_s": 1},
            {"code": "d1/s1/b1/c3", "position": [90, 0], "clock_uncertainty_s": 1},
            {"code": "d1/s1/b2/c1", "clock_uncertainty_s": 1},
        ],
        "walks": [{"from": "d1/s1/b1", "to": "d1/s1/b2", "shortest_s": 30}],
    }
)
CAMERAS = ["d1/s1/b1/c1", "d1/s1/b1/c2", "d1/s1/b1/c3", "d1/s1/b2/c1"]


def nodes(*spans: list[tuple[int, float, float]], timed: bool = True) -> Nodes:
    flat = [span for node in spans for span in node]
    n = len(spans)
    return Nodes(
        [bytes([i]) for i in range(n)],
        np.ones((n, 2)),
        np.ones(n),
        Spans(
            np.array([s[0] for s in flat]),
            np.array([round(s[1] * 1e6) for s in flat]),
            np.array([round(s[2] * 1e6) for s in flat]),
            np.cumsum([0] + [len(node) for node in spans]),
        ),
        np.full(n, timed),
        np.ones(n, bool),
    )


WORLD = geometry(CITY, "d1/s1", AssociationSettings(fastest_walk_m_s=6.0))


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
