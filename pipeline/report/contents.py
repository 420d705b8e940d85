"""What the pages of a report show, and which pictures they need."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pipeline.calibration.drift import Drift
from pipeline.registry import ModelRow
from pipeline.report.clocks import CameraClock
from pipeline.report.curves import Curve, Reliabilities
from pipeline.report.evidence import Evidence, OpenPair, Side
from pipeline.report.identities import DistrictIdentity, Tracklet
from pipeline.report.thumbnails import Picture, best
from pipeline.report.timeline import Timeline
from pipeline.report.tree import Tree
from pipeline.report.unit_counts import UnitCounts
from schemas.calibration import LevelCalibration
from schemas.feeds import Outage
from schemas.levels import Level

#: Most entries that a page shows; the files beside the pages hold all.
TIMELINES = 30
IDENTITIES_LISTED = 500
JOINS_A_LEVEL = 100
REVIEWS_A_LEVEL = 60
_PICTURES_A_SIDE = 3


@dataclass(frozen=True)
class Contents:
    units: list[UnitCounts]  # the district first
    timezone: ZoneInfo
    operator: str
    digest: str
    pending: int  # units of the district with windows that wait for a resolve
    model: ModelRow | None
    calibrations: Mapping[Level, LevelCalibration]
    unknown: Mapping[Level, int]  # identities without a prototype of the model in use
    tracklets: list[Tracklet]
    identities: list[DistrictIdentity]
    tree: Tree
    curves: list[Curve]
    reliabilities: list[Reliabilities]  # of levels whose calibration has a reliability curve
    drifts: Mapping[Level, Drift]  # of levels whose calibration holds the distribution of its decisions' distances
    clocks: list[CameraClock]  # the worst first
    outages: list[Outage]  # from the first tracklet on, the latest first
    timelines: list[Timeline]
    joins: list[Evidence]
    reviews: list[OpenPair]
    waiting: int  # pairs of identities that wait for review, among the decisions read
    reviews_read: int  # decisions for review that were read
    joined_since: int  # decisions for review whose sides later evidence joined, among those read
    scores: Mapping[Level, Mapping[str, Any]]  # as `accuracy.scorecard` returns them; empty without ground truth
    pictures: Mapping[int, Sequence[Picture]]  # of tracklets that are shown, by id
    contexts: Mapping[int, Picture]  # the whole frames of those that have one

    @property
    def district(self) -> UnitCounts:
        return self.units[0]

    @property
    def listed(self) -> list[DistrictIdentity]:
        """The identities after those with a timeline."""
        return self.identities[len(self.timelines) : IDENTITIES_LISTED]

    @property
    def cameras(self) -> int:
        return sum(unit.level is Level.CAMERA for unit in self.units)

    @property
    def ends(self) -> tuple[datetime, datetime] | None:
        """The first and the last time in the district, in the city's zone; None if no times are known."""
        timed = [tracklet for tracklet in self.tracklets if tracklet.timed]
        if not timed:
            return None
        return (
            min(tracklet.first_seen for tracklet in timed).astimezone(self.timezone),
            max(tracklet.last_seen for tracklet in timed).astimezone(self.timezone),
        )

    @cached_property
    def several_days(self) -> bool:
        return self.ends is not None and self.ends[0].date() != self.ends[1].date()

    @cached_property
    def _by_id(self) -> dict[UUID, DistrictIdentity]:
        return {identity.persistent_id: identity for identity in self.identities}

    def identity(self, persistent_id: UUID) -> DistrictIdentity:
        return self._by_id[persistent_id]

    def elsewhere(self, identity: DistrictIdentity) -> int:
        """Tracklets of the identity's main person, by the ground truth, that other identities hold."""
        own = sum(tracklet.truth == identity.main_truth for tracklet in identity.tracklets)
        return self._by_truth[identity.main_truth] - own

    @cached_property
    def _by_truth(self) -> Counter[str | None]:
        return Counter(tracklet.truth for tracklet in self.tracklets)

    @property
    def labeled(self) -> int:
        """Number of tracklets with ground truth."""
        return sum(tracklet.truth is not None for tracklet in self.tracklets)

    @property
    def drifted(self) -> list[Level]:
        """Levels whose decisions are distributed differently than at calibration."""
        return [level for level, found in self.drifts.items() if found.drifted]

    def of_level(self, level: Level) -> UnitCounts:
        """Sums over all units of a level, under the district's code and name."""
        units = [unit for unit in self.units if unit.level == level]
        sums = {name: sum(getattr(unit, name) for unit in units) for name in _SUMMED}
        return UnitCounts(self.district.code, self.district.name, **sums)

    def shown(self, side: Side) -> list[tuple[Tracklet, Picture]]:
        """A side's pictures: up to three of a single tracklet, or one each of several tracklets."""
        chosen = pictured_tracklets(side)
        if len(chosen) == 1:
            return [(chosen[0], picture) for picture in self.pictures.get(chosen[0].id, ())]
        return [(t, best(self.pictures[t.id])) for t in chosen if t.id in self.pictures]

    def context(self, side: Side) -> Picture | None:
        """The context frame of the first of a side's pictured tracklets that has one."""
        return next((self.contexts[t.id] for t in pictured_tracklets(side) if t.id in self.contexts), None)

    def all_contexts(self) -> Iterator[Picture]:
        """Every context frame that the pages show."""
        for evidence in (*self.joins, *(pair.evidence for pair in self.reviews)):
            for side in (evidence.left, evidence.right):
                if (frame := self.context(side)) is not None:
                    yield frame

    def cover(self, identity: DistrictIdentity) -> Picture | None:
        """The best picture of an identity's first tracklet."""
        pictures = self.pictures.get(identity.tracklets[0].id)
        return best(pictures) if pictures else None

    def all_pictures(self) -> Iterator[Picture]:
        """Every picture that the pages show, some of them several times."""
        for timeline in self.timelines:
            yield from (drawn.picture for drawn in timeline.drawn if drawn.picture is not None)
        for identity in self.listed:
            cover = self.cover(identity)
            if cover is not None:
                yield cover
        for evidence in (*self.joins, *(pair.evidence for pair in self.reviews)):
            for side in (evidence.left, evidence.right):
                yield from (picture for _, picture in self.shown(side))
            if evidence.runner_up is not None:
                yield from (picture for _, picture in self.shown(evidence.runner_up)[:1])


_SUMMED = ("crops", "tracklets", "identities", "joins", "reviews", "apart")


def pictured_tracklets(side: Side) -> list[Tracklet]:
    """The tracklets of a side whose pictures are shown: at most three, from the first to the last."""
    if len(side.tracklets) <= _PICTURES_A_SIDE:
        return list(side.tracklets)
    last = len(side.tracklets) - 1
    return [side.tracklets[round(i * last / (_PICTURES_A_SIDE - 1))] for i in range(_PICTURES_A_SIDE)]
