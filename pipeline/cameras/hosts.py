"""The cameras that this host may look at, among all hosts of a city.

A host tells the database every few seconds that it lives. Cameras are dealt to the hosts that do (`dealing`), and each
is looked at by whoever holds two things: a lease, which expires by the database's clock unless it is renewed, and an
advisory lock on the host's connection. The lock ends with the host or its connection; the lease holds where locks do
not, as when a replica takes the place of its primary. A host that cannot renew its leases in time ends its cameras.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from pipeline.cameras.dealing import deal
from pipeline.ingest.clocks import steady_s
from pipeline.store import Store
from pipeline.store.locks import idle_at_most
from pipeline.store.silence import SILENCE_S
from schemas.errors import InputError, StoreUnavailable

_log = logging.getLogger("urban_reid.cameras")

#: Cameras move for evenness only when none has been dealt for so long.
SETTLED_S = 60.0
#: After a cut the server keeps a host's old session, with its locks, for no longer.
OWN_SESSION_S = SILENCE_S + 5.0
#: Shares of the lease after which a host that could not renew it asks its cameras to end, and kills them.
ASK_AFTER, KILL_AFTER = 0.5, 0.8

#: Others wait for a host that deals: one that stands still meanwhile, such as a suspended one, loses its session.
_ONE_DEALS = text(f"{idle_at_most(10)}; SELECT pg_advisory_xact_lock(hashtextextended('urban_reid camera hosts', 0))")
_SEEN = text(
    "INSERT INTO camera_host AS h (name, looks_per_s, seen_at) VALUES (:name, :looks, clock_timestamp()) "
    "ON CONFLICT (name) DO UPDATE SET looks_per_s = excluded.looks_per_s, seen_at = excluded.seen_at"
)
_FORGET = text("DELETE FROM camera_host WHERE seen_at < clock_timestamp() - make_interval(secs => :lost_s)")
_HOSTS = text("SELECT name, looks_per_s FROM camera_host")
#: A paused camera, and one whose file is taken in, asks for nothing.
_CAMERAS = text(
    "SELECT f.camera, l.host, CASE WHEN f.paused OR h.state IN ('ended', 'refused') THEN 0 "
    "ELSE coalesce(l.looks_per_s, f.looks_per_s) END AS looks, "
    "l.dealt_at > clock_timestamp() - make_interval(secs => :settled_s) AS fresh "
    "FROM camera_feed f LEFT JOIN camera_lease l USING (camera) LEFT JOIN camera_health h USING (camera)"
)
_DEAL = text(
    "INSERT INTO camera_lease (camera, host, dealt_at) SELECT camera, host, clock_timestamp() "
    "FROM unnest(CAST(:cameras AS text[]), CAST(:hosts AS text[])) AS dealt (camera, host) "
    "ON CONFLICT (camera) DO UPDATE SET host = excluded.host, dealt_at = excluded.dealt_at"
)
_MEASURED = text(
    "UPDATE camera_lease l SET looks_per_s = m.looks "
    "FROM unnest(CAST(:cameras AS text[]), CAST(:looks AS float8[])) AS m (camera, looks) "
    "WHERE l.camera = m.camera AND l.holder = :name"
)
_MINE = text("SELECT camera FROM camera_lease WHERE host = :name")
_HOLD = text(
    "UPDATE camera_lease SET holder = :name, until = clock_timestamp() + make_interval(secs => :lost_s) "
    "WHERE camera = ANY(CAST(:cameras AS text[])) AND (holder IS NULL OR holder = :name OR until < clock_timestamp()) "
    "RETURNING camera"
)
_GIVE_BACK = text(
    "UPDATE camera_lease SET holder = NULL, until = NULL "
    "WHERE holder = :name AND camera = ANY(CAST(:cameras AS text[]))"
)
_LEAVE = text("DELETE FROM camera_host WHERE name = :name")
_TRY_LOCK = text("SELECT pg_try_advisory_lock(hashtextextended(:what, 0))")
_UNLOCK = text("SELECT pg_advisory_unlock(hashtextextended(:what, 0))")


def read_holders(connection: Connection) -> dict[str, str]:
    """The host that may look at a camera now, by the code of each camera that has one."""
    rows = connection.execute(text("SELECT camera, holder FROM camera_lease WHERE until > clock_timestamp()"))
    return {row.camera: row.holder for row in rows}


@dataclass(frozen=True)
class HostNow:
    """A host: looks a second that it can make, those that its cameras ask for, seconds since its last sign of life."""

    name: str
    looks_per_s: float
    asked_per_s: float
    cameras: int
    seen_s: float


def read_hosts(connection: Connection) -> list[HostNow]:
    """All hosts of cameras, by name."""
    rows = connection.execute(
        text(
            "SELECT h.name, h.looks_per_s, count(f.camera) AS cameras, "
            "extract(epoch FROM clock_timestamp() - h.seen_at)::float8 AS seen_s, "
            "coalesce(sum(coalesce(l.looks_per_s, f.looks_per_s)) FILTER (WHERE NOT f.paused), 0) AS asked_per_s "
            "FROM camera_host h LEFT JOIN camera_lease l ON l.host = h.name LEFT JOIN camera_feed f USING (camera) "
            'GROUP BY h.name ORDER BY h.name COLLATE "C"'
        )
    )
    return [HostNow(row.name, row.looks_per_s, row.asked_per_s, row.cameras, row.seen_s) for row in rows]


class CameraHost:
    """This host. `renew` is called again and again by one thread, and `leave` at the end."""

    def __init__(self, store: Store, looks_per_s: float) -> None:
        self.name = store.settings.host_name
        self._store, self._looks_per_s, self._lost_s = store, looks_per_s, store.settings.host_lost_s
        self._locks: Connection | None = None
        self._locked: set[str] = set()
        self._name_taken_at: float | None = None  # since when, by the steady clock
        self._renewed_at = -float("inf")

    @property
    def age_s(self) -> float:
        """How long ago the leases were renewed, seconds; also while the machine was suspended, as others count it."""
        return steady_s() - self._renewed_at

    @property
    def must_ask(self) -> bool:
        """Whether the leases are so old that cameras must be asked to end."""
        return self.age_s > ASK_AFTER * self._lost_s

    @property
    def kill_in_s(self) -> float:
        """In how many seconds cameras must have ended."""
        return KILL_AFTER * self._lost_s - self.age_s

    def renew(self, looks: Mapping[str, float], running: Collection[str]) -> set[str]:
        """The cameras that this host may look at until the next call; those that it must end are not among them.

        looks: looks a second of the cameras that were measured. running: those that it looks at now, which it goes on
        to hold until `give_back`. Raises StoreError, after which nothing is renewed; InputError where another host has
        had this one's name for OWN_SESSION_S.
        """
        began = steady_s()
        self._keep_connection()
        with self._store.begin() as connection:
            connection.execute(_ONE_DEALS)
            connection.execute(_SEEN, {"name": self.name, "looks": self._looks_per_s})
            connection.execute(_FORGET, {"lost_s": self._lost_s})
            self._deal(connection)
            if looks:
                measured = {"cameras": list(looks), "looks": list(looks.values()), "name": self.name}
                connection.execute(_MEASURED, measured)
            mine = set(connection.scalars(_MINE, {"name": self.name}))
        ours = mine | set(running)
        self._lock(ours)
        with self._store.begin() as connection:
            wanted = {"cameras": sorted(self._locked & ours), "name": self.name, "lost_s": self._lost_s}
            held = set(connection.scalars(_HOLD, wanted))
            # Such as one that it has ended, and that it could not give back then.
            connection.execute(_GIVE_BACK, {"cameras": sorted(self._locked - ours), "name": self.name})
        self._renewed_at = began
        self._unlock(self._locked - held - set(running))
        return mine & held

    def _deal(self, connection: Connection) -> None:
        hosts = {row.name: row.looks_per_s for row in connection.execute(_HOSTS)}
        rows = connection.execute(_CAMERAS, {"settled_s": SETTLED_S}).all()
        now = {row.camera: row.host for row in rows if row.host is not None}
        loads = {row.camera: float(row.looks) for row in rows}
        dealt = deal(hosts, loads, now, even=not any(row.fresh for row in rows))
        if changed := {camera: host for camera, host in dealt.items() if now.get(camera) != host}:
            connection.execute(_DEAL, {"cameras": list(changed), "hosts": list(changed.values())})
        for camera, host in changed.items():
            _log.info("%s: is dealt to host %s", camera, host)

    def give_back(self, cameras: Iterable[str]) -> None:
        """Lets another host hold cameras that this one has ended. Raises StoreError."""
        gone = sorted(cameras)
        if gone:
            with self._store.begin() as connection:
                connection.execute(_GIVE_BACK, {"cameras": gone, "name": self.name})
            self._unlock(set(gone))

    def leave(self, cameras: Iterable[str]) -> None:
        """Gives all back, after this host has ended its cameras, so that others need not wait. Raises StoreError."""
        try:
            self.give_back({*cameras, *self._locked})  # also what it could not start
            with self._store.begin() as connection:
                connection.execute(_LEAVE, {"name": self.name})
        finally:
            self.drop_locks()

    def _keep_connection(self) -> None:
        """Connects for the locks; anew, without them, where the connection was lost."""
        if self._locks is not None and self._answers():
            return
        self.drop_locks()
        with self._store.errors():
            self._locks = self._store.sessions.connect().execution_options(isolation_level="AUTOCOMMIT")
        if self._try_lock(f"camera host {self.name}"):
            self._name_taken_at = None
            return
        self.drop_locks()
        self._name_taken_at = steady_s() if self._name_taken_at is None else self._name_taken_at
        if steady_s() - self._name_taken_at <= OWN_SESSION_S:
            raise StoreUnavailable(
                f"the database still has a session of host {self.name}, this host's own from before its connection was "
                f"lost or another process's; it is asked again, for {OWN_SESSION_S:.0f} s"
            )
        raise InputError(
            f"another process runs cameras as host {self.name}", do="name this one by URBAN_REID_HOST_NAME"
        )

    def _lock(self, wanted: set[str]) -> None:
        """Takes the locks of cameras that are free."""
        for camera in sorted(wanted - self._locked):
            if self._try_lock(f"camera {camera}"):
                self._locked.add(camera)

    def _try_lock(self, what: str) -> bool:
        assert self._locks is not None
        with self._store.errors():
            return bool(self._locks.scalar(_TRY_LOCK, {"what": what}))

    def _answers(self) -> bool:
        assert self._locks is not None
        try:
            self._locks.scalar(text("SELECT 1"))
        except DBAPIError:
            return False
        return True

    def _unlock(self, cameras: set[str]) -> None:
        for camera in sorted(cameras & self._locked):
            if self._locks is not None:
                with self._store.errors():
                    self._locks.scalar(_UNLOCK, {"what": f"camera {camera}"})
            self._locked.discard(camera)  # not before: what the server still holds is unlocked at the next call

    def drop_locks(self) -> None:
        """Ends the connection, and with it all locks: nobody waits for cameras that this host has ended."""
        if self._locks is not None:
            with suppress(DBAPIError):
                self._locks.invalidate()
                self._locks.close()
        self._locks, self._locked = None, set()
