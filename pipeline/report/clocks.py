"""Clock skews of a district's cameras, read from identities that were seen by several cameras."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from pipeline.report.clock_skew import LONGEST_S, clock_skews, differences_of_gaps, differences_of_shifts
from pipeline.store.copy import copy_out
from schemas.city_file import Unit


@dataclass(frozen=True)
class CameraClock:
    camera: str
    skew_s: float  # relative to the mean of the connected cameras of its street; positive: ahead
    error_s: float  # standard error
    stated_s: float  # clock_uncertainty_s of the city file
    passages: int  # walks from or to another camera of at most LONGEST_S
    cameras: int  # number of cameras that it was compared with

    @property
    def beyond_s(self) -> float:
        """How far the skew, less two standard errors, exceeds the stated uncertainty; negative if it does not."""
        return abs(self.skew_s) - 2 * self.error_s - self.stated_s

    @property
    def off(self) -> bool:
        return self.beyond_s > 0


# Tracklets of street identities. The district's joins are fewer and more often wrong, and a street has few enough
# cameras for one system of equations.
_PASSAGES = (
    "SELECT n.id, known.place, t.first_seen, t.last_seen FROM identity_now n "
    "CROSS JOIN unnest(n.tracklets) AS below(id) JOIN identity t ON t.id = below.id "
    "JOIN unnest(CAST(:cameras AS text[])) WITH ORDINALITY AS known(code, place) ON known.code = t.unit "
    "WHERE n.level = 'street' AND starts_with(n.unit, :district || '/') AND cardinality(n.tracklets) > 1 AND t.timed"
)


def read_clocks(connection: Connection, district: str, cameras: Sequence[Unit]) -> list[CameraClock]:
    """The clocks of all `cameras` that can be compared, sorted by how far they exceed the stated uncertainty.

    Consecutive tracklets of a street identity are compared: by the middle of the passages where the views overlap, and
    by the gap between them elsewhere.
    """
    codes, n = [camera.code for camera in cameras], len(cameras)
    columns = {"id": "int8", "place": "int8", "first": "timestamptz", "last": "timestamptz"}
    rows = copy_out(connection, _PASSAGES, {"district": district, "cameras": codes}, columns)
    holder, place, first, last = (np.asarray(column, np.int64) for column in rows.values())
    place = place - 1
    order = np.lexsort((place, first + last, holder))
    holder, place, first, last = holder[order], place[order], first[order], last[order]
    gap_s = (first[1:] - last[:-1]) / 1e6
    shift_s = (first[1:] + last[1:] - first[:-1] - last[:-1]) / 2e6
    follows = (holder[1:] == holder[:-1]) & (place[1:] != place[:-1]) & (gap_s <= LONGEST_S)
    a, b, gap_s, shift_s = place[:-1][follows], place[1:][follows], gap_s[follows], shift_s[follows]
    number = {code: i for i, code in enumerate(codes)}
    seen_by_both = [number[camera.code] * n + number[other] for camera in cameras for other in camera.overlaps]
    overlaps = np.isin(a * n + b, np.array(seen_by_both, np.int64))
    found = clock_skews(
        n,
        differences_of_gaps(n, a[~overlaps], b[~overlaps], gap_s[~overlaps]),
        differences_of_shifts(n, a[overlaps], b[overlaps], shift_s[overlaps]),
    )
    passages = np.bincount(np.concatenate([a, b]), minlength=n)
    clocks = [
        CameraClock(
            codes[i],
            float(found.skew_s[i]),
            float(found.error_s[i]),
            cameras[i].clock_uncertainty_s,
            int(passages[i]),
            int(found.pairs[i]),
        )
        for i in np.flatnonzero(found.pairs).tolist()
    ]
    return sorted(clocks, key=lambda clock: (-clock.beyond_s, clock.camera))
