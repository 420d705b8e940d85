"""Cameras that see one place without being declared so."""

import numpy as np

from pipeline.calibration.unlabeled.overlaps import likely_overlaps, without
from pipeline.calibration.unlabeled.pair_sample import PairSample


def sample(alike: int) -> PairSample:
    """Forbidden pairs of four cameras; at cameras 1 and 2 so many of 40 are of one person, seen at both at once."""
    rng = np.random.default_rng(1)
    n, cameras = 600, np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
    which = np.repeat(np.arange(6), [150, 150, 100, 40, 80, 80])
    distance = rng.normal(1.25, 0.09, n)
    distance[np.flatnonzero(which == 3)[:alike]] = rng.normal(0.7, 0.1, alike)
    return PairSample(
        different=np.ones(n, bool),
        distance=distance,
        left_weight=np.ones(n),
        right_weight=np.ones(n),
        weight=np.ones(n),
        shortlisted=np.ones(n, bool),
        gap_s=np.full(n, -1.0),
        expected_s=np.full(n, np.nan),
        left_child=cameras[which, 0],
        right_child=cameras[which, 1],
        left_camera=cameras[which, 0],
        right_camera=cameras[which, 1],
        left=np.arange(n),
        right=np.arange(n) + n,
        alone=np.ones(n, bool),
    )


def test_cameras_that_see_the_same_people_at_once_are_asked_about() -> None:
    assert likely_overlaps(sample(0)) == []
    assert likely_overlaps(sample(1)) == []  # two people may look alike
    assert likely_overlaps(sample(12)) == [(1, 2)]


def test_their_pairs_no_longer_say_what_strangers_look_like() -> None:
    pairs = sample(12)
    assert (without(pairs, [(1, 2)]).distance > 0.9).all() and len(without(pairs, [(1, 2)])) == len(pairs) - 40
    assert len(without(pairs, [])) == len(pairs)
