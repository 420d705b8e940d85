"""The calibration without labels beside that with labels, on cities whose truth neither was learned from.

    python -m benchmarks.unlabeled [--bins] rendered --seeds 1-10 [--uniforms] [--people N] [--cameras N]
    python -m benchmarks.unlabeled [--bins] simulated --seeds 11,12 --cameras 64 --hours 4 [--uniforms] [--people N]
    python -m benchmarks.unlabeled [--bins] street --model FILE [--convention JSON] [--labels DIR] [--marks] DIR ...

Each seed or folder is a city in a data directory of its own, resolved twice: with a calibration from labels of others,
and with the one learned from the city's own crops as `models calibrate --on-city` does. Rendered and simulated cities
have the packaged model, whose card states the first. A street is a folder with `manifest.jsonl`, with truth, and
`city.yaml`, in which real people walk; `--labels` is such a street of other people, with as many cameras; without it
the street is resolved once. `--marks`: in place of once from all crops, it learns at marks of event time, as
`urban-reid up` does. `--uniforms`: half of the people look alike. `--people`: in place of as many as a city of its size
has. `--convention`: of a model's file that the catalog does not know, as in benchmarks.feature_space.

Prints for each level: pairwise F1, precision and recall, the wrong joins among the joins, the share of them that the
probabilities of the joins state, how many compared pairs are one person by the truth and by the probabilities, and the
expected calibration error of those with a probability of 0.05 to 0.95; and on stderr how long the learning took, the
most memory meanwhile, and what was not learned. `--bins` prints the reliability of those pairs there, too. A level with
too little to learn from keeps its prior, which is the card's calibration of the packaged model and nothing for another
one, and is marked.
"""

import argparse
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from scipy.special import expit
from sqlalchemy import text

from benchmarks.cities import agreement, fill, seeds_of, simulated, take_in
from benchmarks.home import home
from pipeline.association.transit import max_lookback_s, prior_times
from pipeline.calibration.fit import Fitted, fit_city, write_calibrations
from pipeline.calibration.labeled_city import all_units
from pipeline.calibration.labeled_pairs import PairCollector, tracklet_truths
from pipeline.calibration.reliability import judge
from pipeline.calibration.unlabeled.outcome import newest_outcomes
from pipeline.calibration.unlabeled.versions import ensure_calibrations, learn_now
from pipeline.city import watermarks
from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow, register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit
from pipeline.resolve.calibrations import current_calibrations
from pipeline.simulation import peak_memory
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.calibration import LevelCalibration
from schemas.cards import InputConvention
from schemas.levels import UPWARD, Level, level_of, parent_of
from schemas.settings import Settings
from synthetic.embedding_city import EmbeddingCitySettings
from synthetic.rendered_city import CITY_DIFFICULTY, UNIFORMS, SimulatedCity, simulate_city

LABELS, WITHOUT = "labels", "without"
_STATED = text(
    "SELECT avg(1 - d.probability) FROM match_decision d JOIN run r ON r.id = d.run_id "
    "WHERE r.superseded_at IS NULL AND r.level = CAST(:level AS unit_level) AND d.verdict = 'join' "
    "AND d.left_key IN (SELECT key FROM identity) AND d.right_key IN (SELECT key FROM identity)"  # as `wrong_joins`
)


@dataclass(frozen=True)
class Street:
    """A folder in which real people walk, the model that is judged there, and its calibrations from labels."""

    folder: Path
    model: Path
    convention: InputConvention | None = None  # of a file that the catalog does not know
    fitted: Fitted | None = None
    at_marks: bool = False


Judged = SimulatedCity | EmbeddingCitySettings | Street


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bins", action="store_true", help="print stated and observed shares of one person's pairs")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, cameras in (("rendered", 8), ("simulated", 64)):
        of_seeds = kinds.add_parser(kind)
        of_seeds.add_argument("--seeds", default="1-10", help="such as 1-10 or 11,12")
        of_seeds.add_argument("--cameras", type=int, default=cameras)
        of_seeds.add_argument("--people", type=int)
        of_seeds.add_argument("--uniforms", action="store_true")
        if kind == "simulated":
            of_seeds.add_argument("--hours", type=float, default=1.0)
    street = kinds.add_parser("street")
    street.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="with manifest.jsonl and city.yaml")
    street.add_argument("--model", type=Path, required=True, help="an .xml or .onnx file, or a model directory")
    street.add_argument("--convention", type=InputConvention.model_validate_json, help="of a file, as JSON")
    street.add_argument("--labels", type=Path, metavar="DIR", help="a street of other people")
    street.add_argument("--marks", action="store_true", help="learn as `urban-reid up` does")
    columns = ("city", "level", "", "F1", "P / R", "wrong joins", "stated", "one person, stated", "error in the middle")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    given = parser.parse_args()
    for name, judged in _cities(given):
        with home() as folder, _city(folder, judged) as (store, core, model):
            for way in _ways(judged):
                by = dict.fromkeys(UPWARD, way)
                if way == WITHOUT:
                    prior = "nothing learned" if isinstance(judged, Street) else f"prior: {LABELS}"
                    by = dict.fromkeys(UPWARD, prior) | dict.fromkeys(_learn(name, judged, store, core, model), way)
                elif isinstance(judged, Street) and judged.fitted is not None:
                    write_calibrations(store, model.id, judged.fitted)
                for level, (cells, bins) in _scores(store, core, model).items():
                    print(f"| {name} | {level} | {by[level]} | {' | '.join(cells)} |", flush=True)
                    if given.bins and bins:
                        print(f"{name}, {level}, {by[level]}: {bins}", file=sys.stderr, flush=True)


def _ways(judged: Judged) -> tuple[str, ...]:
    """How it is calibrated, one after the other."""
    if not isinstance(judged, Street):
        return LABELS, WITHOUT
    # A published model has no prior of labels, so what is learned without them comes first.
    return (WITHOUT,) if judged.fitted is None else (WITHOUT, LABELS)


def _cities(given: argparse.Namespace) -> Iterator[tuple[str, Judged]]:
    """The name of each city, and how it is made."""
    if given.kind == "street":
        fitted = None if given.labels is None else _fit(Street(given.labels, given.model, given.convention))
        for folder in given.folders:
            yield folder.name, Street(folder, given.model, given.convention, fitted, given.marks)
        return
    for seed in seeds_of(given.seeds):
        if given.kind == "simulated":
            plan = replace(simulated(given.cameras, given.hours, seed), people=given.people)
            yield str(seed), replace(plan, uniform_share=0.5) if given.uniforms else plan
        else:
            difficulty = UNIFORMS if given.uniforms else CITY_DIFFICULTY
            people = {} if given.people is None else {"people": given.people}
            yield str(seed), simulate_city(seed, given.cameras, difficulty=difficulty, **people)


def _fit(street: Street) -> Fitted:
    """The calibrations of the model from the labels of the street."""
    with home() as folder, _city(folder, street) as (store, core, row):
        return fit_city(store, core, row, street.folder.name)


@contextmanager
def _city(folder: Path, judged: Judged) -> Iterator[tuple[Store, ReIDCore, ModelRow]]:
    """A store with the city, whose cameras are resolved."""
    settings = Settings(home=folder)
    with Store.open(settings) as store:
        crops = CropStore(settings)
        if isinstance(judged, Street):
            take_in(store, judged.folder / "manifest.jsonl")
            register_model(store, settings, judged.model, "judged", judged.convention)
            model = use_model(store, "judged")
        else:
            model = fill(store, judged)
        core = open_core(settings, model.directory(settings))
        for unit in all_units(store):
            if level_of(unit) is Level.CAMERA:
                embed_camera(store, core, crops, model, unit)
                resolve_unit(store, core, model, unit, settings=settings.association)
        yield store, core, model


def _learn(name: str, judged: Judged, store: Store, core: ReIDCore, model: ModelRow) -> Collection[Level]:
    """Learns the district's calibrations; the levels that have one."""
    began, used = time.perf_counter(), time.process_time()
    with peak_memory(store) as peak:
        if isinstance(judged, Street) and judged.at_marks:
            ensure_calibrations(store, core, CropStore(store.settings), model, "d1")
        else:
            learn_now(store, core, CropStore(store.settings), model, "d1")
    took_s, used_s = time.perf_counter() - began, time.process_time() - used
    with store.begin() as connection:
        outcomes = newest_outcomes(connection, model.id)
        found = current_calibrations(connection, model.id, "d1")
    said = [f"{took_s:.1f} s, {used_s:.1f} of them of this program, {peak.mb:.0f} MB"]
    for line in [*said, *(line for unit, outcome in outcomes.items() for line in outcome.lines(unit))]:
        print(f"{name}: {line}", file=sys.stderr, flush=True)
    return {level for level, one in found.items() if one.evidence is not None}  # those of labels have none


def _scores(store: Store, core: ReIDCore, model: ModelRow) -> dict[Level, tuple[list[str], str]]:
    """Resolves the district, level by level; the cells of each level's row, and its reliability in words."""
    city, settings = read_city(store), store.settings.association
    with store.begin() as connection:
        watermarks.mark_everything(connection)
        truth = tracklet_truths(connection)
        calibrations = current_calibrations(connection, model.id, "d1")
    judged = {}
    for level in UPWARD[1:]:
        units = [code for code in all_units(store) if level_of(code) is level]
        children = sorted(unit.code for unit in city.units if parent_of(unit.code) in set(units))
        collector = PairCollector(children, truth)
        for unit in units:
            resolve_unit(store, core, model, unit, settings=settings, observe=collector.observer(unit, 0))
        lookback_s = max_lookback_s(settings.horizon_s(level))
        judged[level] = _judged(store, collector, children, calibrations, level, lookback_s)
    return {level: ([*cells, *judged[level][0]], judged[level][1]) for level, cells in agreement(store, model).items()}


def _judged(
    store: Store,
    collector: PairCollector,
    children: list[str],
    calibrations: Mapping[Level, LevelCalibration],
    level: Level,
    lookback_s: float,
) -> tuple[list[str], str]:
    """Of the level's probabilities: three cells, and the bins of their reliability as "stated observed"."""
    with store.begin() as connection:
        stated = connection.scalar(_STATED, {"level": level.value})
    calibration, pairs = calibrations.get(level), collector.pairs()
    if calibration is None or pairs is None:
        return ["", "", ""], ""
    transit = pairs.transit(calibration.transit or prior_times(lookback_s), children)
    probability = expit(pairs.log_odds(calibration.terms, transit))
    middle = judge(probability, pairs.same).middle
    cells = [
        "" if stated is None else f"{stated:.3f}",
        f"{int(pairs.same.sum())}, {probability.sum():.0f}",
        f"{middle.ece:.3f} of {middle.pairs}",
    ]
    return cells, ", ".join(f"{p:.2f} {seen:.2f}" for p, seen in zip(middle.predicted, middle.observed, strict=True))


if __name__ == "__main__":
    main()
