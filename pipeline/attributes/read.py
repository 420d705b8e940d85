"""What is known of people's attributes: of tracklets, as a few of their crops show it, and of identities by those."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from pipeline.store.copy import copy_out
from schemas.arrays import Bools, Floats, Ints
from schemas.attributes import COLORS, NAMES, PLACES, WantedAttributes

_COLUMNS = {name: name.replace(" ", "_") for name in NAMES}
_COLORED = [(place, color) for place in PLACES for color in COLORS]
_READ = (
    "SELECT m.identity_id, count(*)::int2, "
    + ", ".join(f"sum(a.{column})::float4" for column in _COLUMNS.values())
    + ", "
    + ", ".join(f"(count(*) FILTER (WHERE a.{place} = '{color}'))::int2" for place, color in _COLORED)
    + " FROM identity_member m JOIN crop c ON c.id = m.crop_id JOIN crop_attributes a ON a.crop_id = c.id "  # nosec B608
    "WHERE m.identity_id = ANY(:tracklets) AND c.withdrawn_at IS NULL GROUP BY 1 ORDER BY 1"
)
_TYPES = {
    "id": "int8",
    "crops": "int2",
    **dict.fromkeys(_COLUMNS.values(), "float4"),
    **dict.fromkeys((f"{place} {color}" for place, color in _COLORED), "int2"),
}
#: Tracklets that are read in one query.
_AT_ONCE = 20_000


@dataclass(frozen=True)
class Attributes:
    """What crops of n tracklets or identities show. The fewer crops were looked at, the less sure is all of it."""

    ids: Ints  # (n,) rows of `identity`; in order where they are of tracklets
    crops: NDArray[np.int16]  # (n,) crops that were looked at; 0: nothing is known
    has: NDArray[np.float32]  # (n, 7) sum of their probabilities, by NAMES
    colors: NDArray[np.int16]  # (n, 2, 11) how many of them have a color, by PLACES and COLORS

    @classmethod
    def none(cls) -> "Attributes":
        shape = (0, len(PLACES), len(COLORS))
        return cls(
            np.empty(0, np.int64),
            np.empty(0, np.int16),
            np.empty((0, len(NAMES)), np.float32),
            np.empty(shape, np.int16),
        )

    @classmethod
    def read(cls, connection: Connection, tracklets: Sequence[int] | Ints) -> "Attributes":
        """Those of these tracklets (ids of rows) of which something is known.

        In a transaction of `Store.signed_in` it follows from the crops that the session sees, and from no others.
        """
        parts = [cls.none()]
        ids = np.asarray(tracklets, np.int64)
        for start in range(0, len(ids), _AT_ONCE):
            rows = copy_out(connection, _READ, {"tracklets": ids[start : start + _AT_ONCE]}, _TYPES)
            colors = np.stack([np.asarray(rows[f"{place} {color}"]) for place, color in _COLORED], axis=1)
            parts.append(
                cls(
                    np.asarray(rows["id"], np.int64),
                    np.asarray(rows["crops"], np.int16),
                    np.stack([np.asarray(rows[column], np.float32) for column in _COLUMNS.values()], axis=1),
                    colors.reshape(-1, len(PLACES), len(COLORS)).astype(np.int16),
                )
            )
        return cls._joined(parts)

    @classmethod
    def _joined(cls, parts: Sequence["Attributes"]) -> "Attributes":
        columns = ([getattr(part, name) for part in parts] for name in ("ids", "crops", "has", "colors"))
        return cls(*(np.concatenate(column) for column in columns))

    def with_more(self, others: "Attributes") -> "Attributes":
        """These and others, which stand for those of the same id here."""
        both = self._joined([self.rows(~np.isin(self.ids, others.ids)), others])
        return both.rows(np.argsort(both.ids))

    def overwrite(self) -> None:
        for values in (self.crops, self.has, self.colors):
            values[:] = 0

    def rows(self, rows: Ints | Bools) -> "Attributes":
        return Attributes(self.ids[rows], self.crops[rows], self.has[rows], self.colors[rows])

    def of_identities(self, ids: Ints, tracklets: Ints, counts: Ints) -> "Attributes":
        """Of n identities, of these tracklets' attributes. tracklets: (s,), each identity's after the other's; counts:

        (n,) how many each has.
        """
        owner = np.repeat(np.arange(len(counts)), counts)
        at = np.searchsorted(self.ids, tracklets).clip(max=max(len(self.ids) - 1, 0))
        there = self.ids[at] == tracklets if len(self.ids) else np.zeros(len(tracklets), bool)
        owner, at = owner[there], at[there]
        found = Attributes(
            ids,
            np.zeros(len(ids), np.int16),
            np.zeros((len(ids), len(NAMES)), np.float32),
            np.zeros((len(ids), len(PLACES), len(COLORS)), np.int16),
        )
        first = np.flatnonzero(np.diff(owner, prepend=-1))  # of each identity of which something is known
        if len(first):
            known = owner[first]
            for mine, theirs in ((found.crops, self.crops), (found.has, self.has), (found.colors, self.colors)):
                mine[known] = np.add.reduceat(theirs[at], first)
        return found

    @property
    def known(self) -> Bools:
        """(n,) Whether anything is known."""
        return np.asarray(self.crops > 0, bool)

    def matching(self, wanted: WantedAttributes) -> Bools:
        """(n,) Whether each attribute that is wanted is more likely there than not, and each color the most frequent.

        False where nothing is known.
        """
        found = self.known
        for name, is_there in wanted.has.items():
            found &= (2 * self.has[:, NAMES.index(name)] >= self.crops) == is_there
        for place, color in wanted.colors.items():
            # of equally frequent colors the first by its name
            order = sorted(range(len(COLORS)), key=COLORS.__getitem__)
            of_place = self.colors[:, PLACES.index(place)][:, order]
            found &= np.asarray(order)[of_place.argmax(axis=1)] == COLORS.index(color)
        return np.asarray(found, bool)

    def agreement(self, wanted: WantedAttributes) -> Floats:
        """(n,) 0..1, how far the crops agree on all of it: the product of probabilities and of shares of colors.

        0 where nothing is known. It orders a list, and is the probability of nothing.
        """
        crops = np.maximum(self.crops, 1)
        found = self.known.astype(np.float64)
        for name, is_there in wanted.has.items():
            share = self.has[:, NAMES.index(name)] / crops
            found *= share if is_there else 1 - share
        for place, color in wanted.colors.items():
            found *= self.colors[:, PLACES.index(place), COLORS.index(color)] / crops
        return found

    def terms(self, row: int) -> tuple[str, ...] | None:
        """What one of them shows, as it is asked for, without what is not there; None where nothing is known."""
        if not self.crops[row]:
            return None
        one = self.rows(np.array([row]))
        colored = {
            place: next(color for color in COLORS if one.matching(WantedAttributes(**{place: color}))[0])
            for place in PLACES
        }
        has = {name: True for name in NAMES if one.matching(WantedAttributes(has={name: True}))[0]}
        return WantedAttributes(has=has, **colored).terms
