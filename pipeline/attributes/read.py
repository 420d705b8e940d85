"""What is known of identities' attributes, and whether that is what somebody looks for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from schemas.attributes import NAMES, WantedAttributes

_COLUMNS = {name: name.replace(" ", "_") for name in NAMES}
_READ = text(
    f"SELECT i.id, count(*) AS crops, {', '.join(f'avg({column}) AS {column}' for column in _COLUMNS.values())}, "  # nosec B608
    "array_agg(a.top ORDER BY a.top) AS top, array_agg(a.bottom ORDER BY a.bottom) AS bottom "
    "FROM identity i JOIN identity_member m ON m.identity_id = ANY(i.tracklets || i.id) "
    "JOIN crop c ON c.id = m.crop_id JOIN crop_attributes a ON a.crop_id = c.id "
    "WHERE i.id = ANY(:identities) AND c.withdrawn_at IS NULL GROUP BY i.id"
)


@dataclass(frozen=True)
class Attributes:
    """What the crops of an identity show. crops: how many were looked at; the less, the less sure is all of it."""

    crops: int
    probabilities: Mapping[str, float]  # of each of NAMES, 0..1: the mean over these crops
    top: Mapping[str, float]  # share of these crops by color, the largest first
    bottom: Mapping[str, float]

    def has(self, wanted: WantedAttributes) -> bool:
        """Whether each attribute that is wanted is more likely there than not, and each color the most frequent one."""
        colors = {"top": self.top, "bottom": self.bottom}
        return all((self.probabilities[name] >= 0.5) is there for name, there in wanted.has.items()) and all(
            color is None or next(iter(colors[place])) == color
            for place, color in (("top", wanted.top), ("bottom", wanted.bottom))
        )


def attributes_of(connection: Connection, identities: Sequence[int]) -> dict[int, Attributes]:
    """The attributes of identities of any level, by their rows' ids; of those that nothing is known of there is none.

    In a transaction of `Store.signed_in` they follow from the crops that the session sees, and from no others.
    """
    rows = connection.execute(_READ, {"identities": list(identities)})
    return {
        row.id: Attributes(
            row.crops,
            {name: float(getattr(row, column)) for name, column in _COLUMNS.items()},
            _shares(row.top),
            _shares(row.bottom),
        )
        for row in rows
    }


def matching(
    connection: Connection, identities: Sequence[int], wanted: WantedAttributes
) -> tuple[list[int], list[int]]:
    """Those of the identities that have what is wanted, and those of which nothing is known, each in their order.

    Whom to leave out is for the caller to say, with `wanted.disagree`: how often two cameras do not agree on it.
    """
    known = attributes_of(connection, identities)
    there = [one for one in identities if one in known and known[one].has(wanted)]
    return there, [one for one in identities if one not in known]


def _shares(colors: Sequence[str]) -> dict[str, float]:
    counted = sorted(Counter(colors).items(), key=lambda item: (-item[1], item[0]))
    return {color: many / len(colors) for color, many in counted}
