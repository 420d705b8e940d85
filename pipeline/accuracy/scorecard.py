"""All that is said of a unit's levels where the truth is known: agreement, open set, violations, churn, review load."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from pipeline.accuracy.labeled import UNITS, Labeled, rows_of, score, uuids
from pipeline.accuracy.metrics import OpenSet, churn, commonest, forbidden_pairs, open_set
from pipeline.association.geometry import Geometry, geometry
from pipeline.city.units import read_city
from pipeline.store import Store
from pipeline.store.copy import copy_out
from schemas.arrays import Ints
from schemas.levels import UPWARD, Level


def scorecard(
    store: Store, unit: str, labeled: Labeled, nearest_distances: Mapping[str, float] | None = None
) -> dict[Level, dict[str, Any]]:
    """Per level above the camera, among the labeled tracklets of `unit`:

    - identities and people: how many there are, and should be by the level's task (`Labeled.of_task`): a person
      counts again in each unit of the level, and when back after its horizon;
    - what `pipeline.accuracy.labeled.score` gives;
    - false_attach_rate, miss_rate, mistaken_rate, and `history`, the same by size of history: see `open_set_of`;
    - violations: see `violations`;
    - churn: the share of tracklets whose identity has another persistent id now than when they first had one;
    - reviews, reviews_labeled, reviews_needed: see `_review_load`.
    """
    world = geometry(read_city(store), unit, store.settings.association)
    scored = score(labeled, nearest_distances or {})
    result: dict[Level, dict[str, Any]] = {}
    for level in labeled.levels:
        opened = open_set_of(labeled, level)
        row: dict[str, Any] = {
            "identities": len(np.unique(labeled.identity[level])),
            "people": len(np.unique(labeled.of_task(level, labeled.truth))),
            **scored[level.value],
            "false_attach_rate": opened.false_attach_rate,
            "miss_rate": opened.miss_rate,
            "mistaken_rate": opened.mistaken_rate,
            "history": _by_history(opened),
            "violations": violations(labeled, level, world),
        }
        with store.begin() as connection:
            row["churn"] = _churn(connection, unit, level, labeled)
            row |= _review_load(connection, unit, level, labeled)
        result[level] = row
    return result


def violations(labeled: Labeled, level: Level, world: Geometry) -> int:
    """Pairs of tracklets in one identity of `level` that the gates forbid."""
    timed = np.flatnonzero(labeled.timed)
    return forbidden_pairs(
        labeled.identity[level][timed],
        labeled.camera[timed],
        labeled.start_us[timed],
        labeled.end_us[timed],
        world.slack,
        world.longest_slack_us,
    )


def open_set_of(labeled: Labeled, level: Level) -> OpenSet:
    """Open-set figures of a level: `metrics.open_set` on its children (identities of the level below) in time order.

    A child is of the person that most of its crops show, and begins with its first tracklet. By the level's task:
    who is back after its horizon comes for the first time.
    """
    child = labeled.identity[UPWARD[UPWARD.index(level) - 1]]
    order = np.lexsort((labeled.start_us, child))
    first = order[np.unique(child[order], return_index=True)[1]]  # (m,) the first tracklet of each child
    people, identities = (labeled.of_task(level, its) for its in (labeled.truth, labeled.identity[level]))
    truth = commonest(child, people, labeled.crops, len(first))
    return open_set(identities[first], truth, labeled.unit(level)[first], labeled.start_us[first])


def _by_history(found: OpenSet) -> list[dict[str, int]]:
    """The bins in which anything happened; `identities_from` is how many there were at least."""
    names = ("new", "false_attached", "seen", "missed", "mistaken")
    return [
        {"identities_from": int(found.begins[i]), **{name: int(getattr(found, name)[i]) for name in names}}
        for i in np.flatnonzero(found.new + found.seen).tolist()
    ]


# Superseded runs count: what a person was shown first may have come from one.
_FIRST = (
    "SELECT DISTINCT ON (t.persistent_id) uuid_send(t.persistent_id), uuid_send(i.persistent_id) FROM identity i "
    "CROSS JOIN unnest(i.tracklets) AS below(id) JOIN identity t ON t.id = below.id "
    f"WHERE i.unit IN ({UNITS}) ORDER BY t.persistent_id, i.id"
)


def _churn(connection: Connection, unit: str, level: Level, labeled: Labeled) -> float:
    at = {"unit": unit, "level": level.value}
    rows = copy_out(connection, _FIRST, at, {"tracklet": "bytea", "holder": "bytea"})
    row, there = rows_of(labeled.persistent_id[Level.CAMERA], uuids(rows["tracklet"]))
    return churn(uuids(rows["holder"])[there], labeled.persistent_id[level][row[there]])


_REVIEWS = (
    "SELECT d.id, d.left_key, d.right_key FROM match_decision d JOIN run r ON r.id = d.run_id "
    f"WHERE r.unit IN ({UNITS}) AND r.superseded_at IS NULL AND d.verdict = 'review'"
)
_SIDES = (
    f"WITH asked AS MATERIALIZED ({_REVIEWS}), side AS (SELECT id, false AS is_right, left_key AS key FROM asked "
    "UNION ALL SELECT id, true, right_key FROM asked), version AS (SELECT DISTINCT ON (i.key) i.key, i.tracklets "
    "FROM identity i WHERE i.key IN (SELECT key FROM side) AND NOT i.retired ORDER BY i.key, i.id DESC) "
    "SELECT s.id, s.is_right, uuid_send(t.persistent_id) FROM side s JOIN version v USING (key) "
    "CROSS JOIN unnest(v.tracklets) AS below(id) JOIN identity t ON t.id = below.id"
)


def reviews(connection: Connection, unit: str, level: Level) -> int:
    """Decisions of `level` at and below the unit that ask a person."""
    at = {"unit": unit, "level": level.value}
    return int(connection.scalar(text(f"SELECT count(*) FROM ({_REVIEWS}) AS asked"), at) or 0)


def _review_load(connection: Connection, unit: str, level: Level, labeled: Labeled) -> dict[str, int]:
    """reviews: see `reviews`. reviews_labeled: those with labels on both sides. reviews_needed: those of them whose
    sides are one person, by most of their crops, and that no identity has brought together by now: without a person's
    word these stay apart, which is wrong. The other labeled ones would have ended well without one.
    """
    at = {"unit": unit, "level": level.value}
    rows = copy_out(connection, _SIDES, at, {"id": "int8", "is_right": "bool", "tracklet": "bytea"})
    row, there = rows_of(labeled.persistent_id[Level.CAMERA], uuids(rows["tracklet"]))
    row, right = row[there], np.asarray(rows["is_right"])[there]
    decisions, decision = np.unique(np.asarray(rows["id"])[there], return_inverse=True)
    side = commonest(2 * decision + right, labeled.truth[row], labeled.crops[row], 2 * len(decisions)).reshape(-1, 2)
    both = (side >= 0).all(axis=1)
    together = np.zeros(len(decisions), dtype=bool)
    together[_shared(decision, right, labeled.identity[level][row])] = True
    needed = both & (side[:, 0] == side[:, 1]) & ~together
    return {
        "reviews": reviews(connection, unit, level),
        "reviews_labeled": int(both.sum()),
        "reviews_needed": int(needed.sum()),
    }


def _shared(decision: Ints, right: np.ndarray, identity: Ints) -> Ints:
    """The decisions of which some identity now holds tracklets of both sides."""
    pair = decision * (identity.max(initial=0) + 1) + identity
    common: Ints = np.intersect1d(pair[right], pair[~right]) // (identity.max(initial=0) + 1)
    return common
