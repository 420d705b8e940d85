"""What each part of the association buys: ours without it, calibrated anew by the same search, on the same cities.

    python benchmarks/ablations.py --seeds 31,32,33 [--parts ours,transit] [--days 0.5]

Calibration cities are 9101 and 9102, as for the packaged model; cities have 64 cameras. Each row leaves one part out:

- diff attention: plain distances of the same features;
- transit: what the time between two sightings says is nothing, calibrated without it;
- constraints: nothing is impossible, neither two places at once nor a walk too fast;
- hierarchy: all cameras in one building that looks back as far as there is, and nobody joins above it;
- reassignment: agglomeration alone.

IDF1 and pairwise F1 at district level over seeds, and the difference to ours in the same seed.
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

from pipeline.association.geometry import Geometry, geometry
from pipeline.association.transit import prior
from pipeline.calibration import fit as calibration
from pipeline.calibration import labeled_city as labeling
from pipeline.resolve import resolve_unit
from pipeline.simulation import WEIGHTS, score_city
from reid_core.files import DIFF_ATTENTION, read_card, write_card
from schemas.calibration import TransitTimes
from schemas.city_file import City, Unit
from schemas.levels import UPWARD, Level, level_of
from schemas.settings import AssociationSettings, Settings
from synthetic.embedding_city import EmbeddingCity, EmbeddingCitySettings, embedding_city

CALIBRATED_ON = "simulated:9101,9102"
#: Without a hierarchy: one unit looks back as far as there is.
FLAT = AssociationSettings(horizon_building_s=10**9, horizon_street_s=10**9)
#: Log-odds that no pair reaches.
NEVER = 20.0


@dataclass(frozen=True)
class _Flat:
    """A simulated city all of whose cameras stand in one building."""

    made: EmbeddingCity

    @property
    def camera_codes(self) -> tuple[str, ...]:
        return tuple(_flat(code) for code in self.made.camera_codes)

    @property
    def city(self) -> City:
        units = [Unit.model_validate({"code": code}) for code in ("d1", "d1/s", "d1/s/b")]
        for unit in self.made.city.units:
            if unit.level is Level.CAMERA:
                moved = {"code": _flat(unit.code), "overlaps": [_flat(other) for other in unit.overlaps]}
                units.append(Unit.model_validate(unit.model_dump() | moved))
        return City(units=tuple(units), walks=())

    def batches(self) -> Iterator[object]:
        return self.made.batches()


def _flat(code: str) -> str:
    return f"d1/s/b/{'-'.join(code.split('/')[1:])}"


def _no_transit(_: object, __: object, looked_s: float) -> TransitTimes:
    found = prior(looked_s)
    return found.model_copy(update={"same": found.strangers, "ways": (0.0,) * len(found.ways)})


def _no_gates(city: City, unit: str, settings: AssociationSettings) -> Geometry:
    found = geometry(city, unit, settings)
    return replace(found, slack_us=np.full_like(found.slack_us, -np.inf))


PARTS: Mapping[str, Mapping[str, object]] = {
    "ours": {},
    "diff attention": {},
    "transit": {"pipeline.calibration.fit._transit": _no_transit},
    "constraints": {"pipeline.resolve.unit.geometry": _no_gates},
    "hierarchy": {"pipeline.calibration.fit.UPWARD": UPWARD[:2]},
    "reassignment": {"pipeline.association.associate.displaced": lambda *_, **__: []},
}


@contextmanager
def without(part: str, days: float) -> Iterator[tuple[Path, Settings]]:
    """A copy of the packaged model's directory and the settings to use with it, while `part` is left out."""

    def made(plan: EmbeddingCitySettings) -> EmbeddingCity | _Flat:
        city = embedding_city(replace(plan, days=days))
        return _Flat(city) if part == "hierarchy" else city

    settings = Settings(association=FLAT if part == "hierarchy" else AssociationSettings())
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        shutil.copytree(WEIGHTS, directory)
        if part == "diff attention":
            card = read_card(directory)
            (directory / DIFF_ATTENTION).unlink()
            write_card(card.model_copy(update={"diff_attention": None, "sha256": {}}), directory)
        patches = {"pipeline.calibration.labeled_city.embedding_city": made, **PARTS[part]}
        started = [patch(name, value) for name, value in patches.items()]
        for one in started:
            one.start()
        try:
            yield directory, settings
        finally:
            for one in started:
                one.stop()


def run(directory: Path, settings: Settings, seeds: Sequence[str]) -> tuple[list[str], list[tuple[float, float]]]:
    """The operating points that the search finds, and what comes out with them on each seed's city."""
    fitted = calibration.calibrate(settings, directory, CALIBRATED_ON, lambda _: None).levels
    points = [f"{fit.join_log_odds:+.1f}" for fit in fitted]
    never = {"join_log_odds": NEVER, "review_log_odds": NEVER}
    above = [fitted[0].model_copy(update={"level": level, **never}) for level in UPWARD[1 + len(fitted) :]]
    write_card(read_card(directory).model_copy(update={"calibration": (*fitted, *above)}), directory)
    return points, [district_scores(directory, settings, seed) for seed in seeds]


def district_scores(directory: Path, settings: Settings, seed: str) -> tuple[float, float]:
    """IDF1 and pairwise F1 of a city that nothing was chosen on."""
    with labeling.labeled_city(settings, directory, f"simulated:{seed}", lambda _: None) as (store, core, model):
        for unit in labeling.all_units(store):
            if level_of(unit) is not Level.CAMERA:
                resolve_unit(store, core, model, unit, settings=settings.association)
        found = score_city(store, model)
    return found.idf1["district"], found.pairwise_f1["district"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="31,32,33", help="cities, none of which anything was chosen on")
    parser.add_argument("--parts", default=",".join(PARTS), help="which to leave out; ours is always run")
    parser.add_argument("--days", type=float, default=0.5, help="simulated days of each city")
    asked = parser.parse_args()
    seeds = asked.seeds.split(",")
    ours: Sequence[tuple[float, float]] = ()
    print("| without | operating points | IDF1 | difference | pairwise F1 | difference |\n|---|---|---|---|---|---|")
    for part in dict.fromkeys(["ours", *asked.parts.split(",")]):
        with without(part, asked.days) as (directory, settings):
            points, found = run(directory, settings, seeds)
        ours = ours or found
        print(row(part, points, found, ours), flush=True)


def row(
    part: str, points: Sequence[str], found: Sequence[tuple[float, float]], ours: Sequence[tuple[float, float]]
) -> str:
    cells = [part if part != "ours" else "nothing", ", ".join(points)]
    for column, own in zip(np.array(found).T, np.array(ours).T, strict=True):
        apart = column - own
        each = ", ".join(f"{value:+.3f}" for value in apart)
        cells += [f"{column.mean():.3f} ± {column.std(ddof=1):.3f}", f"{apart.mean():+.3f} ({each})"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
