"""erase: removes a person from the city, as far as the city knows of what it holds.

First the rows, in one transaction under the locks of the units concerned, so that no resolve writes what it read
before. Then what has the rows' names elsewhere: pictures, reports, exports, Prefect's runs. Killed anywhere, it goes on
when it is run again: the names stand in `erasure_name` until all of it is gone.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.erasure.erasure_list import write_list
from pipeline.erasure.files import remove_files, remove_pictures
from pipeline.erasure.targets import Target, check_not_held, find_target, units_of
from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from pipeline.store.locks import lock_crops, unit_locks
from pipeline.store.session_file import session_token
from schemas.errors import InputError

_OPEN = text("INSERT INTO erasure (kind, actor) VALUES (:kind, :actor) RETURNING id")
_ERASE = text("SELECT erase_rows(:id, :crops, CAST(:probes AS uuid[]), CAST(:requests AS uuid[]))")
_COUNT = text("UPDATE erasure SET counts = counts || CAST(:counts AS jsonb) WHERE id = :id")
_END = text("SELECT end_erasure(:id, CAST(:counts AS jsonb))")
_LISTED_CROPS = text(
    "SELECT id FROM crop WHERE erased_hash('crop', encode(key, 'hex')) = ANY(CAST(:hashes AS bytea[])) ORDER BY id"
)
_LISTED_PROBES = text(
    "SELECT id FROM probe WHERE erased_hash('probe', CAST(id AS text)) = ANY(CAST(:hashes AS bytea[])) ORDER BY id"
)
_ADD = text(
    "INSERT INTO erased (hash, erasure_id) SELECT hash, :id FROM unnest(CAST(:hashes AS bytea[])) AS hash "
    "ON CONFLICT DO NOTHING"
)
_UNFINISHED = text("SELECT id FROM erasure WHERE ended_at IS NULL ORDER BY asked_at")


@dataclass(frozen=True)
class Erased:
    """An erasure that has ended. counts: what was removed, by what it is. left: what could not be reached, in words."""

    id: UUID
    counts: Mapping[str, int]
    left: tuple[str, ...]


@contextmanager
def acting(store: Store) -> Iterator[Connection]:
    """One transaction of the program, whose rows of the audit are by whoever is signed in."""
    with store.begin() as connection:
        at = {"token": session_token(store.settings)}
        connection.execute(text("SELECT set_config('urban_reid.session', :token, true)"), at)
        yield connection


def erase(
    store: Store,
    kind: str,
    names: Sequence[str],
    *,
    actor: str,
    reason: str,
    on_wait: Callable[[str], None] | None = None,
) -> Erased:
    """Erases identities, crops, probes or cases, with rows of the audit, and ends erasures that were interrupted.

    kind: identity, crop, probe or case. The decision digest and the audit's chain say the same after it. Raises
    InputError if there is nothing of one of the names; then nothing is erased.
    """
    finish_all(store)
    return erase_target(store, lambda connection: find_target(connection, kind, names), actor, reason, on_wait)


def erase_target(
    store: Store,
    find: Callable[[Connection], Target],
    actor: str,
    reason: str,
    on_wait: Callable[[str], None] | None = None,
) -> Erased:
    """Erases what `find` finds, which is asked again under the locks."""
    with store.begin() as connection:
        units = units_of(connection, find(connection).crops)
    while True:
        with unit_locks(store, units, on_wait), acting(store) as connection:
            lock_crops(connection)
            target = find(connection)
            check_not_held(connection, target)
            now = units_of(connection, target.crops)
            if set(now) <= set(units):
                erasure = _erase_rows(connection, target, actor, reason)
                break
        units = now  # a resolve gave it crops of other cameras meanwhile
    return finish(store, erasure)


def _erase_rows(connection: Connection, target: Target, actor: str, reason: str) -> UUID:
    erasure: UUID = connection.execute(_OPEN, {"kind": target.kind, "actor": actor}).scalar_one()
    districts = {unit.partition("/")[0] for unit in units_of(connection, target.crops)}
    unit = districts.pop() if len(districts) == 1 else None
    details = {"erasure": str(erasure), "kind": target.kind}
    audit(connection, actor, Action.ERASE_START, unit=unit, reason=reason, details=details)
    rows = {
        "id": erasure,
        "crops": list(target.crops),
        "probes": list(target.probes),
        "requests": list(target.requests),
    }
    counts: dict[str, Any] = connection.execute(_ERASE, rows).scalar_one()
    for case in target.cases:
        connection.execute(text("SELECT erase_standing_of_case(:case)"), {"case": case})
    counts["audit_rows"] = erase_audit(connection, erasure, actor)
    connection.execute(_COUNT, {"id": erasure, "counts": json.dumps(counts)})
    return erasure


def erase_audit(connection: Connection, erasure: UUID, actor: str) -> int:
    """Erases reasons and details of the audit's rows that name what is erased; returns how many."""
    rows: list[int] = connection.execute(text("SELECT erase_audit(:id)"), {"id": erasure}).scalar_one()
    if rows:
        audit(connection, actor, Action.AUDIT_ERASE, details={"erasure": str(erasure), "rows": rows})
    return len(rows)


def read_names(connection: Connection, erasure: UUID) -> Sequence[tuple[str, str, str]]:
    """(kind, name, place) of everything that an erasure has still to remove outside of the database."""
    query = text("SELECT kind, name, place FROM erasure_name WHERE erasure_id = :id ORDER BY kind, name, place")
    return [(row.kind, row.name, row.place) for row in connection.execute(query, {"id": erasure})]


def finish(store: Store, erasure: UUID) -> Erased:
    """Removes what has the names of erased rows outside of the database, and ends the erasure. May be repeated.

    A batch of the retention takes its pictures with it, and leaves reports and exports as they are.
    """
    with store.begin() as connection:
        row = connection.execute(text("SELECT kind, actor, counts FROM erasure WHERE id = :id"), {"id": erasure}).one()
        names = read_names(connection, erasure)
    if row.kind == "retention":
        removed, left = {"pictures": remove_pictures(store, names)}, list[str]()
    else:
        write_list(store)  # it must outlive the database from here on
        removed, left = remove_files(store, names)
    counts = {**row.counts, **removed}
    with acting(store) as connection:
        connection.execute(_END, {"id": erasure, "counts": json.dumps(removed)})
        if row.kind != "retention":
            details = {"erasure": str(erasure), "counts": counts, "left": len(left)}
            audit(connection, row.actor, Action.ERASE_END, details=details)
    return Erased(erasure, counts, tuple(left))


def erase_again(store: Store, salt: bytes, hashes: set[bytes], *, actor: str) -> Erased | None:
    """Erases what a list of erasures names and a restored database holds; None where it holds nothing of it.

    Raises InputError for the list of another city.
    """
    with store.begin() as connection:
        if not connection.execute(text("SELECT adopt_salt(:salt)"), {"salt": salt}).scalar_one():
            raise InputError("this list of erasures is of another city: its salt is not that of the backup")
    finish_all(store)

    def find(connection: Connection) -> Target:
        at = {"hashes": list(hashes)}
        crops = connection.execute(_LISTED_CROPS, at).scalars().all()
        return Target("later", tuple(crops), tuple(connection.execute(_LISTED_PROBES, at).scalars()))

    with store.begin() as connection:
        target = find(connection)
    done = None
    if target.crops or target.probes:
        done = erase_target(store, find, actor, "erased after the backup that was restored")
    with store.begin() as connection:  # crops of later ingests, should they come in again
        listed: UUID = connection.execute(_OPEN, {"kind": "later", "actor": actor}).scalar_one()
        connection.execute(_ADD, {"id": listed, "hashes": list(hashes)})
        connection.execute(_END, {"id": listed, "counts": "{}"})
    write_list(store)
    return done


def finish_all(store: Store) -> list[Erased]:
    """Ends erasures that were interrupted."""
    with store.begin() as connection:
        unfinished = connection.execute(_UNFINISHED).scalars().all()
    return [finish(store, erasure) for erasure in unfinished]
