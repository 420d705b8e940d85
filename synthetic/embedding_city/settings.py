"""Settings of an embedding-level city: its size and its difficulty."""

import math
from dataclasses import dataclass, fields

from schemas.errors import UsageError

#: People per camera in an infinite district. A finite one gets more by the share AROUND / sqrt(cameras), for people of
#: its surroundings. Together they give about 200 tracklets per camera and day at every size.
PEOPLE_PER_CAMERA, AROUND = 7.3, 3.0
#: Mean number of cameras of a street; it has 12 to 20 if the district is large enough.
CAMERAS_PER_STREET = 16
MAX_CAMERAS, MAX_PEOPLE, MAX_DAYS = 1_000_000, 50_000_000, 3_660.0


@dataclass(frozen=True)
class EmbeddingCitySettings:
    """Shares are 0..1. Raises UsageError for settings out of range."""

    cameras: int
    people: int | None = None  # None: as many as give about 200 tracklets per camera and day
    days: float = 1.0  # from 06:00 of the first day; people sleep from midnight to 06:00
    seed: int = 0
    cameras_per_district: int = 1000  # at most; people stay in their district
    crops_per_tracklet: int = 2  # evenly from first to last moment of the passage; one for a short passage
    visitor_share: float = 0.2  # of the people: they come once and visit two or three places
    reentry_share: float = 0.9  # of the residents: they go out morning, noon and evening; others only once a day
    commuter_share: float = 0.25  # of the residents: they leave at a stop in the street for hours
    look_alike_share: float = 0.06  # of the people: alike in groups of three
    uniform_share: float = 0.06  # of the people: in uniform, in groups of about eight
    missed_share: float = 0.08  # of the passages: missed by the detector
    occluded_share: float = 0.08  # of the passages: partly hidden
    overlap_share: float = 0.3  # of the places with two or more cameras: the first two see the same ground
    drop_out_share: float = 0.04  # of the camera days: down for one to four hours
    color_bias: float = 1.0  # factor on the measured feature shift between cameras
    clock_skew: float = 1.0  # factor on the usual clock error, which is mostly well below a second

    def __post_init__(self) -> None:
        limits = {
            "cameras": (1, MAX_CAMERAS),
            "cameras_per_district": (1, MAX_CAMERAS),
            "crops_per_tracklet": (1, 64),
            "days": (1 / 24, MAX_DAYS),
            "color_bias": (0, 10),
            "clock_skew": (0, 100),
        }
        for name, (least, most) in limits.items():
            _check(name, float(getattr(self, name)), least, most)
        _check("seed", self.seed, 0, 2**63 - 1)
        if self.people is not None:
            _check("people", self.people, 1, MAX_PEOPLE)
        for field in fields(self):
            if field.name.endswith("_share"):
                _check(field.name, getattr(self, field.name), 0, 1)

    @property
    def population(self) -> int:
        """Number of people in all districts."""
        if self.people is not None:
            return self.people
        district = min(self.cameras, self.cameras_per_district)
        return round(PEOPLE_PER_CAMERA * (1 + AROUND / math.sqrt(district)) * self.cameras)

    @property
    def whole_days(self) -> int:
        """Number of days begun."""
        return math.ceil(self.days)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # NaN too
        raise UsageError(f"a simulated city cannot have {name} {value}: give {least} to {most}")
