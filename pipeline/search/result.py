"""The record of a search at its end: the hits, and the evidence that their probabilities follow from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from secrets import SystemRandom
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, text

from pipeline.search.likelihood import Reference
from pipeline.search.posterior import Evidence
from schemas.errors import StoreConflict
from schemas.parameters import SearchHit, SearchResult


@dataclass(frozen=True)
class Hit:
    """A hit with the ids of the rows that it refers to."""

    identity_id: int
    model_id: int
    shown: SearchHit

    def with_rank(self, rank: int) -> "Hit":
        return replace(self, shown=self.shown.model_copy(update={"rank": rank}))


@dataclass(frozen=True)
class StoredEvidence:
    """What one model's comparisons say: what `search_evidence` holds, to be merged with other parts."""

    model_id: int
    calibration_id: int
    reference: Reference
    evidence: Evidence


def write_result(
    connection: Connection,
    request: UUID,
    result: SearchResult,
    hits: Sequence[Hit],
    evidence: Sequence[StoredEvidence],
) -> SearchResult:
    """Writes the hits and the evidence of a request, and marks it as finished: the database adds the row of the audit.

    Under an authorization each hit is a lead, but for one of kind subject and for those of a search without a picture;
    the result that is returned names them.
    Raises StoreConflict where the request or a picture of a hit was erased.
    """
    if hits:
        shown = ("rank", "distance", "log_ratio", "log_look", "probability")
        columns: dict[str, list[Any]] = {name: [getattr(hit.shown, name) for hit in hits] for name in shown}
        columns |= {"identity": [hit.identity_id for hit in hits], "model": [hit.model_id for hit in hits]}
        connection.execute(_HITS, {"request": request, **columns})
    leads = _write_leads(connection, request, hits)
    for part in evidence:
        connection.execute(
            text(
                "INSERT INTO search_evidence (request_id, model_id, calibration_id, compared, center, spread, "
                "log_ratios, log_looks, log_sum, log_rest) VALUES (:request, :model, :calibration, :compared, :center, "
                ":spread, :log_ratios, :log_looks, :log_sum, :log_rest)"
            ),
            {
                "request": request,
                "model": part.model_id,
                "calibration": part.calibration_id,
                "compared": part.evidence.count,
                "center": part.reference.center,
                "spread": part.reference.spread,
                "log_ratios": part.evidence.best.tolist(),
                "log_looks": part.evidence.look.tolist(),
                "log_sum": part.evidence.log_sum,
                "log_rest": part.evidence.log_rest,
            },
        )
    finished = connection.execute(
        text(
            "UPDATE search_request SET finished_at = now(), compared = :compared, not_here = :not_here "
            "WHERE id = :id AND erased_at IS NULL"
        ),
        {"id": request, "compared": result.compared, "not_here": result.not_here},
    )
    if not finished.rowcount:
        raise StoreConflict("the search was erased meanwhile")
    named = tuple(hit.model_copy(update={"lead": leads.get(hit.rank)}) for hit in result.hits)
    return result.model_copy(update={"hits": named})


_HITS = text(
    "INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance, log_ratio, log_look, probability) "
    "SELECT :request, h.* FROM unnest(CAST(:rank AS integer[]), CAST(:identity AS bigint[]), "
    "CAST(:model AS integer[]), CAST(:distance AS float8[]), CAST(:log_ratio AS float8[]), "
    "CAST(:log_look AS float8[]), CAST(:probability AS float8[])) AS h"
)
# Whoever searches again, such as with a filter, asks about the same two pictures once: a hit that an earlier search of
# theirs found has that one's lead. A look of a standing search has its own, which its page and its messages name.
_LEADS = text(
    "WITH shown AS (SELECT l.place, l.rank, c.id AS crop_id, (SELECT o.id FROM lead o "
    "  JOIN search_request s ON s.id = o.request_id WHERE o.crop_id = c.id AND o.unit = r.unit "
    "  AND r.standing_id IS NULL AND s.id <> r.id AND s.authorization_id = r.authorization_id "
    "  AND s.account_id = r.account_id AND (s.crop_id, s.probe_id) IS NOT DISTINCT FROM (r.crop_id, r.probe_id) "
    "  AND EXISTS (SELECT FROM search_hit b JOIN search_hit h ON h.identity_id = b.identity_id "
    "    WHERE b.request_id = o.request_id AND h.request_id = r.id AND h.rank = l.rank) "
    "  ORDER BY o.made_at, o.id LIMIT 1) AS earlier "
    " FROM search_request r CROSS JOIN unnest(CAST(:rank AS integer[]), CAST(:crop AS bytea[])) WITH ORDINALITY "
    " AS l(rank, crop, place) JOIN crop c ON c.key = l.crop WHERE r.id = :request AND r.authorization_id IS NOT NULL "
    " AND NOT is_of_subject(r.id)), "
    "made AS (INSERT INTO lead (request_id, rank, unit, crop_id) SELECT r.id, shown.rank, r.unit, shown.crop_id "
    " FROM shown JOIN search_request r ON r.id = :request WHERE shown.earlier IS NULL ORDER BY shown.place "
    " RETURNING id, crop_id) "
    "SELECT coalesce(shown.earlier, made.id) AS id, encode(c.key, 'hex') AS crop FROM shown "
    "JOIN crop c ON c.id = shown.crop_id LEFT JOIN made ON made.crop_id = shown.crop_id"
)


def _write_leads(connection: Connection, request: UUID, hits: Sequence[Hit]) -> dict[int, UUID]:
    """The lead of each hit, by rank, an earlier search's, it may be; none in an open home or for a request of access.

    Its picture is the crop nearest to the probe; a search without one has no leads.
    """
    if not hits or hits[0].shown.distance is None:
        return {}
    shown = [hit.shown for hit in SystemRandom().sample(hits, len(hits))]  # rows in this order tell a verifier no rank
    rank = {hit.crops[0].key: hit.rank for hit in shown}  # a crop is of one identity of the unit
    crops = [bytes.fromhex(key) for key in rank]
    rows = connection.execute(_LEADS, {"request": request, "rank": list(rank.values()), "crop": crops}).all()
    if rows and len(rows) < len(crops):
        raise StoreConflict("a picture of a hit was erased meanwhile")
    return {rank[row.crop]: row.id for row in rows}


def read_evidence(connection: Connection, request: UUID) -> Evidence:
    """The evidence of a finished request over all models, to be merged with that of others."""
    rows = connection.execute(
        text(
            "SELECT compared, log_ratios, coalesce(log_looks, log_ratios) AS log_looks, log_rest FROM search_evidence "
            "WHERE request_id = :id ORDER BY model_id"
        ),
        {"id": request},
    )
    merged = Evidence.of(np.empty(0))
    for row in rows:
        merged += Evidence(np.array(row.log_ratios), np.array(row.log_looks), row.log_rest, row.compared)
    return merged
