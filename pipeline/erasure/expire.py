"""expire: removes what has been kept as long as the city's retention says, and that no case holds.

Vectors of a day go with their partition as soon as nothing of that day must stay; crops and identities in batches of
rows, each under the locks of the units of its district; pictures with their rows, and with them their day's folder.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from pipeline.crops.context_frames import remove_expired
from pipeline.crops.held import AT_A_TIME
from pipeline.erasure.erase import finish, finish_all
from pipeline.governance.audit import Action, audit
from pipeline.governance.retention import Retention, read_retention
from pipeline.store import Store
from pipeline.store.locks import lock_crops, unit_locks
from schemas.levels import Level, level_of

#: Rows of one transaction.
BATCH = 5_000

_CUTOFFS = "unnest(CAST(:units AS text[]), CAST(:cutoffs AS timestamptz[])) AS k (unit, cutoff)"
_CROPS = text(
    f"SELECT c.id FROM {_CUTOFFS} JOIN crop c ON c.camera = k.unit AND c.captured_at < k.cutoff "
    "WHERE c.ingested_at < k.cutoff AND c.id <> ALL(:held) ORDER BY c.day, c.id LIMIT :most"
)
_VERSIONS = text(
    f"SELECT i.id FROM {_CUTOFFS} JOIN identity i ON i.unit = k.unit AND i.last_seen < k.cutoff "
    "JOIN run r ON r.id = i.run_id WHERE r.finished_at < k.cutoff AND i.id <> ALL(:held) ORDER BY i.id LIMIT :most"
)
_CROP_STAYS = text(
    f"SELECT EXISTS (SELECT FROM crop c LEFT JOIN {_CUTOFFS} ON k.unit = c.camera WHERE c.day = :day "
    "AND (k.cutoff IS NULL OR c.captured_at >= k.cutoff OR c.ingested_at >= k.cutoff OR c.id = ANY(:held)))"
)
_VERSION_STAYS = text(
    f"SELECT EXISTS (SELECT FROM identity i JOIN run r ON r.id = i.run_id LEFT JOIN {_CUTOFFS} ON k.unit = i.unit "
    "WHERE i.last_seen >= :start AND i.last_seen < :end AND NOT i.retired "
    "AND (k.cutoff IS NULL OR i.last_seen >= k.cutoff OR r.finished_at >= k.cutoff OR i.id = ANY(:held)))"
)
_PROTOTYPES = text(
    f"DELETE FROM prototype p USING {_CUTOFFS} JOIN identity i ON i.unit = k.unit JOIN run r ON r.id = i.run_id "
    "WHERE p.day = :day AND p.identity_id = i.id AND i.last_seen < k.cutoff AND r.finished_at < k.cutoff "
    "AND i.id <> ALL(:held)"
)
_DAYS = text(
    "SELECT DISTINCT to_date(right(tablename, 8), 'YYYYMMDD') AS day FROM pg_tables WHERE schemaname = 'public' "
    "AND tablename ~ ('^' || :family || '_m[0-9]+_[0-9]{8}$') ORDER BY day"
)
_HELD = text(
    "SELECT c.held AS crops, v.gone || v.mixed AS versions FROM held_crops() AS c (held), "
    "LATERAL versions_of_crops(c.held) AS v"
)
_OPEN = text("INSERT INTO erasure (kind, actor) VALUES ('retention', :actor) RETURNING id")
_PROBES = text("SELECT due_probes(:cutoff) LIMIT :most")
_REMOVE = {
    "crop": text("SELECT expire_crops(:id, :rows)"),
    "version": text("SELECT expire_versions(:id, :rows)"),
    "probe": text("SELECT expire_probes(:id, CAST(:rows AS uuid[]))"),
}


@dataclass(frozen=True)
class Expired:
    """What a run of the retention removed."""

    crops: int = 0
    versions: int = 0  # of identities
    probes: int = 0  # uploaded pictures whose case is closed, or that no case has
    pictures: int = 0
    partitions: int = 0
    more: bool = False  # it stopped before all was done

    @property
    def is_nothing(self) -> bool:
        return not (self.crops or self.versions or self.probes or self.pictures or self.partitions)


@dataclass(frozen=True)
class _Due:
    """Before when something is due, by unit; units that keep it without an end are not there."""

    crops: Mapping[str, datetime]  # by camera: crops and their features
    vectors: Mapping[str, datetime]  # by unit of any level: prototypes
    rows: Mapping[str, datetime]  # by unit of any level: versions of identities
    probes: datetime | None  # of the whole city; None: they stay

    @classmethod
    def of(cls, retention: Retention, units: Iterable[str], now: datetime) -> "_Due":
        def before(hours: Mapping[str, int | None]) -> dict[str, datetime]:
            return {unit: now - timedelta(hours=hour) for unit, hour in hours.items() if hour is not None}

        codes = sorted(units)
        own = {unit: retention.hours(unit, level_of(unit)) for unit in codes}
        crops = {unit: hours for unit, hours in own.items() if level_of(unit) is Level.CAMERA}
        rows = {unit: retention.hours_of_rows(unit) for unit in codes}
        return cls(before(crops), before(own), before(rows), before({"": retention.hours("", Level.CAMERA)}).get(""))


@dataclass(frozen=True)
class _Held:
    """Rows that an open case holds."""

    crops: Sequence[int]
    versions: Sequence[int]


def expire(
    store: Store,
    *,
    actor: str,
    now: datetime | None = None,
    most_batches: int | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Expired:
    """Removes what is due at `now`, with a row of the audit if anything was. What was interrupted before ends first.

    most_batches: stops after so many transactions of rows, so that a caller can do something else in between. Killed
    anywhere, the next run goes on.
    """
    finish_all(store)
    with store.begin() as connection:
        retention = read_retention(connection)
        units = connection.execute(text("SELECT code FROM urban_unit")).scalars().all()
    due = _Due.of(retention, units, now or datetime.now(UTC))
    if not due.vectors and due.probes is None:
        return Expired()
    with store.begin() as connection:
        row = connection.execute(_HELD).one()
    held = _Held(row.crops, row.versions)
    partitions = _drop_days(store, due, held) if due.vectors else 0
    run = _Run(store, actor, held, most_batches, on_wait)
    for district in sorted(unit for unit in units if "/" not in unit):
        below = [unit for unit in units if f"{unit}/".startswith(f"{district}/")]
        run.remove(below, "crop", _CROPS, {unit: due.crops[unit] for unit in below if unit in due.crops}, held.crops)
        run.remove(below, "version", _VERSIONS, {u: due.rows[u] for u in below if u in due.rows}, held.versions)
    if due.probes is not None:
        run.remove_probes(due.probes)
    return run.ended(partitions)


def expire_context_frames(store: Store) -> int:
    """Removes the context frames that were kept as long as they are to be; how many. Killed, the next call goes on."""
    removed = 0
    while True:
        with store.begin() as connection:
            lock_crops(connection)
            some = remove_expired(connection, store.settings)
        removed += some
        if some < AT_A_TIME:
            return removed


class _Run:
    """The batches of one run, each an erasure of its own that an interruption leaves to the next run."""

    def __init__(
        self,
        store: Store,
        actor: str,
        held: _Held,
        most_batches: int | None,
        on_wait: Callable[[str], None] | None,
    ) -> None:
        self._store, self._actor, self._held, self._on_wait = store, actor, held, on_wait
        self._left = most_batches
        self._removed = {"crop": 0, "version": 0, "probe": 0}
        self._pictures = 0
        self._more = False

    def remove(
        self, units: Sequence[str], what: str, query: TextClause, due: Mapping[str, datetime], held: Sequence[int]
    ) -> None:
        """Removes a district's due crops or versions, a batch at a time under the locks of its units."""
        if due:
            at = {"units": list(due), "cutoffs": list(due.values()), "held": list(held)}
            self._remove(units, what, query, at)

    def remove_probes(self, due: datetime) -> None:
        """Removes uploaded pictures whose case is closed since before `due`, with the link of their searches."""
        self._remove((), "probe", _PROBES, {"cutoff": due})

    def _remove(self, units: Sequence[str], what: str, query: TextClause, at: Mapping[str, object]) -> None:
        while True:
            with self._store.begin() as connection:
                if not connection.execute(query, {**at, "most": 1}).first():
                    return
            if self._left is not None and self._left <= 0:
                self._more = True
                return
            with unit_locks(self._store, units, self._on_wait), self._store.begin() as connection:
                lock_crops(connection)
                rows = connection.execute(query, {**at, "most": BATCH}).scalars().all()
                batch: UUID = connection.execute(_OPEN, {"actor": self._actor}).scalar_one()
                connection.execute(_REMOVE[what], {"id": batch, "rows": list(rows)})
            self._removed[what] += len(rows)
            self._pictures += finish(self._store, batch).counts["pictures"]
            if self._left is not None:
                self._left -= 1

    def ended(self, partitions: int) -> Expired:
        crops, versions, probes = (self._removed[what] for what in ("crop", "version", "probe"))
        done = Expired(crops, versions, probes, self._pictures, partitions, self._more)
        if done.is_nothing:
            return done
        counts = {name: value for name, value in vars(done).items() if name != "more"}
        with self._store.begin() as connection:
            audit(connection, self._actor, Action.RETENTION_RUN, details=counts)
        return done


def _drop_days(store: Store, due: _Due, held: _Held) -> int:
    """Drops the partitions of days of which nothing must stay; of other days the prototypes that are due go by rows."""
    dropped = 0
    latest = max(due.vectors.values())
    for family, cutoffs, its in (("crop_embedding", due.crops, held.crops), ("prototype", due.vectors, held.versions)):
        with store.begin() as connection:
            days: Sequence[date] = connection.execute(_DAYS, {"family": family}).scalars().all()
        for day in days:
            start = datetime.combine(day, time(), UTC)
            end = start + timedelta(days=1)
            if start >= latest:
                break
            at = {"units": list(cutoffs), "cutoffs": list(cutoffs.values()), "held": list(its), "day": day}
            with store.begin() as connection:
                if end <= latest and not _stays(connection, family, at | {"start": start, "end": end}):
                    dropped += connection.execute(
                        text("SELECT drop_partitions(:family, :day)"), {"family": family, "day": day}
                    ).scalar_one()
                elif family == "prototype":
                    connection.execute(_PROTOTYPES, at)
    return dropped


def _stays(connection: Connection, family: str, at: Mapping[str, object]) -> bool:
    query = _CROP_STAYS if family == "crop_embedding" else _VERSION_STAYS
    return bool(connection.execute(query, at).scalar_one())
