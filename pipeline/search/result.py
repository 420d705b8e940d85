"""The record of a search at its end: the hits, and the evidence that their probabilities follow from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from secrets import SystemRandom
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, text

from pipeline.governance.audit import Action, audit
from pipeline.governance.deciding import authorized_by
from pipeline.search.likelihood import Reference
from pipeline.search.posterior import Evidence
from schemas.parameters import SearchHit, SearchParameters, SearchResult


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
    parameters: SearchParameters,
    result: SearchResult,
    hits: Sequence[Hit],
    evidence: Sequence[StoredEvidence],
) -> SearchResult:
    """Writes the hits and the evidence of a request, the audit row of what will be shown, and marks it as finished.

    Under an authorization each hit is a lead; the result that is returned names them.
    """
    if hits:
        connection.execute(
            text(
                "INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance, log_ratio, log_look, "
                "probability) VALUES (:request, :rank, :identity, :model, :distance, :log_ratio, :log_look, "
                ":probability)"
            ),
            [
                {
                    "request": request,
                    "identity": hit.identity_id,
                    "model": hit.model_id,
                    **hit.shown.model_dump(include={"rank", "distance", "log_ratio", "log_look", "probability"}),
                }
                for hit in hits
            ],
        )
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
    _note(connection, request, parameters, result, hits, evidence)
    connection.execute(
        text(
            "UPDATE search_request SET finished_at = now(), compared = :compared, not_here = :not_here WHERE id = :id"
        ),
        {"id": request, "compared": result.compared, "not_here": result.not_here},
    )
    named = tuple(hit.model_copy(update={"lead": leads.get(hit.rank)}) for hit in result.hits)
    return result.model_copy(update={"hits": named})


_LEAD = text(
    "INSERT INTO lead (request_id, rank, unit, crop_id) SELECT r.id, :rank, r.unit, c.id FROM search_request r, crop c "
    "WHERE r.id = :request AND r.authorization_id IS NOT NULL AND c.key = :crop RETURNING id"
)


def _write_leads(connection: Connection, request: UUID, hits: Sequence[Hit]) -> dict[int, UUID]:
    """The lead of each hit, by rank; none in an open home. Its picture is the crop nearest to the probe."""
    made = {}
    for hit in SystemRandom().sample(hits, len(hits)):  # the order of rows tells a verifier no rank
        of = {"request": request, "rank": hit.shown.rank, "crop": bytes.fromhex(hit.shown.crops[0].key)}
        if (lead := connection.scalar(_LEAD, of)) is not None:
            made[hit.shown.rank] = lead
    return made


def _note(
    connection: Connection,
    request: UUID,
    parameters: SearchParameters,
    result: SearchResult,
    hits: Sequence[Hit],
    evidence: Sequence[StoredEvidence],
) -> None:
    """What was searched, with which models and calibrations, which cameras were blind, and what is shown."""
    audit(
        connection,
        parameters.operator,
        Action.SEARCH_SHOW,
        unit=parameters.unit,
        details={
            "request": str(request),
            **authorized_by(connection),
            "covered": result.covered.model_dump(mode="json"),
            "blind": [outage.model_dump(mode="json") for outage in result.blind],
            "models": sorted({hit.model_id for hit in hits} | {part.model_id for part in evidence}),
            "calibrations": sorted(part.calibration_id for part in evidence),
            "compared": result.compared,
            "shown": [[str(hit.shown.identity), len(hit.shown.crops)] for hit in hits],
        },
    )


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
