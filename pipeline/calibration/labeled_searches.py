"""Searches of a labeled city with withheld probes, and the calibration of each level's searches that follows."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, text

from pipeline.calibration.labeled_city import all_units, labeled_city
from pipeline.calibration.labeled_pairs import majority_person, tracklet_truths
from pipeline.calibration.search_fit import LabeledSearch, fit_search
from pipeline.calibration.withheld import Probe, Withheld
from pipeline.city.units import read_city
from pipeline.governance.audit import Action, audit
from pipeline.registry import ModelRow, insert_calibration, insert_search_calibration
from pipeline.resolve import resolve_unit
from pipeline.search.nearest import Gallery
from pipeline.search.transit import Passages, Sighting, Surroundings, Transit
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from schemas.arrays import Floats
from schemas.calibration import LevelCalibration, SearchCalibration
from schemas.city_file import City
from schemas.levels import UPWARD, Level, is_within, level_of
from schemas.settings import Settings

#: Probes of each district that are searched for, and units of a level that each is searched in.
_PROBES, _UNITS = 200, 2

_IDENTITIES = text("SELECT id, tracklets FROM identity_now WHERE unit = :unit ORDER BY key")


def calibrate_search(
    settings: Settings,
    model_directory: Path,
    source: str,
    on_step: Callable[[str], None] = lambda _: None,
    *,
    pairs: Sequence[LevelCalibration] = (),
) -> tuple[SearchCalibration, ...]:
    """Calibrates the searches of all levels of the model in `model_directory`. Takes minutes.

    source, on_step: as for `pipeline.calibration.fit.calibrate`. pairs: the calibrations to resolve with; those of the
    model's card unless given. One tracklet of each person is withheld from the city and searched for in it. Levels with
    too few searches are left out.
    """
    withheld = Withheld()
    with labeled_city(settings, model_directory, source, on_step, withheld) as (store, core, model):
        with store.begin() as connection:
            for calibration in pairs:
                insert_calibration(connection, model.id, calibration)
        resolve_all(store, core, model)
        on_step(f"{len(withheld.probes)} probes withheld, the rest resolved")
        probes = _some(withheld.probes)
        features = Withheld(probes=probes).features(core)
        found = []
        for level in UPWARD[1:]:
            searches = labeled_searches(store, core, model, level, probes, features, wide=True)
            fitted = fit_search(level, searches, source)
            if fitted is None:
                on_step(f"{level.value}: {len(searches)} searches, too few")
                continue
            found.append(fitted)
            judged = fitted.reliability
            error = f", calibration error of hits {judged.hits.shortlist.ece:.3f}" if judged else ""
            on_step(f"{level.value}: {fitted.searches} searches{error}")
    return tuple(found)


def write_search_calibrations(store: Store, model_id: int, found: Sequence[SearchCalibration]) -> None:
    """Makes these the newest calibrations of the model's searches."""
    with store.begin() as connection:
        for calibration in found:
            insert_search_calibration(connection, model_id, calibration)
        details = {"model": model_id, "searches": [calibration.level.value for calibration in found]}
        audit(connection, store.settings.operator, Action.MODEL_CALIBRATE, details=details)


def _some(probes: Sequence[Probe]) -> list[Probe]:
    """At most _PROBES probes of each district."""
    counts: Counter[str] = Counter()
    found = []
    for probe in probes:
        counts[probe.district] += 1
        if counts[probe.district] <= _PROBES:
            found.append(probe)
    return found


def resolve_all(store: Store, core: ReIDCore, model: ModelRow) -> None:
    """Resolves all units above the cameras."""
    for unit in all_units(store):
        if level_of(unit) is not Level.CAMERA:
            resolve_unit(store, core, model, unit, settings=store.settings.association)


def labeled_searches(
    store: Store,
    core: ReIDCore,
    model: ModelRow,
    level: Level,
    probes: Sequence[Probe],
    features: Floats,
    *,
    wide: bool = False,
) -> list[LabeledSearch]:
    """The searches for the probes in units of `level` of their district.

    Who is there is searched for in at most _UNITS units that saw them, who is not in the first ones. wide: the first of
    them once more together with the largest unit of every other district, whose people are strangers: a larger city.
    features: (p, D).
    """
    units = [unit for unit in all_units(store) if level_of(unit) is level]
    city = read_city(store)
    with store.begin() as connection:
        truth = tracklet_truths(connection)
        galleries = {unit: _Labeled.read(connection, city, model, unit, truth, store.settings) for unit in units}
    largest: dict[str, _Labeled] = {}
    for unit in sorted(units, key=lambda code: len(galleries[code].person)):
        largest[unit.split("/")[0]] = galleries[unit]
    searches: list[LabeledSearch] = []
    for probe, feature in zip(probes, features, strict=True):
        asked = [unit for unit in units if unit.split("/")[0] == probe.district and galleries[unit].person]
        if probe.there:
            asked = [unit for unit in asked if any(probe.person in people for people in galleries[unit].people)]
        found = [galleries[unit].search(core, probe, feature) for unit in asked[:_UNITS]]
        searches += found
        if wide and found:
            others = [other.gallery for district, other in sorted(largest.items()) if district != probe.district]
            searches += [found[0].among_strangers(core, feature, others)] if others else []
    return searches


@dataclass(frozen=True)
class _Labeled:
    """The n identities of a unit that have prototypes, with their truth."""

    unit: str
    gallery: Gallery
    passages: Passages
    surroundings: Surroundings | None
    person: list[str]  # (n,) of most tracklets of each
    people: list[set[str]]  # (n,) all of its people

    @classmethod
    def read(
        cls,
        connection: Connection,
        city: City,
        model: ModelRow,
        unit: str,
        truth: Mapping[int, str],
        settings: Settings,
    ) -> "_Labeled":
        rows = {row.id: row.tracklets for row in connection.execute(_IDENTITIES, {"unit": unit})}
        gallery = Gallery.read(connection, model.id, list(rows))
        tracklets: list[Sequence[int]] = [rows[identity] for identity in gallery.ids]
        return cls(
            unit=unit,
            gallery=gallery,
            passages=Passages.read(connection, gallery.ids.tolist()),
            surroundings=Surroundings.read(connection, city, model.id, unit, unit, settings.association),
            person=[majority_person(held, truth) for held in tracklets],
            people=[{truth[t] for t in held if t in truth} for held in tracklets],
        )

    def search(self, core: ReIDCore, probe: Probe, feature: Floats) -> LabeledSearch:
        transit = Transit.unknown(len(self.person))
        if self.surroundings is not None and probe.span_us is not None and is_within(probe.camera, self.unit):
            transit = self.surroundings.compare(Sighting(probe.camera, *probe.span_us), self.passages)
        compared = self.gallery.compare(core, feature)
        return LabeledSearch(
            distance=compared.distance,
            exact=compared.exact,
            vectors=self.gallery.vectors,
            same=np.array([name == probe.person for name in self.person], dtype=bool),
            holds=np.array([probe.person in names for names in self.people], dtype=bool),
            transit=transit,
            district=probe.district,
        )
