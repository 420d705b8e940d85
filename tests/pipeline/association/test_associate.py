"""Laws of `associate` on small random cities: people at several cameras, with gates, known and fresh nodes."""

from dataclasses import dataclass, replace
from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.association.associate import Association, associate
from pipeline.association.geometry import contradicts_itself, time_gaps, unit_geometry
from pipeline.association.nodes import Nodes, Spans
from pipeline.association.transit import prior_times, unit_transit
from reid_core.serving.local import LocalCore
from schemas.association import Verdict
from schemas.calibration import LevelCalibration, straight_line
from schemas.cards import ModelCard
from schemas.city_file import City
from schemas.levels import Level
from schemas.settings import AssociationSettings

WIDTH = 8
CITY = City.model_validate(
    {
        "units": [
            *({"code": code} for code in ("d1", "d1/s1", "d1/s1/b1", "d1/s1/b2")),
            {"code": "d1/s1/b1/c1", "position": [0, 0], "overlaps": ["d1/s1/b1/c2"], "clock_uncertainty_s": 1},
            {"code": "d1/s1/b1/c2", "position": [5, 0], "clock_uncertainty_s": 1},
            {"code": "d1/s1/b1/c3", "position": [90, 0], "clock_uncertainty_s": 1},
            {"code": "d1/s1/b2/c1", "clock_uncertainty_s": 1},
        ],
        "walks": [{"from": "d1/s1/b1", "to": "d1/s1/b2", "shortest_s": 30}],
    }
)
SETTINGS = AssociationSettings()
GEOMETRY = unit_geometry(CITY, "d1/s1", SETTINGS)
TRANSIT = unit_transit(prior_times(3600), GEOMETRY.children)
CALIBRATION = LevelCalibration(
    level=Level.STREET,
    terms=straight_line(8.0, 6.0),
    join_log_odds=0.0,
    review_log_odds=-2.0,
    fitted_on="nothing",
    pairs=0,
    positives=0,
)


def _no_network(_: object) -> np.ndarray:
    raise AssertionError("no picture may be embedded")


#: Plain distances between features of length 1.
CORE = LocalCore(
    ModelCard(name="tiny", engine="none", dims=WIDTH, architecture="foreign", baseline="foreign", sha256={}),
    _no_network,
    None,
    batch_size=1,
)


@dataclass(frozen=True)
class One:
    """A node; its tracklets are (camera, start, end) in seconds."""

    key: bytes
    mean: np.ndarray
    spans: tuple[tuple[int, float, float], ...]
    fresh: bool
    timed: bool = True


def nodes(unsorted: list[One]) -> Nodes:
    """The nodes as columns, sorted by key."""
    ones = sorted(unsorted, key=lambda one: one.key)
    flat = np.array([span for one in ones for span in sorted(one.spans, key=lambda span: (span[1], span[2], span[0]))])
    return Nodes(
        [one.key for one in ones],
        np.stack([one.mean for one in ones]),
        np.ones(len(ones)),
        Spans(
            flat[:, 0].astype(np.int64),
            np.round(flat[:, 1] * 1e6).astype(np.int64),
            np.round(flat[:, 2] * 1e6).astype(np.int64),
            np.cumsum([0, *(len(one.spans) for one in ones)]),
        ),
        np.array([one.timed for one in ones]),
        np.array([one.fresh for one in ones]),
    )


def is_possible(one: One) -> bool:
    return not contradicts_itself(nodes([one]), GEOMETRY)[0]


def random_nodes(seed: int, n: int, people: int, noise: float, duration_s: float) -> list[One]:
    """n nodes of one to four tracklets each, none of which contradicts itself."""
    rng = np.random.default_rng(seed)
    mean_of = rng.normal(size=(people, WIDTH))
    made: list[One] = []
    while len(made) < n:
        spans = tuple(
            (int(rng.integers(len(GEOMETRY.cameras))), float(t), float(t + rng.uniform(1, 20)))
            for t in rng.uniform(0, duration_s, rng.integers(1, 5))
        )
        mean = mean_of[rng.integers(people)] + noise * rng.normal(size=WIDTH)
        one = One(rng.bytes(8), mean, spans, bool(rng.random() < 0.6), bool(rng.random() < 0.9))
        if is_possible(one):
            made.append(one)
    return made


def run(ones: list[One]) -> tuple[Nodes, Association]:
    columns = nodes(ones)
    return columns, associate(columns, GEOMETRY, CORE, CALIBRATION, TRANSIT, SETTINGS)


cities = st.builds(
    random_nodes,
    seed=st.integers(0, 100_000),
    n=st.integers(2, 16),
    people=st.integers(1, 5),
    noise=st.sampled_from([0.0, 0.2, 0.5]),
    duration_s=st.sampled_from([100.0, 600.0, 3000.0]),
)
many_examples = settings(deadline=None, max_examples=80)


def merged(ones: list[One], group: list[int]) -> One:
    """One node with all tracklets of the group's timed nodes."""
    ordered = sorted(ones, key=lambda one: one.key)
    parts = [ordered[i] for i in group if ordered[i].timed]
    return One(b"", np.ones(WIDTH), tuple(span for part in parts for span in part.spans), True)


@many_examples
@given(cities)
def test_nobody_is_at_two_places_at_once(ones: list[One]) -> None:
    """Holds for known and fresh nodes and every size of group; gates do not bind untimed nodes."""
    columns, found = run(ones)
    for group in found.groups:
        left, right = (
            (np.array(side, np.int64) for side in zip(*combinations(group, 2), strict=True))
            if len(group) > 1
            else (np.empty(0, np.int64), np.empty(0, np.int64))
        )
        assert not time_gaps(columns, GEOMETRY, left, right).impossible.any()
        whole = merged(ones, group)
        assert not whole.spans or is_possible(whole)


@many_examples
@given(cities, st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_does_not_matter(ones: list[One], random: Random) -> None:
    shuffled = ones[:]
    random.shuffle(shuffled)
    (_, a), (_, b) = run(ones), run(shuffled)
    assert a.groups == b.groups and a.decisions == b.decisions


@many_examples
@given(cities)
def test_decisions_explain_the_groups(ones: list[One]) -> None:
    columns, found = run(ones)
    assert sorted(i for group in found.groups for i in group) == list(range(len(ones)))
    group_of = {i: number for number, group in enumerate(found.groups) for i in group}
    pairs = [(d.left, d.right) for d in found.decisions]
    assert pairs == sorted(set(pairs)) and all(left < right for left, right in pairs)
    for d in found.decisions:
        inside = group_of[d.left] == group_of[d.right]
        assert inside == (d.verdict is Verdict.JOIN)
        if d.runner_up is not None:
            fresh = d.left if columns.fresh[d.left] else d.right
            assert group_of[d.runner_up] != group_of[fresh] and d.runner_up_distance is not None
    joins = [(d.left, d.right) for d in found.decisions if d.verdict is Verdict.JOIN]
    for group in found.groups:
        edges = [pair for pair in joins if pair[0] in group]
        reached = {group[0]}
        while crossing := [pair for pair in edges if len(reached & set(pair)) == 1]:
            reached |= {i for pair in crossing for i in pair}
        assert len(edges) == len(group) - 1 and reached == set(group)  # a tree
    if not columns.fresh.any():
        assert found.decisions == []


@many_examples
@given(cities)
def test_a_stranger_years_later_changes_no_other_group(ones: list[One]) -> None:
    """It can only become the runner-up of a node that had none."""
    far = -np.sum([one.mean / np.linalg.norm(one.mean) for one in ones], axis=0)
    assume(np.linalg.norm(far) > 0.1)
    far = far / np.linalg.norm(far)
    assume(all(far @ one.mean / np.linalg.norm(one.mean) < -0.1 for one in ones))
    stranger = One(b"\xff" * 9, far, ((0, 1e8, 1e8 + 5),), True)
    (_, before), (_, after) = run(ones), run([*ones, stranger])
    assert after.groups == [*before.groups, [len(ones)]]
    assert joins_and_reviews(after) == joins_and_reviews(before)


def joins_and_reviews(found: Association) -> list[tuple[int, int, Verdict, float]]:
    return [(d.left, d.right, d.verdict, d.distance) for d in found.decisions if d.verdict is not Verdict.APART]


@many_examples
@given(cities)
def test_without_a_calibration_nothing_is_joined(ones: list[One]) -> None:
    found = associate(nodes(ones), GEOMETRY, CORE, None, TRANSIT, SETTINGS)
    assert found.groups == [[i] for i in range(len(ones))]
    assert all(d.verdict is Verdict.REVIEW and d.probability is None for d in found.decisions)


@pytest.mark.parametrize("seed", range(4))
def test_laws_hold_beyond_shortlists_and_small_clusters(seed: int) -> None:
    ones = [replace(one, fresh=i % 3 > 0) for i, one in enumerate(random_nodes(seed, 150, 3, 0.3, 20_000.0))]
    columns, found = run(ones)
    assert max(map(len, found.groups)) > 5
    for group in found.groups:
        whole = merged(ones, group)
        assert not whole.spans or is_possible(whole)
    assert run(ones[::-1])[1].groups == found.groups
    assert len(columns) == 150
