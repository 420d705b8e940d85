"""Reliability of the packaged calibration of simulated cities on cities that it was not fitted on.

    python -m benchmarks.calibration --seeds 11,12,13

Resolves the city of each seed (64 cameras, a day) with the packaged model. Prints for each level: the expected
calibration error of all compared pairs and of those with a probability of 0.05 to 0.95 (15 bins of equal mass), the
share of wrong joins, and whether it is inside the interval that the calibration states for fresh people.
"""

import argparse

import numpy as np
from scipy.special import expit

from benchmarks.home import home
from pipeline.calibration.labeled_city import all_units, labeled_city
from pipeline.calibration.labeled_pairs import ComparedPairs, PairCollector, tracklet_truths, wrong_joins
from pipeline.calibration.reliability import judge
from pipeline.city.units import read_city
from pipeline.resolve import resolve_unit
from pipeline.simulation import WEIGHTS
from reid_core.files import read_card
from schemas.arrays import Bools
from schemas.calibration import LevelCalibration
from schemas.levels import UPWARD, Level, level_of, parent_of
from schemas.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="11,12,13", help="of cities that the calibration was not fitted on")
    arguments = parser.parse_args()
    calibrations = {calibration.level: calibration for calibration in read_card(WEIGHTS).calibration}
    print("| level | pairs | ECE, all | ECE, middle | joins | wrong | stated for fresh people |")
    print("|---|---|---|---|---|---|---|")
    with home() as folder:
        settings = Settings(home=folder)
        with labeled_city(settings, WEIGHTS, f"simulated:{arguments.seeds}", lambda _: None) as (store, core, model):
            city = read_city(store)
            districts = sorted(unit.code for unit in city.units if unit.level is Level.DISTRICT)
            with store.begin() as connection:
                truth = tracklet_truths(connection)
            for level in UPWARD[1:]:
                units = [unit for unit in all_units(store) if level_of(unit) is level]
                children = sorted(unit.code for unit in city.units if parent_of(unit.code) in set(units))
                collector = PairCollector(children, truth)
                for unit in units:
                    observe = collector.observer(unit, districts.index(unit.split("/")[0]))
                    resolve_unit(store, core, model, unit, settings=store.settings.association, observe=observe)
                pairs = collector.pairs()
                assert pairs is not None
                wrong = np.concatenate([wrong_joins(store, district, level, truth)[0] for district in districts])
                print(row(calibrations[level], pairs, children, wrong), flush=True)


def row(calibration: LevelCalibration, pairs: ComparedPairs, children: list[str], wrong: Bools) -> str:
    """A line of the table. wrong: (j,) whether each join joins two people."""
    assert calibration.transit is not None and calibration.false_merges is not None
    transit = pairs.transit(calibration.transit, children)
    judgment = judge(expit(pairs.log_odds(calibration.terms, transit)), pairs.same)
    stated, rate = calibration.false_merges, wrong.mean()
    inside = "inside" if stated.fresh_low <= rate <= stated.fresh_high else "outside"
    return (
        f"| {calibration.level} | {len(pairs)} | {judgment.shortlist.ece:.4f} | {judgment.middle.ece:.4f} | "
        f"{len(wrong)} | {rate:.2%} | {stated.fresh_low:.2%} to {stated.fresh_high:.2%}: {inside} |"
    )


if __name__ == "__main__":
    main()
