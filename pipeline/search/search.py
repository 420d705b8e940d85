"""search: from one picture to the identities of a unit, ranked, each with its nearest crops.

The request must be written before (request.py).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, Row, text

from pipeline.association.log_odds import probability
from pipeline.cameras.rows import read_outages
from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow, check_model_in_use
from pipeline.registry.packaged import take_over_packaged
from pipeline.resolve.calibrations import read_calibrations
from pipeline.search.by_attributes import LIST, Worn, filtered, list_people
from pipeline.search.calibrations import StoredSearchCalibration, search_calibration
from pipeline.search.descent import nearest_crops, rows_of
from pipeline.search.index import Index
from pipeline.search.known import Known, count_days, read_known
from pipeline.search.likelihood import Reference, log_ratios, look_ratios
from pipeline.search.memory import most_bytes
from pipeline.search.narrowing import Narrowing
from pipeline.search.nearest import Compared, Gallery, Probe
from pipeline.search.posterior import Evidence, Posterior, posterior
from pipeline.search.probe import probe_feature
from pipeline.search.raising import Passages, Raising
from pipeline.search.recall import read_recall
from pipeline.search.request import read_request
from pipeline.search.result import Hit, StoredEvidence, write_result
from pipeline.search.transit import Sighting, Surroundings, Transit
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from schemas.arrays import Floats
from schemas.city_file import City
from schemas.errors import NotAllowed, StoreConflict
from schemas.levels import Level, level_of
from schemas.parameters import Covered, Period, SearchEvidence, SearchHit, SearchParameters, SearchResult
from schemas.settings import AssociationSettings
from schemas.text import said

#: Most times that a result says a camera was blind.
_OUTAGES = 100

#: How often a city is searched whose people are erased meanwhile.
_TRIES = 3

#: Opens the core of a registered model.
Cores = Callable[[ModelRow], ReIDCore]


def search(
    store: Store,
    cores: Cores,
    crops: CropStore,
    model: ModelRow,
    request: UUID,
    parameters: SearchParameters,
    index: Index | None = None,
) -> SearchResult:
    """Runs a written request. Returns its hits, at most `parameters.top`, and writes them and what they follow from.

    A hit is an identity of the unit that was seen in the period. Its distance is the smallest between the probe and its
    prototypes (mean and medoids), symmetric and attended. Its probability is the posterior that it is the probe's
    person, among all identities that were compared and "not here" (`posterior`); None without a search calibration.
    Where the probe is a stored crop with a time, its transit to the identity counts too, and what is impossible has
    probability 0.
    Identities without a prototype of `model` are compared by the earlier model that knows them, which the hit names.
    Attributes that are asked for decide who is shown, and change nobody's probability: whoever has them, or of whom
    nothing is known. Without a picture it is a list of those who have them, how far their crops agree on it before
    everything else, without distances and probabilities.

    Hits are sorted by probability. Where one has none, those of `model` come first, each model's by distance:
    distances of two models cannot be compared.

    index: what a process keeps in memory; without it the prototypes are read for this search. What is shown is read
    from one snapshot of the city; raises ModelChanged if `model` is not in use in it. Where somebody of it is erased
    before the hits are written, the city is searched again, as it is then. Raises InputError if the request or its
    probe was erased. Can be called again after a failure.
    """
    for _ in range(_TRIES):
        try:
            return _search(store, cores, crops, model, request, parameters, index)
        except StoreConflict as error:
            read_request(store, request)
            last = error
    raise StoreConflict(
        f"somebody of {parameters.unit} was erased each of the {_TRIES} times that it was searched; search again later"
    ) from last


def _search(
    store: Store,
    cores: Cores,
    crops: CropStore,
    model: ModelRow,
    request: UUID,
    parameters: SearchParameters,
    index: Index | None,
) -> SearchResult:
    city = read_city(store)
    take_over_packaged(store)
    period = Period(from_time=parameters.from_time, to_time=parameters.to_time)
    with ExitStack() as turn:  # of the index, until everything is compared
        if index is None:
            unit_index = None
        else:
            asks = parameters.attributes is not None
            unit_index = turn.enter_context(index.held(model, parameters.unit, attributes=asks))
        with store.signed_in(request, only_reads=True) as connection:
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            check_model_in_use(connection, model)
            narrowing = Narrowing.of(connection, parameters, city.timezone)
            if unit_index is None:
                most = most_bytes(store.settings)
                every = read_known(connection, model, parameters.unit, period, narrowing, most)
            else:
                every = unit_index.known(connection, model, period, narrowing)
            worn = [Worn.of(one, parameters, narrowing, city.timezone) for one in every]
            parts = [
                _compare(
                    connection, cores(known.model), crops, known, one, parameters, city, store.settings.association
                )
                for known, one in zip(every, worn, strict=True)
                if parameters.has_picture
            ]
            turn.close()
            evidence = _stated(parts)
            stated = None if evidence is None else posterior(Evidence.read(evidence), evidence.calibration)
            if parameters.has_picture:
                found = [hit for part in parts for hit in _hits(part, stated, period, narrowing, parameters)]
                # Sorting is stable, so equal probabilities stay in the order of the distance.
                if all(hit.shown.probability is not None for hit in found):
                    found.sort(key=lambda hit: -(hit.shown.probability or 0.0))
            else:
                found = list_people(connection, model, every, worn, parameters, narrowing)
            ranked = [hit.with_rank(rank) for rank, hit in enumerate(found[: parameters.top], 1)]
            passages: list[Passages] = []
            if (raising := Raising.of(connection, request)) is not None:
                ranked, passages = raising.raised(ranked, {part.model.id: part.probe for part in parts}, period)
            exact = all(part.compared.exact.all() for part in parts)
            notes = [part.note(parameters.unit) for part in parts] if parameters.has_picture else [LIST]
            if connection.get_execution_options().get("instead"):
                notes.append(said("The database itself was read, because its replica was behind or away."))
            result = SearchResult(
                covered=Covered(
                    unit=parameters.unit,
                    from_time=parameters.from_time,
                    to_time=parameters.to_time,
                    cameras=sum(
                        level_of(u.code) is Level.CAMERA and f"{u.code}/".startswith(f"{parameters.unit}/")
                        for u in city.units
                    ),
                    exact=exact,
                    models=tuple(dict.fromkeys(known.model.name for known in every)),
                    partitions=count_days(connection, [known.model.id for known in every]),
                    operating_point=_operating_point(connection, model, parameters.unit),
                    recall=None if exact else read_recall(connection, model.id),
                ),
                hits=tuple(hit.shown for hit in ranked),
                compared=sum(len(known.gallery.ids) for known in every),
                impossible=sum(int(part.transit.impossible.sum()) for part in parts),
                not_here=None if stated is None else stated.not_here,
                attributes=filtered(worn),
                note=" ".join(dict.fromkeys(note for note in notes if note)),
                blind=tuple(
                    read_outages(connection, parameters.unit, period.from_time, period.to_time, newest=_OUTAGES)
                ),
                evidence=evidence,
            )
            stored = [part.stored for part in parts if part.stored is not None and (ranked or raising is None)]
    # Not in the snapshot, which does not see the row of the audit that somebody else wrote meanwhile: this one's row
    # would take its place in the chain, and be refused.
    try:
        with store.signed_in(request) as connection:
            if raising is not None:
                raising.note(connection, passages)
            return write_result(connection, request, result, ranked, stored)
    except NotAllowed:  # also of rows that say something about what was erased
        read_request(store, request)
        ids = [hit.identity_id for hit in ranked]
        with store.signed_in(request) as connection:
            if len(rows_of(connection, ids)) == len(ids):
                raise
        raise StoreConflict("somebody of a hit was erased meanwhile") from None


@dataclass(frozen=True)
class _Part:
    """The identities that one model compared with the probe."""

    probe: Probe
    model: ModelRow
    gallery: Gallery
    compared: Compared  # with the n identities of the gallery
    calibration: StoredSearchCalibration | None
    reference: Reference
    transit: Transit  # to the n identities
    look: Floats  # (n,) log likelihood ratio of the distance; 0 without a calibration: they count, and say nothing
    log_ratio: Floats  # (n,) of distance, time and place
    evidence: Evidence
    worn: Worn | None  # by the n identities, where attributes are asked for

    @property
    def stored(self) -> StoredEvidence | None:
        if self.calibration is None:
            return None
        return StoredEvidence(self.model.id, self.calibration.id, self.reference, self.evidence)

    def note(self, unit: str) -> str:
        """What to know about the probabilities, in words; empty for nothing."""
        level, name = level_of(unit), self.model.name
        if self.calibration is None:
            if level is Level.CAMERA:
                return said("A camera's tracklets have no probability: search the building, street or district.")
            return said(
                f"Model {name} has no calibration of searches, so no probability is known; `urban-reid models "
                f"calibrate {name} --dataset ...` makes one."
            )
        used = self.calibration.value.level
        other = said(f"No search calibration of the {level} level: that of the {used} is used.")
        return "" if used is level else other


def _compare(
    connection: Connection,
    core: ReIDCore,
    crops: CropStore,
    known: Known,
    worn: Worn | None,
    parameters: SearchParameters,
    city: City,
    settings: AssociationSettings,
) -> _Part:
    model = known.model
    probe = Probe(connection, core, model, probe_feature(connection, core, crops, model, parameters))
    gallery = known.gallery
    compared = gallery.compare(core, probe.feature, wanted=None if worn is None else worn.is_shown)
    known.watch(probe.feature, compared)
    distance = compared.distance
    calibration = search_calibration(connection, model.id, level_of(parameters.unit))
    reference = Reference.of(compared.counts(gallery.vectors), None if calibration is None else calibration.value)
    transit = _transit(connection, known, parameters, city, settings)
    look, ratios = np.zeros(len(distance)), np.where(transit.impossible, -np.inf, 0.0)
    if calibration is not None:
        look = look_ratios(calibration.value, reference.standardized(distance, gallery.vectors), gallery.vectors)
        ratios = log_ratios(calibration.value, look, transit)
    evidence = Evidence.of(ratios, look)
    return _Part(probe, model, gallery, compared, calibration, reference, transit, look, ratios, evidence, worn)


def _transit(
    connection: Connection,
    known: Known,
    parameters: SearchParameters,
    city: City,
    settings: AssociationSettings,
) -> Transit:
    """The transit of the probe to the identities; unknown where the probe has no time or place."""
    sighting = None if parameters.crop_key is None else Sighting.of_crop(connection, parameters.crop_key)
    if sighting is None:
        return Transit.unknown(len(known.gallery.ids))
    around = Surroundings.read(connection, city, known.model.id, parameters.unit, sighting.camera, settings)
    if around is None:
        return Transit.unknown(len(known.gallery.ids))
    return around.compare(sighting, known.passages())


def _operating_point(connection: Connection, model: ModelRow, unit: str) -> float | None:
    """The probability from which on identities are joined at the unit's level."""
    level = level_of(unit)
    calibrated = None if level is Level.CAMERA else read_calibrations(connection, model.id, level, unit).newest
    return None if calibrated is None else probability(calibrated.value.join_log_odds)


def _stated(parts: Sequence[_Part]) -> SearchEvidence | None:
    """The evidence of all parts, with the calibration of the first that has one; None if none has."""
    calibration = next((part.calibration for part in parts if part.calibration is not None), None)
    if calibration is None:
        return None
    evidence = parts[0].evidence
    for part in parts[1:]:
        evidence += part.evidence
    return evidence.stated(calibration.value)


def _hits(
    part: _Part,
    stated: Posterior | None,
    period: Period,
    narrowing: Narrowing | None,
    parameters: SearchParameters,
) -> list[Hit]:
    """The hits of one model, the most probable first, at most `parameters.top`."""
    hits: list[Hit] = []
    scored = np.flatnonzero(part.compared.exact if part.worn is None else part.compared.exact & part.worn.is_shown)
    distance = part.compared.distance
    ordered = scored[np.lexsort((distance[scored], -part.log_ratio[scored]))].tolist()
    while ordered and len(hits) < parameters.top:
        candidates, ordered = ordered[: parameters.top - len(hits)], ordered[parameters.top - len(hits) :]
        of = _rows(part, candidates)
        crops = nearest_crops(part.probe, level_of(parameters.unit), list(of.values()), period, narrowing)
        for row, identity in of.items():
            if not crops[identity.id]:  # its time span covers the period, but no crop lies in it
                continue
            impossible = bool(part.transit.impossible[row])
            ratio, look = float(part.log_ratio[row]), float(part.look[row])
            said = part.calibration is not None and not impossible
            shown = SearchHit(
                rank=len(hits) + 1,
                identity=identity.persistent_id,
                unit=parameters.unit,
                model=part.model.name,
                distance=float(distance[row]),
                log_ratio=ratio if said else None,
                log_look=look if said else None,
                transit=ratio - look if said and part.transit.log_odds[row] else None,
                impossible=impossible,
                probability=0.0 if impossible else stated.of(ratio, look) if said and stated is not None else None,
                first_seen=identity.first_seen if identity.timed else None,
                last_seen=identity.last_seen if identity.timed else None,
                attributes=None if part.worn is None else part.worn.attributes.terms(row),
                crops=crops[identity.id],
            )
            hits.append(Hit(identity.id, part.model.id, shown))
    return hits


def _rows(part: _Part, rows: Sequence[int]) -> dict[int, Row[Any]]:
    """The identities in these rows of the gallery, without those that were erased a moment ago."""
    found = rows_of(part.probe.connection, [int(part.gallery.ids[row]) for row in rows])
    return {row: found[one] for row in rows if (one := int(part.gallery.ids[row])) in found}
