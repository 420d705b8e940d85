"""One search of several databases: each compares its own people, and what they say is merged into one list.

A database holds a group of districts. Each states likelihood ratios, which do not depend on how many people there are
elsewhere; the prior and "not here" are of all together, so they are computed from the sum (`Evidence`). A probe's
distances are standardized by those to the people of one unit, here as in a single database, which searches district by
district too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from pipeline.search.posterior import Evidence, posterior
from schemas.errors import InputError
from schemas.parameters import SearchHit, SearchResult
from schemas.settings import Frozen


class HitOfCity(Frozen):
    city: str = Field(description="the name of the database that knows this identity")
    hit: SearchHit = Field(description="rank and probability are those among the hits of all")


class SeveralResult(Frozen):
    """The hits of several databases in one list."""

    hits: tuple[HitOfCity, ...]
    compared: int = Field(ge=0, description="identities that the probe was compared with, in all")
    not_here: float = Field(description="probability that none of them is the probe's person")
    notes: tuple[str, ...] = Field(description="what each database says about its part, after its name")


@dataclass(frozen=True)
class Part:
    """What one database answered for one of its units."""

    city: str
    result: SearchResult


def merge(parts: Sequence[Part], top: int) -> SeveralResult:
    """The hits of all parts, the most probable first, at most `top`, with the probabilities of all together.

    The result is that of one database with all the units, but for two bounds: a part's answer holds its own `top` hits
    alone, and beyond 200 identities of a part the least alike count by the sum of their ratios, as in one database.
    Raises InputError where a part states no probability, or two have different calibrations.
    """
    if not parts:
        raise InputError("no place was named to search in")
    evidence, calibration = None, None
    for part in parts:
        stated = part.result.evidence
        if stated is None:
            raise InputError(f"{part.city} states no probability, so nothing can be merged: {part.result.note}")
        if calibration is not None and stated.calibration != calibration:
            raise InputError(
                f"{part.city} and {parts[0].city} calibrate searches differently, so their probabilities cannot be "
                "merged; register one model with one calibration in both"
            )
        calibration = stated.calibration
        read = Evidence.read(stated)
        evidence = read if evidence is None else evidence + read
    assert evidence is not None and calibration is not None
    whole = posterior(evidence, calibration)
    found = []
    for part in parts:
        for hit in part.result.hits:
            probability = 0.0 if hit.log_ratio is None else whole.of(hit.log_ratio, hit.log_look)
            found.append(HitOfCity(city=part.city, hit=hit.model_copy(update={"probability": probability})))
    found.sort(key=lambda one: -(one.hit.probability or 0.0))  # stable: equal ones stay in their parts' order
    return SeveralResult(
        hits=tuple(
            one.model_copy(update={"hit": one.hit.model_copy(update={"rank": rank})})
            for rank, one in enumerate(found[:top], 1)
        ),
        compared=sum(part.result.compared for part in parts),
        not_here=whole.not_here,
        notes=tuple(f"{part.city}: {part.result.note}" for part in parts if part.result.note),
    )
