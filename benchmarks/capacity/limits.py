"""What breaks first as a city grows, and what one does then.

Each limit is that of one machine, one process or one server as the program is set up by default. A limit is reached at
the number of cameras from which what is needed exceeds what there is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.capacity.estimate import Range
from benchmarks.capacity.needs import Model, Needs

#: A district's window may take this share of its length: a run is followed by a pause as long as itself.
_DISTRICT_SHARE = 0.5
#: Share of a day that a backup may take.
_BACKUP_SHARE = 0.25
#: Share of a machine's memory in which searches keep prototypes, where no setting says otherwise.
_SEARCH_SHARE = 0.5
MOST_CAMERAS = 10_000_000
_SHARDS = "[A database for each group of districts](many-machines.md#one-database-for-each-group-of-districts)"


@dataclass(frozen=True)
class Limit:
    """needed, there: in `unit`."""

    what: str
    unit: str
    needed: Callable[[Model, Needs], Range]
    there: Callable[[Model], float]
    then: str


LIMITS = (
    Limit(
        "cores of one machine",
        "cores",
        lambda _, needs: needs.bought_cores,
        lambda model: float(model.load.machine.cores),
        "[Further hosts](many-machines.md#cameras): `urban-reid worker --role cameras` on each; or a card.",
    ),
    Limit(
        "the network of one core for all camera hosts",
        "Gbit/s",
        lambda _, needs: needs.network_gbit_s["their hosts to a core elsewhere"],
        lambda model: model.load.machine.network_gbit_s,
        "Each camera host looks with a core of its own, as `urban-reid worker` does by itself, and not over "
        "`URBAN_REID_CORE_URL`: a look sends more than the stream brought.",
    ),
    Limit(
        "streams into one machine",
        "Gbit/s",
        lambda _, needs: needs.network_gbit_s["cameras to their hosts"],
        lambda model: model.load.machine.network_gbit_s,
        "Camera hosts beside the cameras, several to a city.",
    ),
    Limit(
        "one process that resolves",
        "s a window",
        lambda _, needs: needs.windows_s,
        lambda model: model.load.window_s,
        "[Workers](many-machines.md#flows): `urban-reid worker --role resolve`, `URBAN_REID_FLOWS=workers`.",
    ),
    Limit(
        "the look after closed windows, each second",
        "s",
        lambda _, needs: needs.cores["looking for closed windows"],
        lambda _: 1.0,
        f"{_SHARDS}, each with an `urban-reid up`.",
    ),
    Limit(
        "a window of one district",
        "s a window",
        lambda _, needs: needs.window_s,
        lambda model: model.load.window_s * _DISTRICT_SHARE,
        "Smaller districts, or a shorter retention of the district's identities.",
    ),
    Limit(
        "connections of one Postgres",
        "connections",
        lambda model, needs: (
            needs.bought_cores
            * (model.load.processes_per_machine * model.load.connections_per_process / model.load.machine.cores)
            + Range.exact(needs.traffic.cameras * model.load.connections_per_camera)
        ),
        lambda model: float(model.load.machine.connections),
        "[PgBouncer](many-machines.md#behind-pgbouncer): `URBAN_REID_DATABASE_URL`, `URBAN_REID_DATABASE_DIRECT_URL`.",
    ),
    Limit(
        "what one Postgres writes",
        "MB/s",
        lambda _, needs: needs.database_write_mb_s,
        lambda model: model.load.machine.disk_write_mb_s,
        f"{_SHARDS}.",
    ),
    Limit(
        "the disk of one Postgres",
        "GB",
        lambda _, needs: needs.database_gb,
        lambda model: model.load.machine.disk_tb * 1_000,
        f"{_SHARDS}, or a shorter retention.",
    ),
    Limit(
        "pictures on one disk",
        "GB",
        lambda _, needs: needs.files_gb,
        lambda model: model.load.machine.disk_tb * 1_000,
        "[An object store](guides/crops.md): `URBAN_REID_PICTURES_URL`.",
    ),
    Limit(
        "a backup by dump, hours of a day",
        "h",
        lambda _, needs: needs.backup_s * (1 / 3_600),
        lambda _: 24 * _BACKUP_SHARE,
        f"{_SHARDS}, dumped at the same time; or the server's own backup.",
    ),
    Limit(
        "memory of one search process",
        "GB",
        lambda _, needs: Range.exact(needs.search_memory_gb),
        lambda model: model.load.machine.memory_gb * _SEARCH_SHARE,
        f"`URBAN_REID_SEARCH_MEMORY_MB` allows more than half of the memory. {_SHARDS}.",
    ),
    Limit(
        "one Prefect server",
        "cores",
        lambda _, needs: Range.exact(needs.prefect_server),
        lambda _: 1.0,
        f"A Prefect server of yours, on PostgreSQL: `URBAN_REID_PREFECT_URL`. {_SHARDS}.",
    ),
)


def reached(model: Model, limit: Limit, end: Literal["value", "low", "high"] = "value") -> int | None:
    """The least number of cameras that need more than there is; None: none up to `MOST_CAMERAS`.

    end: of what is needed, its value or an end of its interval.
    """

    def is_over(cameras: int) -> bool:
        return float(getattr(limit.needed(model, model.needs(cameras)), end)) > limit.there(model)

    if not is_over(MOST_CAMERAS):
        return None
    within, over = 0, MOST_CAMERAS
    while over - within > 1:
        middle = (within + over) // 2
        within, over = (within, middle) if is_over(middle) else (middle, over)
    return over
