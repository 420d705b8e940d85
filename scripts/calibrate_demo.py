"""Fits the calibration of the packaged demo model and writes it into its card: `python -m scripts.calibrate_demo`.

This is the second half of `make demo-model`. Its cities have other seeds than any demo, so that no demo is scored on
the data that its thresholds were chosen on.
"""

import sys
from pathlib import Path

from pipeline.calibration.fit import Fitted, calibrate
from reid_core import DEMO_MODEL
from reid_core.files import read_card, write_card
from schemas.settings import settings

SEEDS = (9001, 9002, 9003, 9004)


def main() -> None:
    fitted = calibrate(settings(), DEMO_MODEL, f"rendered:{','.join(map(str, SEEDS))}", _say)
    write_into_card(DEMO_MODEL, fitted)


def write_into_card(directory: Path, fitted: Fitted) -> None:
    """Writes the calibrations, and for comparison the nearest-neighbor rule's thresholds on the same cities."""
    card = read_card(directory)
    nearest = {level.value: most for level, most in fitted.nearest_neighbor_distance.items()}
    f1 = {level.value: round(value, 4) for level, value in fitted.pairwise_f1.items()}
    details = {**card.details, "nearest_neighbor_distance": nearest, "calibration_pairwise_f1": f1}
    write_card(card.model_copy(update={"calibration": fitted.levels, "details": details}), directory)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main()
