"""Searches by attributes: who is shown beside a picture, and a list of people where there is no picture.

A filter changes who is shown, and nobody's probability: colors and bags are seen in the pictures that are compared too,
and two cameras disagree on them too often to prove anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from pipeline.attributes.read import Attributes
from pipeline.registry import ModelRow
from pipeline.search.descent import best_crops, rows_of
from pipeline.search.known import Known
from pipeline.search.narrowing import Narrowing
from pipeline.search.result import Hit
from schemas.arrays import Bools
from schemas.attributes import WantedAttributes
from schemas.levels import level_of
from schemas.parameters import Filtered, SearchHit, SearchParameters

#: What the result of a search without a picture says.
LIST = (
    "Nobody was compared with a picture: this is a list of people by what they seem to wear and carry, those first of "
    "whom the crops agree most, and says of nobody how likely it is that this is the person."
)


@dataclass(frozen=True)
class Worn:
    """What n identities show in the passages that are searched."""

    wanted: WantedAttributes
    attributes: Attributes  # of the n identities
    has: Bools  # (n,) all that is wanted

    @classmethod
    def of(cls, known: Known, parameters: SearchParameters, narrowing: Narrowing | None, zone: str) -> "Worn | None":
        """Of the identities that one model knows; None where no attributes are asked for."""
        if parameters.attributes is None:
            return None
        passages = known.passages()
        counts = (narrowing or Narrowing.of_period(parameters, zone)).passages(passages)
        owner = np.repeat(np.arange(len(passages.count)), passages.count)[counts]
        tracklets = passages.tracklet[counts]
        many = np.bincount(owner, minlength=len(passages.count))
        attributes = known.attributes(tracklets).of_identities(known.gallery.ids, tracklets, many)
        return cls(parameters.attributes, attributes, attributes.matching(parameters.attributes))

    @property
    def is_shown(self) -> Bools:
        """(n,) Beside a picture: whoever has what is wanted, and of whom nothing is known."""
        return np.asarray(self.has | ~self.attributes.known, bool)


def filtered(worn: Sequence[Worn | None]) -> Filtered | None:
    """What the filter did to the identities of all models; None where no attributes are asked for."""
    each = [one for one in worn if one is not None]
    if not each:
        return None
    matching, unknown = (
        sum(int(mask.sum()) for mask in masks)
        for masks in ([one.has for one in each], [~one.attributes.known for one in each])
    )
    every = sum(len(one.has) for one in each)
    wanted = each[0].wanted
    return Filtered(
        asked=wanted.terms,
        matching=matching,
        unknown=unknown,
        left_out=every - matching - unknown,
        disagree=wanted.disagree,
    )


def list_people(
    connection: Connection,
    model: ModelRow,
    every: Sequence[Known],
    worn: Sequence[Worn | None],
    parameters: SearchParameters,
    narrowing: Narrowing | None,
) -> list[Hit]:
    """Those who have what is asked for, at most `parameters.top`: those whose crops agree most, then the last seen."""
    found: list[tuple[float, int, Worn, int]] = []
    for known, one in zip(every, worn, strict=True):
        assert one is not None
        agreement = one.attributes.agreement(one.wanted)
        for row in np.flatnonzero(one.has).tolist():
            found.append((float(agreement[row]), int(known.gallery.ids[row]), one, row))
    found.sort(key=lambda person: (-person[0], -person[1]))  # of equal ones the version that was made last
    hits: list[Hit] = []
    while found and len(hits) < parameters.top:
        some, found = found[: parameters.top - len(hits)], found[parameters.top - len(hits) :]
        rows = rows_of(connection, [identity for _, identity, _, _ in some])
        crops = best_crops(connection, level_of(parameters.unit), list(rows.values()), parameters, narrowing)
        for _, identity, one, row in some:
            if not crops.get(identity):  # erased a moment ago, or without a crop in the period
                continue
            of = rows[identity]
            shown = SearchHit(
                rank=len(hits) + 1,
                identity=of.persistent_id,
                unit=parameters.unit,
                model=model.name,
                distance=None,
                probability=None,
                first_seen=of.first_seen if of.timed else None,
                last_seen=of.last_seen if of.timed else None,
                attributes=one.attributes.terms(row),
                crops=crops[identity],
            )
            hits.append(Hit(identity, model.id, shown))
    return hits
