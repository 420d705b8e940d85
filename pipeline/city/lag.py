"""How soon a district decides on the people whom its cameras have seen: the time from a person's last frame on."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, text

#: Recorded crops come in long after they were taken, or all at once: they count from when they came in.
_LIVE_WITHIN = timedelta(minutes=10)


@dataclass(frozen=True)
class Lag:
    """Of `people` (passages of people before cameras), seconds from the last frame to the district's first decision."""

    people: int
    p50_s: float | None = None  # None without people
    p95_s: float | None = None
    longest_s: float | None = None

    @property
    def in_words(self) -> str:
        """Of the last hour."""
        if self.p50_s is None or self.p95_s is None:
            return "nobody was decided on in the last hour"
        return (
            f"in the last hour {self.people} passages were decided on, half of them within {self.p50_s:.0f} s of the "
            f"last frame and 95 % within {self.p95_s:.0f} s"
        )


# A tracklet is decided on by the first run of its window in its district that ended after its last crop came in.
_LAGS = text("""
    WITH recent AS (
        SELECT DISTINCT unit, window_start FROM run WHERE level = 'district' AND finished_at >= now() - :within
    ), seen AS (
        SELECT r.unit AS district, i.window_start, i.last_seen, c.ingested_at FROM recent r
        JOIN urban_unit u ON u.level = 'camera' AND starts_with(u.code, r.unit || '/')
        JOIN identity i ON i.unit = u.code AND i.window_start = r.window_start
        JOIN run k ON k.id = i.run_id AND k.superseded_at IS NULL
        CROSS JOIN LATERAL (
            SELECT max(ingested_at) AS ingested_at FROM crop WHERE camera = i.unit AND captured_at = i.last_seen
        ) AS c WHERE i.timed
    ), decided AS (
        SELECT s.*, (
            SELECT min(finished_at) FROM run d WHERE d.level = 'district' AND d.unit = s.district
            AND d.window_start = s.window_start AND d.finished_at >= s.ingested_at
        ) AS at FROM seen s
    ), lag AS (
        SELECT extract(epoch FROM at - CASE WHEN ingested_at - last_seen BETWEEN -:live AND :live
            THEN last_seen ELSE ingested_at END)::float8 AS s FROM decided WHERE at >= now() - :within
    )
    SELECT count(*) AS people, percentile_cont(0.5) WITHIN GROUP (ORDER BY s) AS p50_s,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY s) AS p95_s, max(s) AS longest_s FROM lag""")


def resolve_lag(connection: Connection, within: timedelta = timedelta(hours=1)) -> Lag:
    """The lag of the people on whom districts decided first within a time before now."""
    row = connection.execute(_LAGS, {"within": within, "live": _LIVE_WITHIN}).one()
    return Lag(**row._mapping)
