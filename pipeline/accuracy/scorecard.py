"""The scorecard of a unit's levels against the truth: agreement, open set, violations, churn, review load."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from pipeline.accuracy.baselines import nearest_neighbor_by_unit
from pipeline.accuracy.labeled import UNITS, Labeled, majority, rows_of, uuids
from pipeline.accuracy.metrics import OpenSet, agreement, churn, open_set, pairwise
from pipeline.accuracy.violations import forbidden_pairs
from pipeline.association.geometry import Geometry, unit_geometry
from pipeline.city.units import read_city
from pipeline.store import Store
from pipeline.store.copy import copy_out
from schemas.arrays import Bools, Ints
from schemas.levels import UPWARD, Level


def scorecard(
    store: Store, unit: str, labeled: Labeled, nearest_distances: Mapping[str, float] | None = None
) -> dict[Level, dict[str, Any]]:
    """Per level above the camera, over the labeled tracklets of `unit`:

    - identities, people: their numbers; a person counts again in each unit and after each horizon (`Labeled.episodes`);
    - the measures of `agreement_by_level`;
    - false_attach_rate, miss_rate, mistaken_rate, and `history`, their counts by size of history: see `open_set_of`;
    - violations: see `violations`;
    - churn: share of the tracklets whose identity has another persistent id now than at first;
    - reviews, reviews_labeled, reviews_needed: see `_review_load`.
    """
    geometry = unit_geometry(read_city(store), unit, store.settings.association)
    measures = agreement_by_level(labeled, nearest_distances or {})
    result: dict[Level, dict[str, Any]] = {}
    for level in labeled.levels:
        opened = open_set_of(labeled, level)
        row: dict[str, Any] = {
            "identities": len(np.unique(labeled.identity[level])),
            "people": len(np.unique(labeled.episodes(level, labeled.truth))),
            **measures[level.value],
            "false_attach_rate": opened.false_attach_rate,
            "miss_rate": opened.miss_rate,
            "mistaken_rate": opened.mistaken_rate,
            "history": _by_history(opened),
            "violations": violations(labeled, level, geometry),
        }
        with store.begin() as connection:
            row["churn"] = _churn(connection, unit, level, labeled)
            row |= _review_load(connection, unit, level, labeled)
        result[level] = row
    return result


def agreement_by_level(labeled: Labeled, nearest_distances: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Per level above the camera: the measures of `metrics.agreement` for the level's task.

    nearest_distances: per level, the threshold (cosine distance) of the nearest-neighbor baseline; adds its pairwise F1
    as nearest_neighbor_f1. A tracklet in no identity of a level counts as alone.
    """
    result: dict[str, dict[str, float]] = {}
    for level in labeled.levels:
        unit = labeled.unit(level)
        truth = labeled.episodes(level, labeled.truth)
        row = agreement(labeled.episodes(level, labeled.identity[level]), truth, unit, labeled.crops)
        if level.value in nearest_distances:
            groups = nearest_neighbor_by_unit(labeled.mean, unit)(nearest_distances[level.value])
            row["nearest_neighbor_f1"] = pairwise(labeled.episodes(level, groups), truth, unit).f1
        result[level.value] = row
    return result


def violations(labeled: Labeled, level: Level, geometry: Geometry) -> int:
    """Number of pairs of timed tracklets in one identity of `level` that the gates forbid."""
    timed = np.flatnonzero(labeled.timed)
    return forbidden_pairs(
        labeled.identity[level][timed],
        labeled.camera[timed],
        labeled.start_us[timed],
        labeled.end_us[timed],
        geometry.min_gap,
        geometry.largest_min_gap_us,
    )


def open_set_of(labeled: Labeled, level: Level) -> OpenSet:
    """`metrics.open_set` of a level, on its children (identities of the level below) in order of their first tracklet.

    A child shows the person of most of its crops. A person who comes back after the level's horizon is new.
    """
    child = labeled.identity[UPWARD[UPWARD.index(level) - 1]]
    order = np.lexsort((labeled.start_us, child))
    first = order[np.unique(child[order], return_index=True)[1]]  # (m,) the first tracklet of each child
    people = labeled.episodes(level, labeled.truth)
    identity = labeled.episodes(level, labeled.identity[level])
    truth = majority(child, people, labeled.crops, len(first))
    return open_set(identity[first], truth, labeled.unit(level)[first], labeled.start_us[first])


def _by_history(found: OpenSet) -> list[dict[str, int]]:
    """The non-empty bins of history size; `identities_from` is the lower edge of a bin."""
    names = ("new", "false_attached", "seen", "missed", "mistaken")
    return [
        {"identities_from": int(found.begins[i]), **{name: int(getattr(found, name)[i]) for name in names}}
        for i in np.flatnonzero(found.new + found.seen).tolist()
    ]


# Superseded runs count, since an operator may have seen the id that they gave.
_FIRST_IDS = (
    "SELECT DISTINCT ON (t.persistent_id) uuid_send(t.persistent_id), uuid_send(i.persistent_id) FROM identity i "
    "CROSS JOIN unnest(i.tracklets) AS below(id) JOIN identity t ON t.id = below.id "
    f"WHERE i.unit IN ({UNITS}) ORDER BY t.persistent_id, i.id"
)


def _churn(connection: Connection, unit: str, level: Level, labeled: Labeled) -> float:
    at = {"unit": unit, "level": level.value}
    rows = copy_out(connection, _FIRST_IDS, at, {"tracklet": "bytea", "identity": "bytea"})
    row, found = rows_of(labeled.persistent_id[Level.CAMERA], uuids(rows["tracklet"]))
    return churn(uuids(rows["identity"])[found], labeled.persistent_id[level][row[found]])


_REVIEWS = (
    "SELECT d.id, d.left_key, d.right_key FROM match_decision d JOIN run r ON r.id = d.run_id "
    f"WHERE r.unit IN ({UNITS}) AND r.superseded_at IS NULL AND d.verdict = 'review'"
)
_REVIEWED_TRACKLETS = (
    f"WITH asked AS MATERIALIZED ({_REVIEWS}), side AS (SELECT id, false AS is_right, left_key AS key FROM asked "
    "UNION ALL SELECT id, true, right_key FROM asked), version AS (SELECT DISTINCT ON (i.key) i.key, i.tracklets "
    "FROM identity i WHERE i.key IN (SELECT key FROM side) AND NOT i.retired ORDER BY i.key, i.id DESC) "
    "SELECT s.id, s.is_right, uuid_send(t.persistent_id) FROM side s JOIN version v USING (key) "
    "CROSS JOIN unnest(v.tracklets) AS below(id) JOIN identity t ON t.id = below.id"
)


def reviews(connection: Connection, unit: str, level: Level) -> int:
    """Number of current decisions of `level`, at and below the unit, that ask for a review."""
    at = {"unit": unit, "level": level.value}
    return int(connection.scalar(text(f"SELECT count(*) FROM ({_REVIEWS}) AS asked"), at) or 0)


def _review_load(connection: Connection, unit: str, level: Level, labeled: Labeled) -> dict[str, int]:
    """The decisions that ask for a review.

    reviews: all of them. reviews_labeled: those with labels on both sides. reviews_needed: those of them whose two
    sides show one person, by most of their crops, and are not in one identity by now: without the review they would
    stay apart wrongly. The other labeled ones are right without a review.
    """
    at = {"unit": unit, "level": level.value}
    kinds = {"id": "int8", "is_right": "bool", "tracklet": "bytea"}
    rows = copy_out(connection, _REVIEWED_TRACKLETS, at, kinds)
    row, found = rows_of(labeled.persistent_id[Level.CAMERA], uuids(rows["tracklet"]))
    row, right = row[found], np.asarray(rows["is_right"])[found]
    decisions, decision = np.unique(np.asarray(rows["id"])[found], return_inverse=True)
    side = majority(2 * decision + right, labeled.truth[row], labeled.crops[row], 2 * len(decisions)).reshape(-1, 2)
    both_labeled = (side >= 0).all(axis=1)
    together = np.zeros(len(decisions), dtype=bool)
    together[_joined_by_now(decision, right, labeled.identity[level][row])] = True
    needed = both_labeled & (side[:, 0] == side[:, 1]) & ~together
    return {
        "reviews": reviews(connection, unit, level),
        "reviews_labeled": int(both_labeled.sum()),
        "reviews_needed": int(needed.sum()),
    }


def _joined_by_now(decision: Ints, right: Bools, identity: Ints) -> Ints:
    """The decisions with tracklets of both sides in one identity. All arguments (k,), one entry per tracklet."""
    pair = decision * (identity.max(initial=0) + 1) + identity
    common: Ints = np.intersect1d(pair[right], pair[~right]) // (identity.max(initial=0) + 1)
    return common
