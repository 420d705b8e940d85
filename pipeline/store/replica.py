"""A read replica: `URBAN_REID_REPLICA_URL`, for reads of people that a page or a search shows.

A read goes to the replica once that has replayed all that the primary had committed when the read was asked for, and to
the primary if that takes longer than `Settings.replica_wait_s`. So it never shows what was erased before, and a session
or an authorization that has ended has ended there too. A replica on another timeline than the primary is not read: it
may hold commits that a promotion lost, or lack some that came since.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import DBAPIError

from schemas.errors import StoreError, StoreUnavailable

#: SQL for the timeline of a primary's log, 8 hexadecimal digits; a server in recovery refuses it.
LOG_TIMELINE = "left(pg_walfile_name(pg_current_wal_lsn()), 8)"
#: SQL for the server's timeline, a number that each promotion of a replica raises. In recovery it is that of the last
#: restart point, so it may be the one before for a while.
TIMELINE = (
    "CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint()) "
    f"ELSE ('x' || {LOG_TIMELINE})::bit(32)::int END"
)
_SAME = f"current_database() AS database, (SELECT system_identifier FROM pg_control_system()) AS system, {TIMELINE}"
_POSITION = text(f"SELECT pg_is_in_recovery() AS replica, pg_current_wal_lsn()::text AS lsn, {_SAME} AS timeline")
_REPLAYED = text(
    "SELECT pg_is_in_recovery() AS replica, greatest(pg_wal_lsn_diff(CAST(:lsn AS pg_lsn), "
    f"pg_last_wal_replay_lsn()), 0)::bigint AS behind, {_SAME} AS timeline"
)
#: After it was of no use, the replica is not asked for so long, seconds.
_REST_S = 5.0
_ASKED_EVERY_S = 0.005


@dataclass(frozen=True)
class ReplicaState:
    """How the replica stands now."""

    behind_bytes: int | None  # of the primary's log; None where that is not known
    waited_s: float  # until it had caught up, or was given up
    reason: str  # why it is not read; empty where it is


class Replica:
    """The replica's connections, by role, and whether it is of use. Safe for threads."""

    def __init__(self, engine_of: Callable[[str], Engine], wait_s: float) -> None:
        self._engine_of, self._wait_s = engine_of, wait_s
        self._engines: dict[str, Engine] = {}
        self._rests_until, self._reason = 0.0, ""

    def connected(self, role: str, position: Callable[[], Row[Any]]) -> Connection | str:
        """A connection that sees all that the primary has committed by now, or why there is none.

        position: reads `position_of` from the primary.
        """
        if time.monotonic() < self._rests_until:
            return self._reason
        connection, state = self._asked(role, position)
        if connection is not None and not state.reason:
            return connection
        if connection is not None:
            connection.close()
        self.rest(state.reason)
        return state.reason

    def look(self, role: str, position: Callable[[], Row[Any]]) -> ReplicaState:
        """How it stands, asked now."""
        connection, state = self._asked(role, position)
        if connection is not None:
            connection.close()
        return state

    def _asked(self, role: str, position: Callable[[], Row[Any]]) -> tuple[Connection | None, ReplicaState]:
        """A connection, if one was made, and how the replica stands."""
        connection = None
        try:
            connection = self._engine(role).connect()
            return connection, _caught_up(connection, position(), self._wait_s)
        except (DBAPIError, StoreUnavailable) as error:
            return connection, ReplicaState(None, 0.0, f"it does not answer ({type(error).__name__})")
        except StoreError as error:  # such as of its certificate
            return connection, ReplicaState(None, 0.0, f"it cannot be used: {error}")

    def rest(self, reason: str) -> None:
        """Leaves the replica alone for a while."""
        self._reason, self._rests_until = reason, time.monotonic() + _REST_S

    def close(self) -> None:
        for engine in self._engines.values():
            engine.dispose()

    def _engine(self, role: str) -> Engine:
        return self._engines.get(role) or self._engines.setdefault(role, self._engine_of(role))


def position_of(connection: Connection) -> Row[Any]:
    """Where the log of the primary stands: all that was committed lies before it."""
    return connection.execute(_POSITION).one()


def _caught_up(connection: Connection, primary: Row[Any], wait_s: float) -> ReplicaState:
    """Waits until the replica has replayed the log up to there, each look in a transaction of its own."""
    began = time.monotonic()
    while True:
        with connection.begin():
            found = connection.execute(_REPLAYED, {"lsn": primary.lsn}).one()
        waited_s = time.monotonic() - began
        if not found.replica:
            return ReplicaState(None, waited_s, "it is no replica")
        if (found.database, found.system) != (primary.database, primary.system):
            return ReplicaState(None, waited_s, "it is the replica of another database")
        if found.timeline != primary.timeline:
            return ReplicaState(
                None, waited_s, "a promotion has parted it from the primary, or it has not yet noted one"
            )
        if found.behind == 0:
            return ReplicaState(0, waited_s, "")
        if waited_s >= wait_s:
            return ReplicaState(found.behind, waited_s, f"it was behind for more than {wait_s:g} s")
        time.sleep(_ASKED_EVERY_S)
