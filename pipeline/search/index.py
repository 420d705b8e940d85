"""The prototypes and passages of units in memory, in step with the database: what a process that searches keeps warm.

Read as urban_reid_worker, so it holds more than anybody may see; `UnitIndex.known` takes what the session of a search
was granted. Before each search it is compared with the database: the unit's current runs, and how often prototypes were
removed (`prototype_removal`), so that vectors that were erased a moment ago are overwritten before anything is
compared. It writes no file.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, text

from pipeline.registry import ModelRow
from pipeline.search import recall
from pipeline.search.index_rows import IndexRows, Sight
from pipeline.search.kept_attributes import KeptAttributes
from pipeline.search.known import Known, by_model
from pipeline.search.memory import check_fits, most_bytes
from pipeline.search.narrowing import Narrowing
from pipeline.search.nearest import Compared, Fast
from pipeline.search.transit import Passages
from pipeline.store import Store
from pipeline.store.copy import copy_out
from pipeline.store.copy_format import Column
from pipeline.store.replica import TIMELINE
from schemas.arrays import Floats, Ints
from schemas.errors import UrbanReidError
from schemas.parameters import Period

#: People who are read again in one query; of more changes all are read.
_PEOPLE = 50_000
#: Identities whose vectors are read in one query: bounds what is copied beside the index.
_AT_ONCE = 20_000

#: Changes when prototypes are removed: rows by statements, days by dropping partitions, which may be made anew; and
#: with a promoted replica, which may lack commits and give the ids of theirs anew.
_REMOVALS = text(
    "SELECT (SELECT count(*) FROM prototype_removal) || ' ' || coalesce((SELECT md5(string_agg(oid::text, ' ' ORDER BY "
    "oid)) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' "
    "AND starts_with(relname, 'prototype_m')), '') || ' ' || " + TIMELINE
)
_RUNS = "SELECT id FROM run WHERE unit = :unit AND superseded_at IS NULL"
_PEOPLE_OF_RUNS = "SELECT DISTINCT persistent_id FROM identity WHERE run_id = ANY(:runs)"
_STILL = (
    "SELECT p.identity_id, count(*) FROM prototype p WHERE p.model_id = :model AND p.identity_id = ANY(:ids) GROUP BY 1"
)
_IDENTITIES = (
    "SELECT i.id, i.key::bytea, i.persistent_id, i.first_seen, i.last_seen, i.timed FROM identity_now i "
    "WHERE i.unit = :unit"
)
_OF_PEOPLE = " AND i.persistent_id = ANY(CAST(:people AS uuid[]))"
_COLUMNS = {
    "id": "int8",
    "key": "bytea",
    "person": "uuid",
    "first_seen": "timestamptz",
    "last_seen": "timestamptz",
    "timed": "bool",
}
_COUNT = text("SELECT count(*) FROM prototype WHERE model_id = :model AND identity_id = ANY(:ids)")
_PROTOTYPES = (
    "SELECT identity_id, v FROM prototype WHERE model_id = :model AND identity_id = ANY(:ids) "
    "ORDER BY identity_id, ordinal"
)
#: What the session may see: whether the unit, and from when to when. Null: without a bound.
_GRANTED = text(
    "SELECT CAST(:unit AS text) LIKE ANY (seen_units()) AS unit, lower(t) AS from_time, upper(t) AS to_time, "
    "isempty(t) AS is_empty FROM seen_time() AS t"
)


_log = logging.getLogger("urban_reid.search")


class Index:
    """The units of a home that were searched lately. Searches of one process take turns."""

    def __init__(self, store: Store, fast: Callable[[ModelRow], Fast]) -> None:
        """fast: opens what computes a model's distances in this process."""
        self._store, self._fast, self._most = store, fast, most_bytes(store.settings)
        self._lock = threading.Lock()
        self._later = ThreadPoolExecutor(1, thread_name_prefix="recall")
        self._measuring: Future[None] | None = None
        self._searches = 0
        self._units: dict[tuple[int, str], UnitIndex] = {}  # the one searched last comes last

    @contextmanager
    def held(self, model: ModelRow, unit: str, *, attributes: bool = False) -> Iterator["UnitIndex"]:
        """The unit's identities as the database has them now, with `model` in use, for this search alone.

        attributes: what is known of theirs too, which is kept from the first search on that asks for them. Where memory
        is short, the unit that was searched least recently goes first; raises InputError for one that alone is too
        large.
        """
        with self._lock:
            for key in [key for key in self._units if key[0] != model.id]:  # another model came into use
                self._units.pop(key).clear()
            found = self._units.pop((model.id, unit), None) or UnitIndex(unit, self._fast, self._watch)
            found.refresh(self._store, model, self._make_room)  # if it fails, it is read anew by the next search
            if attributes:
                found.refresh_attributes(self._store)
            self._units[model.id, unit] = found
            yield found

    def _make_room(self, unit: str, prototypes: int, dims: int) -> None:
        """Before so many prototypes of a unit are kept, which is not among the units now."""
        check_fits(unit, prototypes, dims, self._most)
        others = self._most - prototypes * dims * 2
        while self._units and sum(one.vector_bytes for one in self._units.values()) > others:
            self._units.pop(next(iter(self._units))).clear()

    def wait(self) -> None:
        """Until the recall that is being measured is written, if one is."""
        if self._measuring is not None:
            self._measuring.result()

    def _watch(self, unit: "UnitIndex", known: Known, feature: Floats, compared: Compared) -> None:
        """Measures the recall of one search of many, after its answer."""
        if compared.exact.all():
            return
        self._searches += 1
        if self._searches % recall.EACH == 1 and (self._measuring is None or self._measuring.done()):
            self._measuring = self._later.submit(self._measure, unit, known, feature, compared, unit.version)

    def _measure(self, unit: "UnitIndex", known: Known, feature: Floats, compared: Compared, version: int) -> None:
        @contextmanager
        def turn() -> Iterator[bool]:
            with self._lock:
                yield unit.version == version

        try:
            found = recall.measure(known.gallery, feature, compared, turn)
            if found is not None:
                recall.write_recall(self._store, known.model.id, len(known.gallery.ids), *found)
        except UrbanReidError as error:
            _log.warning("the recall of a search was not measured: %s", error)


@dataclass
class UnitIndex:
    """The identities of a unit as they are now, each by the model that compares it."""

    unit: str
    _fast: Callable[[ModelRow], Fast]
    _watch: Callable[["UnitIndex", Known, Floats, Compared], None]
    version: int = 0  # another one when rows changed
    rows: dict[int, IndexRows] = field(default_factory=dict)  # by model id
    _models: dict[int, ModelRow] = field(default_factory=dict)
    _runs: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    _removals: str | None = None
    _attributes: KeptAttributes = field(default_factory=KeptAttributes)

    @property
    def vector_bytes(self) -> int:
        """How large its vectors are."""
        return sum(rows["v"].nbytes for rows in self.rows.values())

    def clear(self) -> None:
        """Overwrites the vectors."""
        self.version += 1
        for rows in self.rows.values():
            rows.clear()
        self._attributes.clear()

    def refresh_attributes(self, store: Store) -> None:
        """Brings what is known of attributes in step with the database and with the identities that are here."""
        with store.begin(only_reads=True) as connection:
            self._attributes.refresh(connection, self.unit, list(self.rows.values()), self._removals)

    def refresh(self, store: Store, model: ModelRow, make_room: Callable[[str, int, int], None]) -> None:
        """Brings it in step with the database, in one snapshot. make_room: is told how many prototypes it will have."""
        with store.begin(only_reads=True) as connection:
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            removals = str(connection.execute(_REMOVALS).scalar_one())
            runs = np.sort(np.asarray(copy_out(connection, _RUNS, {"unit": self.unit}, {"id": "int8"})["id"], np.int64))
            if removals == self._removals and np.array_equal(runs, self._runs):
                return
            self.version += 1
            changed = self._changed(connection, runs, removals)
            if changed is None:
                self.clear()
                self.rows.clear()
            for rows in self.rows.values():
                rows.remove(changed or set())
            if changed is None or changed:
                self._read(connection, model, changed, make_room)
            self._runs, self._removals = runs, removals

    def _changed(self, connection: Connection, runs: Ints, removals: str) -> set[bytes] | None:
        """The people whose identity may be another one now; None: all."""
        if self._removals is None:
            return None
        changed: set[bytes] = set()
        if removals != self._removals:
            for number, rows in self.rows.items():
                parameters = {"model": number, "ids": rows.ids}
                still = copy_out(connection, _STILL, parameters, {"id": "int8", "count": "int8"})
                changed |= rows.people_who_changed(np.asarray(still["id"]), np.asarray(still["count"]))
        if len(other := np.setxor1d(runs, self._runs)):
            people = copy_out(connection, _PEOPLE_OF_RUNS, {"runs": other}, {"person": "uuid"})["person"]
            changed |= {one.bytes for one in people}
        return changed if len(changed) <= _PEOPLE else None

    def _read(
        self,
        connection: Connection,
        model: ModelRow,
        people: set[bytes] | None,
        make_room: Callable[[str, int, int], None],
    ) -> None:
        """Reads these people as they are now; None: all."""
        query, parameters = _IDENTITIES, dict[str, Any](unit=self.unit)
        if people is not None:
            query, parameters["people"] = query + _OF_PEOPLE, [str(UUID(bytes=one)) for one in people]
        found = copy_out(connection, query, parameters, _COLUMNS)
        place = {int(one): row for row, one in enumerate(found["id"])}
        for known, identities in by_model(connection, model, list(place)):
            self._models[known.id] = known
            rows = self.rows.setdefault(known.id, IndexRows())
            more = connection.scalar(_COUNT, {"model": known.id, "ids": identities})
            make_room(self.unit, rows.prototypes + more, known.card.dims)
            rows.reserve(more)
            for start in range(0, len(identities), _AT_ONCE):
                self._read_some(connection, known.id, rows, identities[start : start + _AT_ONCE], found, place)

    def _read_some(
        self,
        connection: Connection,
        model_id: int,
        rows: IndexRows,
        identities: list[int],
        found: Mapping[str, Column],
        place: Mapping[int, int],
    ) -> None:
        """Prototypes and passages of some of the identities that were `found`, at these places."""
        parameters = {"model": model_id, "ids": identities}
        vectors = copy_out(connection, _PROTOTYPES, parameters, {"id": "int8", "v": "halfvec"})
        ids, counts = np.unique(np.asarray(vectors["id"], np.int64), return_counts=True)
        if not len(ids):
            return
        at = np.array([place[one] for one in ids.tolist()], np.int64)
        rows.add(
            ids,
            keys=[bytes(found["key"][row]) for row in at.tolist()],
            people=[found["person"][row].bytes for row in at.tolist()],
            span_us=np.stack([np.asarray(found[name], np.int64)[at] for name in ("first_seen", "last_seen")]),
            has_time=np.asarray(found["timed"], bool)[at],
            vectors=np.asarray(vectors["v"], np.float16),
            counts=counts,
            passages=Passages.read(connection, ids.tolist()),
        )

    def known(
        self, connection: Connection, model: ModelRow, period: Period, narrowing: Narrowing | None = None
    ) -> list[Known]:
        """As `read_known`: what the session of this connection may see, in the period, read from memory."""
        granted = connection.execute(_GRANTED, {"unit": self.unit}).one()
        if not granted.unit or granted.is_empty:
            return []
        sight = Sight.of(granted.from_time, granted.to_time)
        both = (sight, Sight.of(period.from_time, period.to_time))
        found = []
        for number in sorted(self.rows, key=lambda number: (number != model.id, number)):
            rows, one = self.rows[number], self._models[number]
            places = rows.places(both)
            if narrowing is not None:
                places = places[narrowing.identities(rows.passages(places, sight))]
            if len(places):
                gallery = rows.gallery(places, self._fast(one))
                known = Known(one, gallery, partial(rows.passages, places, sight), lambda _: self._attributes.known)
                found.append(replace(known, watch=partial(self._watch, self, known)))
        return found


def all_vectors(index: Index) -> Mapping[tuple[int, str], bytes]:
    """Every byte that is kept for vectors, by model id and unit: to prove that one is not among them."""
    return {key: b"".join(rows.vector_bytes() for rows in unit.rows.values()) for key, unit in index._units.items()}
