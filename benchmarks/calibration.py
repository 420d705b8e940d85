"""How far the packaged calibration of simulated cities can be believed on cities that it has not seen.

    python benchmarks/calibration.py --seeds 11,12,13

Each seed's city (64 cameras, a day) is resolved with the packaged model. Printed for each level: the expected
calibration error of all compared pairs and of those with a probability of 0.05 to 0.95 (15 bins of equal mass), how
many of the joins made are wrong, and whether that lies in the interval that the calibration stated for fresh people.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.special import expit

from pipeline.calibration.labeled_city import all_units, labeled_city
from pipeline.calibration.labeled_pairs import Compared, Observed, tracklet_truths, wrong_joins
from pipeline.calibration.reliability import judge
from pipeline.city.units import read_city
from pipeline.resolve import resolve_unit
from pipeline.simulation import WEIGHTS
from reid_core.files import read_card
from schemas.calibration import LevelCalibration
from schemas.levels import UPWARD, Level, level_of, parent_of
from schemas.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="11,12,13", help="cities, none of which the calibration has seen")
    asked = parser.parse_args()
    calibrations = {fit.level: fit for fit in read_card(WEIGHTS).calibration}
    print("| level | pairs | ECE, all | ECE, middle | joins | wrong | stated for fresh people |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        with labeled_city(settings, WEIGHTS, f"simulated:{asked.seeds}", lambda _: None) as (store, core, model):
            city = read_city(store)
            districts = sorted(unit.code for unit in city.units if unit.level is Level.DISTRICT)
            with store.begin() as connection:
                truth = tracklet_truths(connection)
            for level in UPWARD[1:]:
                units = [unit for unit in all_units(store) if level_of(unit) is level]
                children = sorted(unit.code for unit in city.units if parent_of(unit.code) in set(units))
                observed = Observed(children, truth)
                for unit in units:
                    place = districts.index(unit.split("/")[0])
                    resolve_unit(
                        store,
                        core,
                        model,
                        unit,
                        settings=store.settings.association,
                        observe=observed.observer(unit, place),
                    )
                pairs = observed.all()
                assert pairs is not None
                wrong = np.concatenate([wrong_joins(store, district, level, truth)[0] for district in districts])
                print(row(calibrations[level], pairs, children, wrong), flush=True)


def row(fit: LevelCalibration, pairs: Compared, children: list[str], wrong: np.ndarray) -> str:
    assert fit.transit is not None and fit.false_merges is not None
    judged = judge(expit(pairs.log_odds(fit.terms, pairs.transit(fit.transit, children))), pairs.same)
    stated, rate = fit.false_merges, wrong.mean()
    inside = "inside" if stated.fresh_low <= rate <= stated.fresh_high else "outside"
    return (
        f"| {fit.level} | {len(pairs)} | {judged.shortlist.ece:.4f} | {judged.middle.ece:.4f} | {len(wrong)} | "
        f"{rate:.2%} | {stated.fresh_low:.2%} to {stated.fresh_high:.2%}: {inside} |"
    )


if __name__ == "__main__":
    main()
