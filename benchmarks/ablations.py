"""The contribution of each part of the association: without it, calibrated anew, on the same cities.

    python -m benchmarks.ablations --seeds 31,32,33 [--parts complete,transit] [--days 0.5]

Calibration cities are 9101 and 9102, as for the packaged model; cities have 64 cameras. Each row leaves one part out:

- diff attention: plain distances of the same features;
- transit: transit log-odds are always 0, calibrated without them;
- constraints: nothing is impossible, neither two places at once nor too fast a walk;
- hierarchy: all cameras are in one building without a horizon, and nothing is joined above it;
- reassignment: agglomeration alone.

Prints IDF1 and pairwise F1 at district level over seeds, and the difference to the complete association per seed.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from pipeline.association.geometry import Geometry, unit_geometry
from pipeline.association.transit import prior_times
from pipeline.calibration.fit import calibrate
from pipeline.calibration.labeled_city import all_units, labeled_city
from pipeline.resolve import resolve_unit
from pipeline.simulation import WEIGHTS, score_city
from reid_core.files import DIFF_ATTENTION, read_card, write_card
from schemas.calibration import TransitTimes
from schemas.city_file import City, Unit
from schemas.levels import UPWARD, Level, level_of
from schemas.settings import AssociationSettings, Settings
from synthetic.embedding_city import EmbeddingCity, EmbeddingCitySettings, embedding_city

CALIBRATED_ON = "simulated:9101,9102"
#: Without the hierarchy: no horizon.
FLAT = AssociationSettings(horizon_building_s=10**9, horizon_street_s=10**9)
#: Log-odds that no pair reaches.
NEVER = 20.0


@dataclass(frozen=True)
class _FlatCity:
    """A simulated city with all cameras in one building."""

    simulated: EmbeddingCity

    @property
    def camera_codes(self) -> tuple[str, ...]:
        return tuple(_flat(code) for code in self.simulated.camera_codes)

    @property
    def city(self) -> City:
        units = [Unit.model_validate({"code": code}) for code in ("d1", "d1/s", "d1/s/b")]
        for unit in self.simulated.city.units:
            if unit.level is Level.CAMERA:
                codes = {"code": _flat(unit.code), "overlaps": [_flat(other) for other in unit.overlaps]}
                units.append(Unit.model_validate(unit.model_dump() | codes))
        return City(units=tuple(units), walks=())

    def batches(self) -> Iterator[object]:
        return self.simulated.batches()


def _flat(code: str) -> str:
    return f"d1/s/b/{'-'.join(code.split('/')[1:])}"


def _no_transit(_: object, __: object, lookback_s: float) -> TransitTimes:
    prior = prior_times(lookback_s)
    return prior.model_copy(update={"same": prior.strangers, "kind_log_ratios": (0.0,) * len(prior.kind_log_ratios)})


def _no_gates(city: City, unit: str, settings: AssociationSettings) -> Geometry:
    geometry = unit_geometry(city, unit, settings)
    return replace(geometry, min_gap_us=np.full_like(geometry.min_gap_us, -np.inf))


PARTS: Mapping[str, Mapping[str, object]] = {
    "complete": {},
    "diff attention": {},
    "transit": {"pipeline.calibration.level_fit._learn_times": _no_transit},
    "constraints": {"pipeline.resolve.unit.unit_geometry": _no_gates},
    "hierarchy": {"pipeline.calibration.fit.UPWARD": UPWARD[:2]},
    "reassignment": {"pipeline.association.associate.joins_to_undo": lambda *_, **__: []},
}


@contextmanager
def without(part: str, days: float) -> Iterator[tuple[Path, Settings]]:
    """A copy of the packaged model's directory, and the settings to use with it, while `part` is left out."""

    def simulate(plan: EmbeddingCitySettings) -> EmbeddingCity | _FlatCity:
        city = embedding_city(replace(plan, days=days))
        return _FlatCity(city) if part == "hierarchy" else city

    settings = Settings(association=FLAT if part == "hierarchy" else AssociationSettings())
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        shutil.copytree(WEIGHTS, directory)
        if part == "diff attention":
            card = read_card(directory)
            (directory / DIFF_ATTENTION).unlink()
            write_card(card.model_copy(update={"diff_attention": None, "sha256": {}}), directory)
        replacements = {"pipeline.calibration.labeled_city.embedding_city": simulate, **PARTS[part]}
        patches = [patch(name, value) for name, value in replacements.items()]
        for one in patches:
            one.start()
        try:
            yield directory, settings
        finally:
            for one in patches:
                one.stop()


def run(directory: Path, settings: Settings, seeds: Sequence[str]) -> tuple[list[str], list[tuple[float, float]]]:
    """The operating points that the calibration finds, and the scores with them on the city of each seed."""
    fitted = calibrate(settings, directory, CALIBRATED_ON).levels
    points = [f"{calibration.join_log_odds:+.1f}" for calibration in fitted]
    never = {"join_log_odds": NEVER, "review_log_odds": NEVER}
    above = [fitted[0].model_copy(update={"level": level, **never}) for level in UPWARD[1 + len(fitted) :]]
    write_card(read_card(directory).model_copy(update={"calibration": (*fitted, *above)}), directory)
    return points, [district_scores(directory, settings, seed) for seed in seeds]


def district_scores(directory: Path, settings: Settings, seed: str) -> tuple[float, float]:
    """IDF1 and pairwise F1 on a city that nothing was chosen on."""
    with labeled_city(settings, directory, f"simulated:{seed}", lambda _: None) as (store, core, model):
        for unit in all_units(store):
            if level_of(unit) is not Level.CAMERA:
                resolve_unit(store, core, model, unit, settings=settings.association)
        score = score_city(store, model)
    return score.idf1["district"], score.pairwise_f1["district"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="31,32,33", help="of cities that nothing was chosen on")
    parser.add_argument("--parts", default=",".join(PARTS), help="which to leave out; complete is always run")
    parser.add_argument("--days", type=float, default=0.5, help="simulated days of each city")
    arguments = parser.parse_args()
    seeds = arguments.seeds.split(",")
    complete: Sequence[tuple[float, float]] = ()
    print("| without | operating points | IDF1 | difference | pairwise F1 | difference |\n|---|---|---|---|---|---|")
    for part in dict.fromkeys(["complete", *arguments.parts.split(",")]):
        with without(part, arguments.days) as (directory, settings):
            points, scores = run(directory, settings, seeds)
        complete = complete or scores
        print(row(part, points, scores, complete), flush=True)


def row(
    part: str, points: Sequence[str], scores: Sequence[tuple[float, float]], complete: Sequence[tuple[float, float]]
) -> str:
    """A line of the table. scores, complete: (IDF1, pairwise F1) per seed."""
    cells = [part if part != "complete" else "nothing", ", ".join(points)]
    for column, reference in zip(np.array(scores).T, np.array(complete).T, strict=True):
        difference = column - reference
        each = ", ".join(f"{value:+.3f}" for value in difference)
        cells += [f"{column.mean():.3f} ± {column.std(ddof=1):.3f}", f"{difference.mean():+.3f} ({each})"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
