"""The stored calibration of one level: what a distance and a transit time say, and how reliable that is. Data only.

`pipeline.calibration` fits these; `pipeline.association.log_odds` and `pipeline.association.transit` compute with them.
Fields with an alias keep the name of version 0.1 in JSON, because run keys and model cards hash that JSON.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field, FiniteFloat, SerializerFunctionWrapHandler, model_serializer, model_validator

from schemas.keys import content_hash
from schemas.levels import Level
from schemas.settings import Frozen


class DistanceTerms(Frozen):
    """Log-odds as a falling, piecewise linear function of the distance."""

    intercept: float = Field(description="log-odds at distance 0")
    slopes: tuple[float, ...] = Field(description="decrease of the log-odds per unit of distance, per piece; all > 0")


class PairTerms(Frozen):
    """log-odds(one person) = intercept - sum of slopes * (distance within each piece) + transit * transit log-odds.

    Intercept and slopes are interpolated between the two extremes of evidence; see `pipeline.association.log_odds`.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    knots: tuple[float, ...] = Field((), description="distances at which the slope changes, ascending")
    many_crops: DistanceTerms = Field(alias="thick", description="limit for prototypes of very many crops")
    few_crops: DistanceTerms = Field(alias="thin", description="limit for prototypes of hardly any crop")
    transit: float = Field(1.0, ge=0, description="weight of the transit log-odds")


def straight_line(slope: float, intercept: float) -> PairTerms:
    """intercept - slope * distance, for any number of crops."""
    terms = DistanceTerms(intercept=intercept, slopes=(slope,))
    return PairTerms(many_crops=terms, few_crops=terms)


class Route(Frozen):
    """The joins seen between two children of a unit, `left` <= `right`."""

    left: str
    right: str
    relative: bool = Field(description="whether gaps are divided by the expected walking time; else in seconds")
    joins: Mapping[int, float] = Field(description="number of joins by bin of their gap")


class TransitTimes(Frozen):
    """Transit times of a level: gaps of one person beside gaps of strangers. See `pipeline.association.transit`."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    lookback_s: float = Field(alias="looked_s", gt=0, description="longest gap among the compared pairs, seconds")
    same: tuple[tuple[float, ...], ...] = Field(description="(kinds of route, bins) shares of one person's gaps")
    strangers: tuple[tuple[float, ...], ...] = Field(
        description="(kinds of route, bins) shares of strangers' gaps, in seconds"
    )
    kind_log_ratios: tuple[float, ...] = Field(
        alias="ways",
        description="per kind of route: log of its share among one person's pairs / among strangers' pairs",
    )
    routes: tuple[Route, ...] = Field((), description="routes with enough joins of their own, in order")
    joins: float = Field(0.0, ge=0, description="number of joins learned from, less the wrong ones")
    compared: float = Field(0.0, ge=0, description="number of pairs of strangers learned from")
    wrong_share: float = Field(0.0, ge=0, le=1, description="estimated share of wrong joins")

    def digest(self) -> bytes:
        """SHA-256 of everything in it."""
        return content_hash("transit", (self.model_dump_json(),))


class Reliability(Frozen):
    """A reliability curve in bins of equal mass (Nixon et al. 2019) and its expected calibration error."""

    predicted: tuple[float, ...] = Field(description="mean probability of each bin")
    observed: tuple[float, ...] = Field(description="share of pairs of one person in each bin")
    counts: tuple[int, ...] = Field(description="pairs in each bin")
    ece: float = Field(ge=0, le=1, description="mean |predicted - observed|, weighted by pairs (Guo et al. 2017)")

    @property
    def pairs(self) -> int:
        return sum(self.counts)


class Judgment(Frozen):
    """Reliability of the probabilities of shortlisted pairs."""

    shortlist: Reliability = Field(description="all pairs")
    middle: Reliability = Field(description="pairs with a probability of 0.05 to 0.95")


class FalseMerges(Frozen):
    """Share of the joins made at a threshold that join two people."""

    threshold: float = Field(description="log-odds; pairs at or above it are joined")
    joins: int = Field(ge=0)
    wrong: int = Field(ge=0)
    groups: int = Field(ge=0, description="people, seeds or cities with joins; joins of one group are not independent")
    rate: float = Field(ge=0, le=1, description="wrong / joins")
    low: float = Field(ge=0, le=1, description="95 % confidence interval of the rate")
    high: float = Field(ge=0, le=1)
    fresh_low: float = Field(ge=0, le=1, description="95 % interval of the rate among as many joins of other people")
    fresh_high: float = Field(ge=0, le=1)


class Profile(Frozen):
    """Distribution of a quantity, such as the distances of decisions, at calibration."""

    deciles: tuple[float, ...] = Field(description="the inner nine")
    shares: tuple[float, ...] = Field(description="share of the values in each of the ten bins; 0.1 each without ties")
    count: int = Field(ge=1)


class DistancePrior(Frozen):
    """How far apart a model's pairs of tracklets are, measured on labeled pictures of another place.

    Distances are standardized: less the median of different people's, over the spread above it.
    """

    strangers: tuple[FiniteFloat, ...] = Field(
        min_length=20, description="quantiles of different people's, at (i + 1/2) / n of n; ascending"
    )
    mode: FiniteFloat = Field(lt=0, description="of one person's distances, at the share of few crops `share`")
    slope: FiniteFloat = Field(description="of the mode, per share of few crops")
    near: FiniteFloat = Field(gt=0, description="spread below the mode")
    far: FiniteFloat = Field(gt=0, description="spread above the mode")
    share: FiniteFloat = Field(ge=0, le=1, description="mean share of few crops (association.log_odds)")
    measured_on: str = Field(max_length=500, description="the data, in words")


class Evidence(Frozen):
    """What a calibration without labels rests on."""

    forbidden: int = Field(ge=0, description="pairs that cannot be one person")
    share: float = Field(ge=0, le=1, description="estimated share of the comparable pairs that are one person")
    standard_error: float = Field(ge=0, description="of the log-odds of pairs near the operating point")


class LevelCalibration(Frozen):
    """From a pair to a probability at one level, and the operating point."""

    level: Level
    terms: PairTerms
    transit: TransitTimes | None = Field(None, description="None: the prior, before anything is learned")
    learned: tuple[float, float] | None = Field(
        None, description="distances learned from; outside nothing is joined. None: not known (version 0.2 and before)"
    )
    join_log_odds: float = Field(description="operating point: pairs and clusters at or above it are joined")
    review_log_odds: float = Field(description="from here up to join_log_odds, the operator is asked")
    fitted_on: str = Field(max_length=500, description="the data, in words")
    pairs: int = Field(ge=0)
    positives: int = Field(ge=0)
    false_merges: FalseMerges | None = Field(None, description="of the joins made at join_log_odds on the data")
    reliability: Judgment | None = Field(None, description="on people that the terms were not fitted on")
    decisions: Profile | None = Field(
        None, description="distances of the decisions made at join_log_odds, to detect drift"
    )
    evidence: Evidence | None = Field(None, description="of a calibration without labels; None: labels were there")

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> Any:
        """Leaves out a range that is not known, and evidence that is not there: run keys hash this JSON."""
        found = serialize(self)
        for name in ("learned", "evidence"):
            if getattr(self, name) is None:
                found.pop(name, None)
        return found

    @model_validator(mode="before")
    @classmethod
    def _straight_line(cls, data: Any) -> Any:
        """Reads early cards and rows, which hold a slope and an intercept instead of terms."""
        if isinstance(data, dict) and "slope" in data:
            line = straight_line(data["slope"], data["intercept"])
            return {
                "terms": line,
                **{name: value for name, value in data.items() if name not in ("slope", "intercept")},
            }
        return data


class SearchReliability(Frozen):
    """Reliability of a search's posteriors on labeled searches: of hits, and of "not here"."""

    hits: Judgment = Field(description="the best ten identities of each search")
    not_here: Reliability = Field(description="half of the searches are for people whose identities were left out")


class SearchCalibration(Frozen):
    """What the distance between a probe and an identity says in a search of one level.

    Distances are standardized by those of the probe to all identities compared, most of which are strangers:
    z = (distance - center) / spread. See `pipeline.search.likelihood` and `pipeline.search.posterior`.
    """

    level: Level
    knots: tuple[float, ...] = Field(
        description="z at which the slopes change, ascending; pieces are measured from z = 0"
    )
    terms: DistanceTerms = Field(description="log likelihood ratio of z, for an identity with one prototype")
    vectors: float = Field(description="decrease of it per unit of the logarithm of the number of prototypes")
    transit: float = Field(
        0.0, ge=0, description="weight of the transit log-odds, where the probe has a time and a place"
    )
    learned: tuple[float, float] = Field(description="z that were learned from; others count like the nearer end")
    center: float = Field(description="usual center of a probe's distances, where a search compares few identities")
    spread: float = Field(gt=0, description="usual spread of a probe's distances")
    identities: float = Field(ge=1, description="mean number of identities of a person who is there")
    confusions: float = Field(ge=0, description="number of other identities per search that look like the person's own")
    confusion_power: float = Field(
        1.0, gt=0, le=1, description="log likelihood ratio of a confusion's distance over that of the person's"
    )
    here: float = Field(0.5, gt=0, lt=1, description="prior probability that the person is among the identities")
    searches: int = Field(ge=0, description="labeled searches learned from")
    fitted_on: str = Field(max_length=500, description="the data, in words")
    reliability: SearchReliability | None = Field(None, description="on cities that the terms were not fitted on")
