"""Fits the calibration of the packaged demo model and writes it into its card: `python -m scripts.calibrate_demo`.

This is the second half of `make demo-model`. Its cities have other seeds than any demo, so that no demo is scored on
the data that its thresholds were chosen on.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.calibration.fit import Fitted, calibrate
from pipeline.calibration.labeled_searches import calibrate_search
from reid_core import DEMO_MODEL
from reid_core.files import read_card, write_card
from schemas.settings import settings

SEEDS = (9001, 9002, 9003, 9004)
#: A search has one person to find and many strangers, so its calibration takes more cities; the same and eight others.
SEARCH_SEEDS = tuple(range(9001, 9013))


def main() -> None:
    if "--search" not in sys.argv[1:]:
        fitted = calibrate(settings(), DEMO_MODEL, f"rendered:{','.join(map(str, SEEDS))}", _say)
        write_into_card(DEMO_MODEL, fitted)
    write_searches_into_card(DEMO_MODEL, f"rendered:{','.join(map(str, SEARCH_SEEDS))}", _say)


def write_searches_into_card(directory: Path, source: str, report: Callable[[str], None]) -> None:
    """Writes the calibrations of searches, and leaves those of pairs as they are."""
    found = calibrate_search(settings(), directory, source, report)
    write_card(read_card(directory).model_copy(update={"search_calibration": found}), directory)


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
