"""What a look of a standing search raises: people who reach its bar, with passages that it has not raised before.

A look is a search over all that was seen since the standing search began, so that its probabilities mean what those of
searches mean. The database holds the bar and the hour's bound too (migration 0045).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.search.descent import IN_PERIOD, nearest_crops, times_of
from pipeline.search.nearest import Probe
from pipeline.search.result import Hit
from schemas.levels import Level
from schemas.parameters import Period

_BOUNDS = text("SELECT standing, bar, hits_left FROM standing_bounds(:request)")
_NEW = text(
    "SELECT i.id, i.persistent_id FROM identity v CROSS JOIN unnest(v.tracklets) AS t(id) "
    f"JOIN identity i ON i.id = t.id WHERE v.id = :identity AND {IN_PERIOD} AND NOT EXISTS (SELECT FROM "
    "standing_passage p WHERE p.standing_id = :standing AND p.tracklet = i.persistent_id) ORDER BY i.last_seen, i.id"
)
_RAISED = text(
    "INSERT INTO standing_passage (tracklet, request_id, rank) "
    "SELECT t, :request, :rank FROM unnest(CAST(:tracklets AS uuid[])) AS t"
)


@dataclass(frozen=True)
class Passages:
    """Tracklets of a hit that are raised with it. rank: of the hit; None: the hour had no room for it."""

    rank: int | None
    tracklets: list[UUID]


@dataclass(frozen=True)
class Raising:
    """The bounds of one look."""

    request: UUID
    standing: UUID
    bar: float
    hits_left: int  # within the hour

    @classmethod
    def of(cls, connection: Connection, request: UUID) -> "Raising | None":
        """None for a search that somebody asked for."""
        row = connection.execute(_BOUNDS, {"request": request}).one_or_none()
        return None if row is None else cls(request, row.standing, row.bar, row.hits_left)

    def raised(
        self, hits: Sequence[Hit], probes: Mapping[int, Probe], period: Period
    ) -> tuple[list[Hit], list[Passages]]:
        """Those of the ranked hits that are raised now, with the crops of their new passages; and what to `note`.

        probes: the probe by model id. What the hour has no room for is noted too, and is not raised later.
        """
        found: list[Hit] = []
        noted: list[Passages] = []
        for hit in hits:
            probability = hit.shown.probability
            if probability is None or probability < self.bar:
                continue
            probe = probes[hit.model_id]
            asked = {"identity": hit.identity_id, "standing": self.standing, **times_of(period)}
            rows = probe.connection.execute(_NEW, asked).all()
            crops = nearest_crops(probe, Level.CAMERA, rows, period)
            near = sorted((crop for of in crops.values() for crop in of), key=lambda crop: (crop.distance, crop.key))
            if not near:
                continue
            rank = len(found) + 1 if len(found) < self.hits_left else None
            noted.append(Passages(rank, [row.persistent_id for row in rows if crops[row.id]]))
            if rank is not None:
                shown = hit.shown.model_copy(update={"rank": rank, "crops": tuple(near)})
                found.append(Hit(hit.identity_id, hit.model_id, shown))
        return found, noted

    def note(self, connection: Connection, noted: Sequence[Passages]) -> None:
        """Writes that the passages are raised, in the transaction that writes the hits."""
        for one in noted:
            values = {"request": self.request, "rank": one.rank, "tracklets": one.tracklets}
            connection.execute(_RAISED, values)
