"""Assignments: the identity of every crop at each level."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import text

from pipeline.governance.audit import Action
from pipeline.governance.deciding import check_may_export
from pipeline.governance.doors import check_authorized
from pipeline.store import Store
from schemas.disk import replacing
from schemas.levels import Level

_ASSIGNMENTS = text(
    "WITH held AS MATERIALIZED (SELECT m.crop_id, "
    "  max(n.persistent_id::text) FILTER (WHERE n.level = 'camera') AS tracklet, "
    "  max(n.persistent_id::text) FILTER (WHERE n.level = 'building') AS building, "
    "  max(n.persistent_id::text) FILTER (WHERE n.level = 'street') AS street, "
    "  max(n.persistent_id::text) FILTER (WHERE n.level = 'district') AS district FROM identity_now n "
    "  CROSS JOIN unnest(n.tracklets) AS below(id) JOIN identity_member m ON m.identity_id = below.id "
    "  WHERE m.crop_id IS NOT NULL AND (n.unit = :district OR starts_with(n.unit, :district || '/')) GROUP BY 1) "
    "SELECT encode(c.key, 'hex') AS crop, c.camera, c.captured_at, c.timed, "
    "h.tracklet, h.building, h.street, h.district, t.truth FROM crop c LEFT JOIN held h ON h.crop_id = c.id "
    "LEFT JOIN crop_truth t ON t.crop_id = c.id "
    "WHERE starts_with(c.camera, :district || '/') AND c.withdrawn_at IS NULL "
    "ORDER BY c.captured_at, c.key"
)


def assignments(store: Store, district: str) -> Iterator[dict[str, Any]]:
    """One row for each crop of the district, in order of time.

    Keys: crop (hex key), camera, time (ISO 8601 or None), tracklet, building, street and district (persistent ids or
    None), truth (label or None).
    """
    with store.signed_in() as connection:
        rows = connection.execution_options(yield_per=5_000).execute(_ASSIGNMENTS, {"district": district})
        for row in rows:
            yield {
                "crop": row.crop,
                "camera": row.camera,
                "time": row.captured_at.isoformat() if row.timed else None,
                "tracklet": None if row.tracklet is None else str(row.tracklet),
                **{
                    level.value: None if (held := getattr(row, level.value)) is None else str(held)
                    for level in (Level.BUILDING, Level.STREET, Level.DISTRICT)
                },
                "truth": row.truth,
            }


def write_assignments(store: Store, district: str, path: Path) -> int:
    """Writes the assignments as JSON Lines, whole or not at all, after an audit row; returns their number.

    Raises NotAllowed.
    """
    what = "an export of assignments"
    check_may_export(store, what)
    check_authorized(store, district, what, Action.ASSIGNMENTS_EXPORT)
    count = 0
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in assignments(store, district):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count
