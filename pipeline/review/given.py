"""What was answered, the newest first, as far as it may be seen."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

_GIVEN = text(
    "SELECT a.id, a.at, a.reviewer, a.said, a.way, a.reason, p.unit, p.pairs, u.at AS undone_at, "
    "u.reviewer AS undone_by FROM review_answer a "
    "CROSS JOIN LATERAL (SELECT min(unit) AS unit, count(*) AS pairs FROM review_pair p WHERE p.answer_id = a.id) AS p "
    "LEFT JOIN review_undo u ON u.answer_id = a.id "
    "WHERE (p.unit = :unit OR starts_with(p.unit, :unit || '/')) "
    "AND (CAST(:reviewer AS text) IS NULL OR a.reviewer = :reviewer) "
    "AND (CAST(:at AS timestamptz) IS NULL OR (a.at, a.id) < (:at, CAST(:id AS uuid))) "
    "ORDER BY a.at DESC, a.id DESC LIMIT :most"
)


def answers_given(
    connection: Connection,
    unit: str,
    most: int = 50,
    reviewer: str | None = None,
    before: tuple[datetime, UUID] | None = None,
) -> Sequence[Row[Any]]:
    """Answers within a unit, of one reviewer or of all (id, at, reviewer, said, way, reason, unit, pairs, undone_at,
    undone_by). before: time and id of the answer after which they begin."""
    at, id_ = before or (None, None)
    return connection.execute(_GIVEN, {"unit": unit, "most": most, "reviewer": reviewer, "at": at, "id": id_}).all()
