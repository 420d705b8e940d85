"""What a distance and a time between two sightings mean at one level, as it is stored: data without functions.

`pipeline.calibration.pairs` and `.reliability` fit it; `pipeline.association.log_odds` and `.transit` compute with it.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from schemas.keys import content_hash
from schemas.levels import Level
from schemas.settings import Frozen


class Ends(Frozen):
    """Of one extreme of evidence."""

    intercept: float
    slopes: tuple[float, ...] = Field(description="by which log-odds fall with distance, piece by piece; all above 0")


class PairTerms(Frozen):
    """log-odds(one person) = intercept - sum of slopes * (distance within each piece) + transit * transit log-odds."""

    knots: tuple[float, ...] = Field((), description="distances at which the slope changes, ascending")
    thick: Ends = Field(description="of pairs of two identities that rest on very many crops")
    thin: Ends = Field(description="of pairs that rest on next to nothing")
    transit: float = Field(1.0, ge=0, description="what a log-odd of the transit times counts for")


def straight_line(slope: float, intercept: float) -> PairTerms:
    """intercept - slope * distance, however much a pair rests on."""
    both = Ends(intercept=intercept, slopes=(slope,))
    return PairTerms(thick=both, thin=both)


class Route(Frozen):
    """Joins between two children of a unit, `left` <= `right`."""

    left: str
    right: str
    relative: bool = Field(description="whether gaps are relative to the expected time; else they are seconds")
    joins: Mapping[int, float] = Field(description="how many fell into each bin")


class TransitTimes(Frozen):
    """How long people take between two sightings, and strangers' gaps beside it; see `pipeline.association.transit`."""

    looked_s: float = Field(gt=0, description="how far back the compared pairs reach, seconds")
    same: tuple[tuple[float, ...], ...] = Field(description="(kinds of way, bins) shares of one person's gaps")
    strangers: tuple[tuple[float, ...], ...] = Field(
        description="(kinds of way, bins) shares of strangers', in seconds"
    )
    ways: tuple[float, ...] = Field(description="log share among one person's ways / among strangers' ways, by kind")
    routes: tuple[Route, ...] = Field((), description="routes with joins of their own, in order")
    joins: float = Field(0.0, ge=0, description="joins learned from, the wrong ones taken out")
    compared: float = Field(0.0, ge=0, description="pairs of strangers learned from")
    wrong_share: float = Field(0.0, ge=0, le=1, description="share of the joins found to look like strangers")

    def digest(self) -> bytes:
        """32 bytes over everything in it."""
        return content_hash("transit", (self.model_dump_json(),))


class Reliability(Frozen):
    """A reliability curve in bins of equal mass (Nixon et al. 2019) and its expected calibration error."""

    predicted: tuple[float, ...] = Field(description="mean probability of each bin")
    observed: tuple[float, ...] = Field(description="share of pairs of one person in each bin")
    counts: tuple[int, ...] = Field(description="pairs in each bin")
    ece: float = Field(ge=0, le=1, description="mean |predicted - observed|, by mass (Guo et al. 2017)")

    @property
    def pairs(self) -> int:
        return sum(self.counts)


class Judgment(Frozen):
    shortlist: Reliability = Field(description="of all pairs")
    middle: Reliability = Field(description="of those with a probability of 0.05 .. 0.95")


class FalseMerges(Frozen):
    """How many joins, of those made at a threshold, join two people."""

    threshold: float = Field(description="log-odds; joins at or above it are made")
    joins: int = Field(ge=0)
    wrong: int = Field(ge=0)
    groups: int = Field(ge=0, description="people, seeds or cities that the joins are of; joins of one are alike")
    rate: float = Field(ge=0, le=1, description="wrong / joins")
    low: float = Field(ge=0, le=1, description="95 % interval of the rate")
    high: float = Field(ge=0, le=1)
    fresh_low: float = Field(ge=0, le=1, description="95 % interval of what as many joins of other people will show")
    fresh_high: float = Field(ge=0, le=1)


class Profile(Frozen):
    """How a quantity, such as the distances of decisions, was distributed at calibration."""

    deciles: tuple[float, ...] = Field(description="the inner nine")
    shares: tuple[float, ...] = Field(description="of the ten bins between; 0.1 each, but for ties")
    count: int = Field(ge=1)


class LevelCalibration(Frozen):
    """From a pair to a probability at one level, and the operating point."""

    level: Level
    terms: PairTerms
    transit: TransitTimes | None = Field(None, description="None: what is believed before anything is learned")
    join_log_odds: float = Field(description="pairs and clusters at or above are joined")
    review_log_odds: float = Field(description="from here up to join_log_odds a person is asked")
    fitted_on: str = Field(max_length=500, description="the data, in words")
    pairs: int = Field(ge=0)
    positives: int = Field(ge=0)
    false_merges: FalseMerges | None = Field(None, description="of the joins made at join_log_odds on the data")
    reliability: Judgment | None = Field(None, description="of people that the terms were not fitted on")
    decisions: Profile | None = Field(
        None, description="of the distances of the decisions made at join_log_odds, to tell when data drift away"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_line(cls, data: Any) -> Any:
        """Cards and rows written before pairs had terms hold a slope and an intercept."""
        if isinstance(data, dict) and "slope" in data:
            line = straight_line(data["slope"], data["intercept"])
            return {
                "terms": line,
                **{name: value for name, value in data.items() if name not in ("slope", "intercept")},
            }
        return data
