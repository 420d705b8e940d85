"""The columns of an index: identities of one unit under one model, which come, change and go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.search.nearest import Fast, Gallery, Stored
from pipeline.search.transit import Passages
from schemas.arrays import Bools, Ints
from schemas.times import to_us

#: Places of removed identities stay, overwritten, until they are this share of all, and this many.
_GAPS, _FEW = 0.25, 1000


@dataclass(frozen=True)
class Sight:
    """A time in which rows are looked at: microseconds UTC, None where it has no bound."""

    from_us: int | None
    to_us: int | None

    @classmethod
    def of(cls, from_time: datetime | None, to_time: datetime | None) -> "Sight":
        return cls(None if from_time is None else to_us(from_time), None if to_time is None else to_us(to_time))

    def holds(self, start_us: Ints, end_us: Ints, has_time: Bools) -> Bools:
        """(n,) Whether these spans reach into it. Without a time of its own a row lies in no bounded one."""
        held = np.ones(len(has_time), dtype=bool)
        if self.from_us is not None:
            held &= has_time & (end_us >= self.from_us)
        if self.to_us is not None:
            held &= has_time & (start_us < self.to_us)
        return held


class _Column:
    """An array that grows at its end. What it outgrows is overwritten."""

    def __init__(self) -> None:
        self.held: NDArray[Any] | None = None
        self.size = 0
        self.expected = 0  # rows that it grows to at once, so that nothing is copied over and over

    @property
    def values(self) -> NDArray[Any]:
        return np.empty(0) if self.held is None else self.held[: self.size]

    def append(self, more: NDArray[Any]) -> None:
        if self.held is None or self.size + len(more) > len(self.held):
            needed = max(self.size + len(more), self.size * 5 // 4, self.expected)
            grown = np.zeros((needed, *more.shape[1:]), more.dtype)
            grown[: self.size] = self.values if self.size else 0
            self.clear()
            self.held = grown
        self.held[self.size : self.size + len(more)] = more
        self.size += len(more)

    def clear(self) -> None:
        if self.held is not None:
            self.held[:] = 0


_IDENTITY = ("id", "key", "start", "end", "has_time", "first", "count", "first_passage", "passages", "alive")
_PASSAGE = ("camera", "tracklet", "passage_start", "passage_end", "passage_has_time")
_VECTOR = ("v", "inverse_length")


class IndexRows:
    """Identities with their prototypes and passages; each has a place, which it keeps until it goes."""

    def __init__(self) -> None:
        self._columns = {name: _Column() for name in (*_IDENTITY, *_PASSAGE, *_VECTOR)}
        self._people: list[bytes] = []  # by place
        self._place: dict[bytes, int] = {}
        self._codes: dict[str, int] = {}
        self._order: Ints | None = None  # places of those that are there, by key

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self._columns[column].values

    @property
    def prototypes(self) -> int:
        return self._columns["v"].size

    @property
    def ids(self) -> Ints:
        """Of the identities that are there."""
        return self["id"][self["alive"]] if self._people else np.empty(0, np.int64)

    def add(
        self,
        ids: Ints,
        *,
        keys: Sequence[bytes],
        people: Sequence[bytes],
        span_us: Ints,
        has_time: Bools,
        vectors: NDArray[np.float16],
        counts: Ints,
        passages: Passages,
    ) -> None:
        """n identities that are not there: ids, keys (hashes) and persistent ids, span (2, n), vectors (sum, D) and

        passages in their order, each identity's after the other's.
        """
        vectors_before, passages_before = self.prototypes, self._columns["camera"].size
        numbers = np.array([self._codes.setdefault(code, len(self._codes)) for code in passages.codes], np.int64)
        new = {
            "id": ids,
            "key": np.frombuffer(b"".join(key[:8] for key in keys), ">u8").astype(np.uint64),
            "start": span_us[0],
            "end": span_us[1],
            "has_time": has_time,
            "first": vectors_before + np.cumsum(counts) - counts,
            "count": counts,
            "first_passage": passages_before + np.cumsum(passages.count) - passages.count,
            "passages": passages.count,
            "alive": np.ones(len(ids), dtype=bool),
            "camera": numbers[passages.camera] if len(numbers) else passages.camera,
            "tracklet": passages.tracklet,
            "passage_start": passages.span_us[0],
            "passage_end": passages.span_us[1],
            "passage_has_time": passages.has_time,
            "v": vectors,
            "inverse_length": 1 / np.linalg.norm(vectors.astype(np.float32), axis=1),
        }
        for name, values in new.items():
            self._columns[name].append(values)
        for person in people:
            self._place[person] = len(self._people)
            self._people.append(person)
        self._order = None

    def reserve(self, prototypes: int) -> None:
        """So many prototypes more are about to be added."""
        for name in _VECTOR:
            self._columns[name].expected = self.prototypes + prototypes

    def remove(self, people: set[bytes]) -> None:
        """Those of these people who are there; their vectors, times and places are overwritten."""
        places = np.array([self._place.pop(one) for one in people & self._place.keys()], np.int64)
        if not len(places):
            return
        _overwrite([self[name] for name in _VECTOR], self["first"][places], self["count"][places])
        _overwrite([self[name] for name in _PASSAGE], self["first_passage"][places], self["passages"][places])
        for name in ("id", "key", "start", "end", "has_time", "alive"):
            self[name][places] = 0
        for place in places.tolist():
            self._people[place] = b""
        self._order = None
        gone = len(self._people) - len(self._place)
        if gone > max(_FEW, _GAPS * len(self._people)):
            self._close_gaps()

    def people_who_changed(self, ids: Ints, counts: Ints) -> set[bytes]:
        """Those whose identity is not among these ids (n,), or has another number of prototypes (n,) than here."""
        if not self._people:
            return set()
        still = np.isin(self["id"], ids)
        order = np.argsort(ids)
        at = order[np.searchsorted(ids, self["id"][still], sorter=order)]
        still[np.flatnonzero(still)[counts[at] != self["count"][still]]] = False
        return {self._people[place] for place in np.flatnonzero(self["alive"] & ~still).tolist()}

    def clear(self) -> None:
        for column in self._columns.values():
            column.clear()

    def vector_bytes(self) -> bytes:
        """All bytes that are kept for vectors, those behind the last one too."""
        held = self._columns["v"].held
        return b"" if held is None else held.tobytes()

    def places(self, sights: Sequence[Sight]) -> Ints:
        """(n,) Places of the identities whose spans reach into all of these times, in the order of their keys."""
        if not self._people:
            return np.empty(0, np.int64)
        if self._order is None:
            order = np.argsort(self["key"], kind="stable")
            self._order = order[self["alive"][order]]
        held = np.ones(len(self._people), dtype=bool)
        for sight in sights:
            held &= sight.holds(self["start"], self["end"], self["has_time"])
        return self._order if held.all() else self._order[held[self._order]]

    def gallery(self, places: Ints, fast: Fast) -> Gallery:
        """The identities at these places."""
        stored = Stored(self["v"], self["inverse_length"], self["first"], fast)
        return Gallery.of(stored, self["id"][places], self["count"][places], places)

    def passages(self, places: Ints, sight: Sight) -> Passages:
        """Their passages that reach into a time."""
        owner, rows = _ranges(self["first_passage"][places], self["passages"][places])
        start, end = self["passage_start"][rows], self["passage_end"][rows]
        seen = sight.holds(start, end, self["passage_has_time"][rows])
        if not seen.all():
            owner, rows, start, end = owner[seen], rows[seen], start[seen], end[seen]
        return Passages(
            tuple(self._codes),
            self["camera"][rows],
            self["tracklet"][rows],
            np.stack([start, end]),
            self["passage_has_time"][rows],
            np.bincount(owner, minlength=len(places)),
        )

    def tracklets(self, after: Mapping[str, int] | None = None) -> Ints:
        """Ids of their tracklets; `after`: of these cameras alone, those with a later id than the one given."""
        ids = self["tracklet"].astype(np.int64)
        if after is None:
            return ids[ids > 0]
        last = np.array([after.get(code, np.iinfo(np.int64).max) for code in self._codes], np.int64)
        return ids[ids > last[self["camera"]]] if len(ids) else ids

    def _close_gaps(self) -> None:
        places = np.flatnonzero(self["alive"])
        _, vectors = _ranges(self["first"][places], self["count"][places])
        _, passages = _ranges(self["first_passage"][places], self["passages"][places])
        kept = dict.fromkeys(_IDENTITY, places) | dict.fromkeys(_PASSAGE, passages) | dict.fromkeys(_VECTOR, vectors)
        for name, rows in kept.items():
            before, self._columns[name] = self._columns[name], _Column()
            self._columns[name].append(before.values[rows])
            before.clear()
        for first, count in (("first", "count"), ("first_passage", "passages")):
            self[first][:] = np.cumsum(self[count]) - self[count]
        self._people = [self._people[place] for place in places.tolist()]
        self._place = {person: place for place, person in enumerate(self._people)}


def _overwrite(columns: Sequence[NDArray[Any]], first: Ints, counts: Ints) -> None:
    _, rows = _ranges(first, counts)
    for column in columns:
        column[rows] = 0


def _ranges(first: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Of the ranges first[i] .. first[i] + counts[i] - 1, one after another: the range of each row, and the row."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
