"""Share and distances of one person's pairs, found without labels in samples whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.calibration.reliability import judge
from pipeline.calibration.unlabeled.mixture import Mixture, fit_mixture
from pipeline.calibration.unlabeled.strangers import Rows, strangers_of
from schemas.arrays import Bools, Floats

FORBIDDEN, COMPARABLE = 1_500, 4_000


def sample(share: float, *, shift: float = 0.0, seed: int = 0, label: bool = False) -> tuple[Rows, Floats, Bools]:
    """Rows, transit log-odds, and the truth. shift: how much farther apart strangers are who may be one person."""
    rng = np.random.default_rng(seed)
    n = FORBIDDEN + COMPARABLE
    different = np.arange(n) < FORBIDDEN
    same = ~different & (rng.random(n) < share)
    distance = np.where(same, rng.normal(0.75, 0.12, n), rng.normal(1.25, 0.09, n) + shift * ~different)
    gap = np.where(same, rng.normal(1.0, 1.0, n), rng.normal(-1.0, 1.0, n))
    rows = Rows(
        different=different,
        distance=distance,
        share=rng.uniform(0.1, 0.4, n),
        weight=np.ones(n),
        stratum=np.zeros(n, np.int64),
        label=np.where(label & (rng.random(n) < 0.2), same.astype(np.int64), -1),
        untimely=np.zeros(n),
    )
    return rows, np.where(different, 0.0, 2 * gap), same


def fitted(rows: Rows, transit: Floats) -> Mixture:
    return fit_mixture(rows, strangers_of(rows), transit, None, least=0.5)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("shift", [0.0, 0.03])
def test_share_and_probabilities_are_found(share: float, shift: float) -> None:
    rows, transit, same = sample(share, shift=shift)
    found = fitted(rows, transit)
    assert found.share == pytest.approx(same.sum() / COMPARABLE, rel=0.3)
    judged = judge(found.probability[~rows.different], same[~rows.different])
    assert judged.shortlist.ece < 0.01
    assert found.gain > 20


def test_each_kind_of_pairs_has_a_share_of_its_own() -> None:
    """People who were seen twice already hardly come a third time: with one share for all they would be joined."""
    rows, transit, same = sample(0.1)
    again = ~rows.different & (np.arange(len(same)) % 2 == 1)
    kept = ~(again & same & (np.arange(len(same)) % 16 != 1))  # one in eight of their pairs of one person stays
    rows = Rows(**{name: column[kept] for name, column in vars(replace(rows, stratum=again.astype(np.int64))).items()})
    same, transit = same[kept], 0 * transit[kept]
    found = fitted(rows, transit)
    for kind in (0, 1):
        its = ~rows.different & (rows.stratum == kind)
        assert found.probability[its].sum() == pytest.approx(same[its].sum(), rel=0.25)
        assert judge(found.probability[its], same[its]).shortlist.ece < 0.01
    odds = [found.prior_odds[rows.stratum == kind][0] for kind in (0, 1)]
    assert odds[0] - odds[1] > 1


def test_a_nearer_pair_is_never_less_likely_one_person() -> None:
    rows, transit, _ = sample(0.05)
    rows = replace(rows, share=np.full(len(rows.share), 0.2))
    found = fitted(rows, 0 * transit)
    order = np.argsort(rows.distance[~rows.different])
    ratio = found.log_ratio[~rows.different][order]
    near = ratio > -3
    assert np.diff(ratio[near]).max() < 0.05


def test_where_nobody_comes_twice_hardly_anybody_is_found() -> None:
    rows, transit, _ = sample(0.0)
    found = fitted(rows, transit)
    assert found.probability.sum() < 5 and found.gain < 6


def test_an_operators_answers_count_as_labels() -> None:
    rows, transit, same = sample(0.02, label=True)
    found = fitted(rows, transit)
    known = rows.label >= 0
    assert (found.probability[known] == same[known]).all()
    assert found.share == pytest.approx(same.sum() / COMPARABLE, rel=0.3)
