"""What an embedding-level city is made of, and how hard it is."""

import math
from dataclasses import dataclass, fields

from schemas.errors import UsageError

#: People a camera in an endless district. A smaller one is walked through by some who live around it: more by this part
#: of the district's cameras' square root. Together they make about 200 tracklets a camera and day at every size.
PEOPLE_PER_CAMERA, AROUND = 7.3, 3.0
#: Cameras of a street, on average; it has 12 to 20 where the district's size allows.
CAMERAS_PER_STREET = 16
MOST_CAMERAS, MOST_PEOPLE, MOST_DAYS = 1_000_000, 50_000_000, 3_660.0


@dataclass(frozen=True)
class EmbeddingCitySettings:
    """Every share lies in 0..1. Raises UsageError where the settings make no city."""

    cameras: int
    people: int | None = None  # None: as many as make about 200 tracklets a camera and day
    days: float = 1.0  # from 06:00 of the first day; people sleep from midnight to 06:00
    seed: int = 0
    cameras_per_district: int = 1000  # at most; nobody leaves their district
    crops_per_tracklet: int = 2  # spread over the passage, first and last moment included; one if the passage is short
    visitor_share: float = 0.2  # of the people: they come once, visit two or three places and never come again
    reentry_share: float = 0.9  # of the residents: seen morning, noon and evening; the others on one way a day only
    commuter_share: float = 0.25  # of the residents: they leave by a stop in the street and are away for hours
    look_alike_share: float = 0.06  # of the people: look like two others
    uniform_share: float = 0.06  # of the people: wear the uniform of one of the district's groups of about eight
    missed_share: float = 0.08  # of the passages: the detector finds nobody
    occluded_share: float = 0.08  # of the passages: somebody or something stands in front
    overlap_share: float = 0.3  # of the places with two cameras or more: the first two see the same ground
    drop_out_share: float = 0.04  # of the cameras' days: the camera is down for one to four hours
    color_bias: float = 1.0  # times the shift of features from camera to camera that was measured
    clock_skew: float = 1.0  # times a usual error of the clocks, which is mostly well below a second

    def __post_init__(self) -> None:
        whole = (("cameras", 1, MOST_CAMERAS), ("cameras_per_district", 1, MOST_CAMERAS), ("crops_per_tracklet", 1, 64))
        for name, least, most in (*whole, ("days", 1 / 24, MOST_DAYS), ("color_bias", 0, 10), ("clock_skew", 0, 100)):
            _check(name, float(getattr(self, name)), least, most)
        _check("seed", self.seed, 0, 2**63 - 1)
        if self.people is not None:
            _check("people", self.people, 1, MOST_PEOPLE)
        for field in fields(self):
            if field.name.endswith("_share"):
                _check(field.name, getattr(self, field.name), 0, 1)

    @property
    def population(self) -> int:
        """How many people there are in all districts together."""
        if self.people is not None:
            return self.people
        district = min(self.cameras, self.cameras_per_district)
        return round(PEOPLE_PER_CAMERA * (1 + AROUND / math.sqrt(district)) * self.cameras)

    @property
    def whole_days(self) -> int:
        """Days that begin."""
        return math.ceil(self.days)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # NaN too
        raise UsageError(f"a simulated city with {name} {value} cannot be made: ask for {least} to {most}")
