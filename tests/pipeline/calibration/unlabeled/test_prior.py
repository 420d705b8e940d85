"""What the catalog states of a model's distances: measured, found for a model, and outweighed by a city's evidence."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.calibration.unlabeled.level_fit import drawn_weights
from pipeline.calibration.unlabeled.mixture import fit_mixture
from pipeline.calibration.unlabeled.prior import measure, one_person, prior_of
from pipeline.calibration.unlabeled.strangers import Rows, strangers_of
from pipeline.registry import ModelRow
from reid_core.catalog import find_model
from reid_core.files import CARD
from schemas.calibration import DistancePrior
from schemas.cards import ModelCard
from schemas.settings import Settings
from tests.helpers.assets import asset

NAME = "person-reidentification-retail-0286"


def pairs(n: int, same: int, *, mode: float = 0.8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n,) distances, and whether each is of one person."""
    rng = np.random.default_rng(seed)
    is_same = np.arange(n) < same
    return np.where(is_same, rng.normal(mode, 0.1, n), rng.normal(1.3, 0.07, n)), is_same


@pytest.fixture(scope="module")
def prior() -> DistancePrior:
    distance, same = pairs(4_000, 400)
    return measure(distance, np.full(4_000, 3.0), np.full(4_000, 3.0), np.ones(4_000), same, "drawn")


def test_a_prior_is_measured_in_units_of_different_peoples_distances(prior: DistancePrior) -> None:
    assert prior.mode == pytest.approx((0.8 - 1.3) / 0.07, abs=0.8)
    assert prior.near == pytest.approx(0.1 / 0.07, rel=0.35) and prior.far == pytest.approx(0.1 / 0.07, rel=0.35)
    assert np.median(prior.strangers) == pytest.approx(0, abs=0.05)
    assert (np.diff(prior.strangers) >= 0).all()


def rows_of(distance: np.ndarray, forbidden: int) -> Rows:
    n = len(distance)
    return Rows(
        different=np.arange(n) >= n - forbidden,
        distance=distance,
        share=np.full(n, 0.25),
        weight=np.ones(n),
        stratum=np.zeros(n, np.int64),
        label=np.full(n, -1),
        untimely=np.zeros(n),
    )


@pytest.mark.parametrize("forbidden", [0, 20])
def test_a_few_pairs_are_told_apart_by_what_is_known_of_the_model(prior: DistancePrior, forbidden: int) -> None:
    distance, same = pairs(120, 12, seed=3)
    rows = rows_of(distance, forbidden)
    strangers = strangers_of(rows, None, np.array(prior.strangers))
    assert strangers.forbidden == forbidden
    found = fit_mixture(rows, strangers, np.zeros(120), one_person(prior, strangers), least=0.5)
    assert ((found.probability > 0.5) == same)[: 120 - forbidden].mean() > 0.97


def test_evidence_outweighs_what_is_known(prior: DistancePrior) -> None:
    """One person is nearer here than where the prior was measured: the more is seen, the nearer the mode is."""
    modes = []
    for n in (100, 20_000):
        distance, _ = pairs(n, n // 10, mode=0.6, seed=5)
        rows = rows_of(distance, n // 3)
        strangers = strangers_of(rows, None, np.array(prior.strangers))
        assert one_person(prior, strangers).mode > 0.68
        modes.append(fit_mixture(rows, strangers, np.zeros(n), one_person(prior, strangers), 0.5).one_person.mode)
    assert modes[0] > modes[1] == pytest.approx(0.6, abs=0.02)


def model(card: ModelCard, base: int | None = None) -> ModelRow:
    return ModelRow(1, NAME, b"", 256, card, True, base)


def test_a_published_model_has_a_prior_and_others_have_none(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    folder = settings.models_dir / NAME
    folder.mkdir(parents=True)
    shutil.copy(asset(f"models/{NAME}/{NAME}.xml"), folder)
    card = ModelCard(
        name=NAME, engine="openvino", dims=256, architecture="foreign", baseline="foreign", sha256={f"{NAME}.xml": ""}
    )
    stated = find_model(NAME).distances
    assert stated is not None and prior_of(settings, model(card)) == stated
    assert prior_of(settings, model(card, base=7)) is None  # a feature space has other distances than its base
    assert prior_of(settings, model(card.model_copy(update={"sha256": {CARD: ""}}))) is None
    (folder / f"{NAME}.xml").write_text("another network")
    assert prior_of(settings, model(card)) is None


def test_a_person_is_drawn_once_in_a_bootstrap() -> None:
    """The weights of one person's own pairs have the mean of the others': else their share doubles in every draw."""
    left, right = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 3])
    drawn = np.stack([drawn_weights(left, right, np.random.default_rng(seed)) for seed in range(4_000)])
    assert drawn.mean(axis=0) == pytest.approx(1.0, abs=0.1)
