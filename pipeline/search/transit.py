"""What the time and place of a stored probe say about each identity: the transit log-odds, and what is impossible.

The same times and the same gates as the association's. An identity that holds the probe's own tracklet has neither: a
passage says nothing about itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy import Connection, text

from pipeline.association.geometry import Geometry, time_gaps, unit_geometry
from pipeline.association.nodes import Spans
from pipeline.association.transit import UnitTransit, max_lookback_s, prior_times, unit_transit
from pipeline.resolve.calibrations import current_calibration
from pipeline.store.copy import copy_out
from schemas.arrays import Bools, Floats, Ints
from schemas.city_file import City
from schemas.levels import is_within, level_of, parent_of
from schemas.settings import AssociationSettings
from schemas.times import to_us

#: Identities compared at once: bounds the memory, and the numbers that `Spans` makes of an identity and a time.
_IDENTITIES = 4096

_PROBE = text(
    "SELECT c.camera, c.captured_at, c.timed, "
    "coalesce(array_agg(t.id) FILTER (WHERE t.id IS NOT NULL), '{}') AS tracklets, "
    "min(t.first_seen) AS first_seen, max(t.last_seen) AS last_seen FROM crop c "
    "LEFT JOIN identity_member m ON m.crop_id = c.id LEFT JOIN identity t ON t.id = m.identity_id "
    "WHERE c.key = :key GROUP BY c.id"
)
_PASSAGES = (
    "SELECT i.id AS holder, t.id, t.unit, t.first_seen, t.last_seen, t.timed FROM identity i "
    "CROSS JOIN unnest(i.tracklets) AS below(id) JOIN identity t ON t.id = below.id WHERE i.id = ANY(:ids)"
)
_COLUMNS = {
    "holder": "int8",
    "id": "int8",
    "unit": "text",
    "first_seen": "timestamptz",
    "last_seen": "timestamptz",
    "timed": "bool",
}


@dataclass(frozen=True)
class Sighting:
    """Where and when the probe was seen."""

    camera: str
    start_us: int  # microseconds UTC
    end_us: int
    tracklets: frozenset[int] = frozenset()  # ids of the versions of its own tracklet

    @classmethod
    def of_crop(cls, connection: Connection, key: str) -> "Sighting | None":
        """The passage of a stored crop, or its moment where no tracklet holds it yet. None without a time."""
        row = connection.execute(_PROBE, {"key": bytes.fromhex(key)}).one()
        if not row.timed:
            return None
        first, last = row.first_seen or row.captured_at, row.last_seen or row.captured_at
        return cls(row.camera, to_us(first), to_us(last), frozenset(row.tracklets))


@dataclass(frozen=True)
class Passages:
    """The tracklets of n identities."""

    codes: tuple[str, ...]  # of cameras
    camera: Ints  # (s,) index into codes
    tracklet: Ints  # (s,) ids
    span_us: Ints  # (2, s) first and last moment, microseconds UTC; identity by identity, by start
    has_time: Bools  # (s,)
    count: Ints  # (n,) tracklets of each identity

    @classmethod
    def read(cls, connection: Connection, ids: Sequence[int]) -> "Passages":
        """The tracklets of the identities (ids of rows), in the order of `ids`."""
        rows = copy_out(connection, _PASSAGES, {"ids": [int(i) for i in ids]}, _COLUMNS)
        place = {int(identity): number for number, identity in enumerate(ids)}
        owner = np.array([place[int(holder)] for holder in rows["holder"]], np.int64)
        start, end = (np.asarray(rows[name]).astype(np.int64) for name in ("first_seen", "last_seen"))
        order = np.lexsort((end, start, owner))
        codes = sorted(set(rows["unit"]))
        number = {code: i for i, code in enumerate(codes)}
        return cls(
            codes=tuple(codes),
            camera=np.array([number[code] for code in rows["unit"]], np.int64)[order],
            tracklet=np.asarray(rows["id"], np.int64)[order],
            span_us=np.stack([start, end])[:, order],
            has_time=np.asarray(rows["timed"], dtype=bool)[order],
            count=np.bincount(owner, minlength=len(ids)),
        )

    @property
    def timed(self) -> Bools:
        """(n,) Whether all tracklets of the identity have times."""
        owner = np.repeat(np.arange(len(self.count)), self.count)
        return np.asarray(np.bincount(owner, ~self.has_time, len(self.count)) == 0, bool)

    def parts(self) -> Iterator["Passages"]:
        """The same, at most _IDENTITIES identities at a time."""
        first = np.concatenate([[0], np.cumsum(self.count)])
        for a in range(0, len(self.count), _IDENTITIES):
            b = min(a + _IDENTITIES, len(self.count))
            rows = slice(int(first[a]), int(first[b]))
            yield Passages(
                self.codes,
                self.camera[rows],
                self.tracklet[rows],
                self.span_us[:, rows],
                self.has_time[rows],
                self.count[a:b],
            )


@dataclass(frozen=True)
class Transit:
    """What a probe's time and place say about n identities."""

    log_odds: Floats  # (n,) of the route and the gap: the probe's person against a stranger; 0 where they say nothing
    impossible: Bools  # (n,) in two places at once, or faster than anyone walks

    def take(self, rows: Bools) -> "Transit":
        return Transit(self.log_odds[rows], self.impossible[rows])

    @classmethod
    def unknown(cls, n: int) -> "Transit":
        return cls(np.zeros(n), np.zeros(n, dtype=bool))


@dataclass(frozen=True)
class _Seen:
    """When and where the identities and the probe were seen."""

    spans: Spans
    timed: Bools


@dataclass(frozen=True)
class Surroundings:
    """The smallest unit that holds the unit searched and the probe's camera, with its gates and transit times."""

    geometry: Geometry
    transit: UnitTransit

    @classmethod
    def read(
        cls, connection: Connection, city: City, model_id: int, unit: str, camera: str, settings: AssociationSettings
    ) -> "Surroundings | None":
        """None for two districts, between which nothing is known."""
        common: str | None = unit
        while common is not None and not is_within(camera, common):
            common = parent_of(common)
        if common is None:
            return None
        calibration = current_calibration(connection, model_id, level_of(common), common)
        learned = None if calibration is None else calibration.value.transit
        geometry = unit_geometry(city, common, settings)
        times = learned or prior_times(max_lookback_s(settings.horizon_s(level_of(common))))
        return cls(geometry, unit_transit(times, geometry.children))

    def compare(self, probe: Sighting, passages: Passages) -> Transit:
        """The transit of the probe to each of the n identities, all of whose cameras lie in these surroundings.

        An identity none of whose tracklets may be seen says nothing.
        """
        seen = passages.count > 0
        parts = [self._compare(probe, part) for part in replace(passages, count=passages.count[seen]).parts()]
        log_odds, impossible = (list(column) for column in zip(*parts, strict=True)) if parts else ([], [])
        found = Transit.unknown(len(seen))
        found.log_odds[seen] = np.concatenate([np.empty(0), *log_odds])
        found.impossible[seen] = np.concatenate([np.empty(0, dtype=bool), *impossible])
        return found

    def _compare(self, probe: Sighting, passages: Passages) -> tuple[Floats, Bools]:
        n = len(passages.count)
        number = {code: i for i, code in enumerate(self.geometry.cameras)}
        camera = np.append(
            np.array([number[code] for code in passages.codes], np.int64)[passages.camera], number[probe.camera]
        )
        start, end = np.append(passages.span_us, [[probe.start_us], [probe.end_us]], axis=1)
        spans = Spans(camera, start, end, np.concatenate([[0], np.cumsum(np.append(passages.count, 1))]))
        nodes = _Seen(spans, np.append(passages.timed, True))
        gaps = time_gaps(nodes, self.geometry, np.full(n, n), np.arange(n))
        child = self.geometry.child
        log_odds = self.transit.log_odds(
            child[gaps.left_camera],
            child[gaps.right_camera],
            self.geometry.expected_s[gaps.left_camera, gaps.right_camera],
            gaps.gap_us / 1e6,
        )
        held = np.isin(passages.tracklet, list(probe.tracklets))
        own = np.bincount(np.repeat(np.arange(n), passages.count), held, n) > 0
        return np.where(passages.timed & ~own, log_odds, 0.0), gaps.impossible & ~own
