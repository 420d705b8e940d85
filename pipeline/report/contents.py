"""Everything that the pages show, read in one transaction."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.scorecard import scorecard
from pipeline.calibration.drift import Drift, decision_distances, drift
from pipeline.city.decision_digest import decision_digest
from pipeline.city.units import read_city
from pipeline.registry import ModelRow, models
from pipeline.report.clocks import CameraClock, read_clocks
from pipeline.report.curves import Curve, Reliabilities, draw_curve, draw_reliabilities, furthest_shown
from pipeline.report.evidence import Evidence, OpenPair, Side, open_pairs, read_evidence
from pipeline.report.journey import Journey, draw_journey
from pipeline.report.read import Person, Sighting, UnitCounts, people_of, read_sightings, read_spread, read_units
from pipeline.report.thumbnails import Picture, best, pictures_of
from pipeline.report.tree import Tree, draw_tree
from pipeline.resolve.calibrations import current_calibration
from pipeline.store import Store
from pipeline.training.reembed import count_unknown
from schemas.association import Verdict
from schemas.calibration import LevelCalibration
from schemas.city_file import unknown_unit
from schemas.errors import CityError
from schemas.levels import UPWARD, Level, level_of

#: What is drawn; the files beside the pages hold the rest.
JOURNEYS = 30
PEOPLE_LISTED = 500
JOINS_A_LEVEL = 100
REVIEWS_A_LEVEL = 60
PICTURES_A_SIDE = 3
_SIGHTINGS_A_JOURNEY = 400


@dataclass(frozen=True)
class Contents:
    units: list[UnitCounts]  # the district first
    timezone: ZoneInfo
    operator: str
    digest: str
    pending: int  # units of the district whose windows wait for a resolve
    model: ModelRow | None
    calibrations: Mapping[Level, LevelCalibration]
    unknown: Mapping[Level, int]  # identities that only an earlier model knows, since their pictures are gone
    sightings: list[Sighting]
    people: list[Person]
    tree: Tree
    curves: list[Curve]
    reliabilities: list[Reliabilities]  # of the levels whose calibration was judged
    drifts: Mapping[Level, Drift]  # of those whose calibration tells how the distances of its decisions were spread
    clocks: list[CameraClock]  # the worst first
    journeys: list[Journey]
    joins: list[Evidence]
    reviews: list[OpenPair]
    waiting: int  # pairs of identities that wait, among the decisions looked at
    looked_at: int  # decisions for review
    settled: int  # pairs for review that later evidence joined, of those looked at
    scores: Mapping[Level, Mapping[str, Any]]  # as `accuracy.scorecard` gives them; empty without truth
    pictures: Mapping[int, Sequence[Picture]]  # of the tracklets that are shown

    @property
    def district(self) -> UnitCounts:
        return self.units[0]

    @property
    def listed(self) -> list[Person]:
        """The people after those whose way is drawn."""
        return self.people[len(self.journeys) : PEOPLE_LISTED]

    @property
    def cameras(self) -> int:
        return sum(unit.level is Level.CAMERA for unit in self.units)

    @property
    def ends(self) -> tuple[datetime, datetime] | None:
        """When the first and the last one was seen, in the city's time; None where times are not known."""
        timed = [sighting for sighting in self.sightings if sighting.timed]
        if not timed:
            return None
        return (
            min(sighting.first_seen for sighting in timed).astimezone(self.timezone),
            max(sighting.last_seen for sighting in timed).astimezone(self.timezone),
        )

    @cached_property
    def several_days(self) -> bool:
        return self.ends is not None and self.ends[0].date() != self.ends[1].date()

    @cached_property
    def _by_id(self) -> dict[UUID, Person]:
        return {person.persistent_id: person for person in self.people}

    def person(self, persistent_id: UUID) -> Person:
        return self._by_id[persistent_id]

    def elsewhere(self, person: Person) -> int:
        """Sightings of who this identity mostly is that it does not hold."""
        return self._of_truth[person.mostly] - sum(said == person.mostly for said in _said(person.sightings))

    @cached_property
    def _of_truth(self) -> Counter[str | None]:
        return Counter(_said(self.sightings))

    @property
    def labeled(self) -> int:
        """Sightings of which is known who it is."""
        return sum(sighting.truth is not None for sighting in self.sightings)

    def of_level(self, level: Level) -> UnitCounts:
        """The sums over all units of a level; named by the district."""
        units = [unit for unit in self.units if unit.level == level]
        sums = {name: sum(getattr(unit, name) for unit in units) for name in _SUMMED}
        return UnitCounts(self.district.code, self.district.name, **sums)

    def shown(self, side: Side) -> list[tuple[Sighting, Picture]]:
        """A side's pictures: of one sighting up to three, of several one each, spread evenly."""
        chosen = _spread(side.sightings)
        if len(chosen) == 1:
            return [(chosen[0], picture) for picture in self.pictures.get(chosen[0].id, ())]
        return [(s, best(self.pictures[s.id])) for s in chosen if s.id in self.pictures]

    def cover(self, person: Person) -> Picture | None:
        """One picture that stands for a person: the best of the first sighting."""
        pictures = self.pictures.get(person.sightings[0].id)
        return best(pictures) if pictures else None

    def all_pictures(self) -> Iterator[Picture]:
        """Every picture that the pages show, some more than once."""
        for journey in self.journeys:
            yield from (shown.picture for shown in journey.shown if shown.picture is not None)
        for person in self.listed:
            cover = self.cover(person)
            if cover is not None:
                yield cover
        for evidence in (*self.joins, *(pair.evidence for pair in self.reviews)):
            for side in (evidence.left, evidence.right):
                yield from (picture for _, picture in self.shown(side))
            if evidence.runner_up is not None:
                yield from (picture for _, picture in self.shown(evidence.runner_up)[:1])


_SUMMED = ("crops", "tracklets", "identities", "joins", "reviews", "apart")

_PENDING = text(
    "SELECT count(*) FROM watermark WHERE dirty_from IS NOT NULL "
    "AND (unit = :district OR starts_with(unit, :district || '/'))"
)


def read_contents(store: Store, district: str) -> Contents:
    """What the report on `district` shows. Raises CityError when it is no district of this city."""
    city = read_city(store)
    known = {unit.code for unit in city.units}
    if district not in known:
        raise unknown_unit(district, known)
    if level_of(district) is not Level.DISTRICT:
        raise CityError(
            f"{district} is a {level_of(district)}; a report shows a whole district: {district.split('/')[0]}"
        )
    zone = ZoneInfo(city.timezone)
    model = next((model for model in models(store) if model.in_use), None)
    with store.begin() as connection:
        # One state of the city for all that is read here, whatever is resolved meanwhile.
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        units = read_units(connection, district)
        sightings = read_sightings(connection, district)
        spreads = read_spread(connection, district, None if model is None else model.id)
        joins = read_evidence(connection, district, Verdict.JOIN, JOINS_A_LEVEL, sightings)
        reviews = read_evidence(connection, district, Verdict.REVIEW, 4 * REVIEWS_A_LEVEL, sightings)
        calibrations = {} if model is None else _calibrations(connection, model.id)
        drifts = {} if model is None else _drifts(connection, district, model.id, calibrations)
        clocks = read_clocks(connection, district, city.cameras(district))
        unknown = {} if model is None else count_unknown(connection, model.id, district)
        digest = decision_digest(connection, district)
        pending = connection.execute(_PENDING, {"district": district}).scalar_one()
        people = people_of(sightings)
        drawn = [_thinned(person) for person in people[:JOURNEYS]]
        waiting = open_pairs(reviews)
        pairs = _first_of_each_level(waiting)
        sides = [s for e in (*joins, *(p.evidence for p in pairs)) for s in (e.left, e.right, e.runner_up) if s]
        pictures = pictures_of(
            connection,
            [
                *(s.id for person in drawn for s in person.sightings),
                *(person.sightings[0].id for person in people[:PEOPLE_LISTED]),
                *(s.id for side in sides for s in _spread(side.sightings)),
            ],
        )
    furthest = furthest_shown(list(spreads.values()))
    return Contents(
        units=units,
        timezone=zone,
        operator=store.settings.operator,
        digest=digest,
        pending=pending,
        model=model,
        calibrations=calibrations,
        unknown=unknown,
        sightings=sightings,
        people=people,
        tree=draw_tree(units, sightings),
        curves=[draw_curve(level, calibrations.get(level), spreads[level], furthest) for level in UPWARD[1:]],
        reliabilities=[
            draw_reliabilities(level, fit.reliability) for level, fit in calibrations.items() if fit.reliability
        ],
        drifts=drifts,
        clocks=clocks,
        journeys=[draw_journey(person, pictures, zone) for person in drawn],
        joins=joins,
        reviews=pairs,
        waiting=len(waiting),
        looked_at=len(reviews),
        settled=sum(review.settled for review in reviews),
        scores={} if model is None else _scores(store, district, model),
        pictures=pictures,
    )


def _calibrations(connection: Connection, model_id: int) -> dict[Level, LevelCalibration]:
    found = {level: current_calibration(connection, model_id, level) for level in UPWARD[1:]}
    return {level: stored.value for level, stored in found.items() if stored is not None}


def _drifts(
    connection: Connection, district: str, model_id: int, calibrations: Mapping[Level, LevelCalibration]
) -> dict[Level, Drift]:
    """How far the decisions of the district are from those that were made at calibration."""
    return {
        level: drift(fit.decisions, decision_distances(connection, level, model_id, district))
        for level, fit in calibrations.items()
        if fit.decisions is not None
    }


def _said(sightings: Sequence[Sighting]) -> list[str | None]:
    return [sighting.truth for sighting in sightings]


def _thinned(person: Person) -> Person:
    return Person(person.persistent_id, person.sightings[:_SIGHTINGS_A_JOURNEY])


def _spread(sightings: Sequence[Sighting]) -> list[Sighting]:
    """At most PICTURES_A_SIDE of them, from the first to the last."""
    if len(sightings) <= PICTURES_A_SIDE:
        return list(sightings)
    last = len(sightings) - 1
    return [sightings[round(i * last / (PICTURES_A_SIDE - 1))] for i in range(PICTURES_A_SIDE)]


def _first_of_each_level(pairs: Sequence[OpenPair]) -> list[OpenPair]:
    return [
        pair
        for level in reversed(UPWARD)
        for pair in [pair for pair in pairs if pair.evidence.level is level][:REVIEWS_A_LEVEL]
    ]


def _scores(store: Store, district: str, model: ModelRow) -> Mapping[Level, Mapping[str, Any]]:
    labeled = labeled_tracklets(store, district, model.id)
    # The baseline's thresholds were chosen on other cities, as ours were; they travel in the model's card.
    nearest = model.card.details.get("nearest_neighbor_distance", {})
    return scorecard(store, district, labeled, nearest) if labeled.key else {}
