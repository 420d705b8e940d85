"""What a window's run reads and writes, as rows: versions of identities, their events, match decisions, and the run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

import numpy as np

from pipeline.association.prototypes import Prototypes
from schemas.arrays import Ints
from schemas.association import EventKind
from schemas.times import utc_days

#: From a camera's code to its index in the unit's geometry.
CameraNumbers = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Identity:
    """One stored version of an identity, with its prototypes."""

    id: int
    key: bytes
    persistent_id: UUID
    unit: str
    first_seen_us: int
    last_seen_us: int
    timed: bool
    crops: int
    retired: bool
    tracklets: tuple[int, ...]
    spans: Ints  # (3, t) of its t tracklets: camera number, start and end in microseconds UTC; in time order
    prototypes: Prototypes | None  # None: retired, or no prototype of the run's model


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """A version of an identity that is about to be written. It has crops at camera level, children above it."""

    id: int
    key: bytes
    persistent_id: UUID
    first_seen_us: int
    last_seen_us: int
    timed: bool
    crops: int
    prototypes: Prototypes | None  # None: retired, or the model knows none of its members
    tracklets: tuple[int, ...]
    spans: Ints  # (3, t) as in Identity
    children: Sequence[Identity] = ()
    crop_ids: Sequence[int] = ()
    retired: bool = False

    def as_stored(self, unit: str) -> Identity:
        """The Identity that a read after the write returns."""
        return Identity(
            self.id,
            self.key,
            self.persistent_id,
            unit,
            self.first_seen_us,
            self.last_seen_us,
            self.timed,
            self.crops,
            self.retired,
            self.tracklets,
            self.spans,
            None if self.prototypes is None else self.prototypes.as_stored(),
        )


@dataclass(frozen=True)
class NewEvent:
    kind: EventKind
    persistent_id: UUID
    other_id: UUID | None = None


@dataclass(frozen=True)
class NewDecision:
    """The columns of match_decision; `left_key < right_key`."""

    left_key: bytes
    right_key: bytes
    verdict: str
    distance: float
    appearance_log_odds: float | None
    transit_log_odds: float
    probability: float | None
    operating_point: float | None
    gap_s: float | None
    way_s: float | None
    left_at: str
    right_at: str
    runner_up_key: bytes | None
    runner_up_distance: float | None
    answered: bool


@dataclass(frozen=True)
class RunRows:
    """A unit's run of one window and everything it writes."""

    run_key: bytes
    window_start: datetime
    children: int
    context: int
    identities: Sequence[NewIdentity]
    events: Sequence[NewEvent] = ()
    decisions: Sequence[NewDecision] = ()

    @property
    def rows(self) -> int:
        """Number of rows written, without those of prototypes."""
        members = sum(len(identity.children) + len(identity.crop_ids) for identity in self.identities)
        return 1 + len(self.identities) + members + len(self.events) + len(self.decisions)


def in_time_order(spans: Ints) -> Ints:
    """`spans` (3, t) sorted by start, end and camera."""
    return spans[:, np.lexsort((spans[0], spans[2], spans[1]))]


def partition_days(identities: Iterable[NewIdentity]) -> set[date]:
    """UTC days of the partitions that their prototypes go into. They must exist before `write_runs`."""
    return utc_days(identity.last_seen_us for identity in identities if identity.prototypes is not None)
