"""read_contents: reads everything that the pages show, from one state of the city."""

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import text

from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.scorecard import scorecard
from pipeline.calibration.drift import drifts
from pipeline.cameras.rows import read_outages
from pipeline.city.decision_digest import decision_digest
from pipeline.city.units import read_city
from pipeline.registry import ModelRow, models
from pipeline.report.clocks import read_clocks
from pipeline.report.contents import (
    IDENTITIES_LISTED,
    JOINS_A_LEVEL,
    REVIEWS_A_LEVEL,
    TIMELINES,
    Contents,
    pictured_tracklets,
)
from pipeline.report.curves import draw_curve, draw_reliabilities, furthest_shown
from pipeline.report.distance_histograms import read_distance_histograms
from pipeline.report.evidence import OpenPair, open_pairs, read_evidence
from pipeline.report.identities import DistrictIdentity, identities_of, read_tracklets
from pipeline.report.thumbnails import contexts_of, pictures_of
from pipeline.report.timeline import draw_timeline
from pipeline.report.tree import draw_tree
from pipeline.report.unit_counts import read_unit_counts
from pipeline.resolve.calibrations import current_calibrations
from pipeline.store import Store
from pipeline.training.reembed import count_unknown
from schemas.association import Verdict
from schemas.city_file import unknown_unit
from schemas.errors import CityError
from schemas.levels import UPWARD, Level, level_of

_TRACKLETS_A_TIMELINE = 400

_PENDING = text(
    "SELECT count(*) FROM watermark WHERE dirty_from IS NOT NULL "
    "AND (unit = :district OR starts_with(unit, :district || '/'))"
)


def read_contents(store: Store, district: str) -> Contents:
    """The contents of the report on `district`. Raises CityError if it is no district of this city."""
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
    with store.signed_in() as connection:
        # One snapshot for all reads, whatever is resolved meanwhile.
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        units = read_unit_counts(connection, district)
        tracklets = read_tracklets(connection, district)
        histograms = read_distance_histograms(connection, district, None if model is None else model.id)
        joins = read_evidence(connection, district, Verdict.JOIN, JOINS_A_LEVEL, tracklets)
        reviews = read_evidence(connection, district, Verdict.REVIEW, 4 * REVIEWS_A_LEVEL, tracklets)
        calibrations = {} if model is None else current_calibrations(connection, model.id, district)
        drifted = {} if model is None else drifts(connection, calibrations, model.id, district)
        clocks = read_clocks(connection, district, city.cameras(district))
        unknown = {} if model is None else count_unknown(connection, model.id, district)
        digest = decision_digest(connection, district)
        pending = connection.execute(_PENDING, {"district": district}).scalar_one()
        first_seen = min((tracklet.first_seen for tracklet in tracklets if tracklet.timed), default=None)
        outages = read_outages(connection, district, first_seen)
        identities = identities_of(tracklets)
        drawn = [_first_tracklets(identity) for identity in identities[:TIMELINES]]
        waiting = open_pairs(reviews)
        pairs = _first_of_each_level(waiting)
        sides = [s for e in (*joins, *(p.evidence for p in pairs)) for s in (e.left, e.right, e.runner_up) if s]
        pictures = pictures_of(
            connection,
            [
                *(t.id for identity in drawn for t in identity.tracklets),
                *(identity.tracklets[0].id for identity in identities[:IDENTITIES_LISTED]),
                *(t.id for side in sides for t in pictured_tracklets(side)),
            ],
        )
        contexts = contexts_of(connection, [t.id for side in sides for t in pictured_tracklets(side)])
    furthest = furthest_shown(list(histograms.values()))
    return Contents(
        units=units,
        timezone=zone,
        operator=store.settings.operator,
        digest=digest,
        pending=pending,
        model=model,
        calibrations=calibrations,
        unknown=unknown,
        tracklets=tracklets,
        identities=identities,
        tree=draw_tree(units, tracklets),
        curves=[draw_curve(level, calibrations.get(level), histograms[level], furthest) for level in UPWARD[1:]],
        reliabilities=[
            draw_reliabilities(level, calibration.reliability)
            for level, calibration in calibrations.items()
            if calibration.reliability
        ],
        drifts=drifted,
        clocks=clocks,
        outages=outages,
        timelines=[draw_timeline(identity, pictures, zone, outages) for identity in drawn],
        joins=joins,
        reviews=pairs,
        waiting=len(waiting),
        reviews_read=len(reviews),
        joined_since=sum(review.joined_since for review in reviews),
        scores={} if model is None else _scores(store, district, model),
        pictures=pictures,
        contexts=contexts,
    )


def _first_tracklets(identity: DistrictIdentity) -> DistrictIdentity:
    return DistrictIdentity(identity.persistent_id, identity.tracklets[:_TRACKLETS_A_TIMELINE])


def _first_of_each_level(pairs: Sequence[OpenPair]) -> list[OpenPair]:
    return [
        pair
        for level in reversed(UPWARD)
        for pair in [pair for pair in pairs if pair.evidence.level is level][:REVIEWS_A_LEVEL]
    ]


def _scores(store: Store, district: str, model: ModelRow) -> Mapping[Level, Mapping[str, Any]]:
    """The scorecard of the district; empty without ground truth."""
    labeled = labeled_tracklets(store, district, model.id)
    # The baseline's thresholds were chosen on other cities, as the model's operating points were; its card holds them.
    nearest = model.card.details.get("nearest_neighbor_distance", {})
    return scorecard(store, district, labeled, nearest) if labeled.key else {}
